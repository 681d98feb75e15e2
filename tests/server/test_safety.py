"""Hostile and vanished clients: limits on memory, time and wrong counts.

The long waits run side by side, on one server of each kind: see `slow_runs`.
"""

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.raw import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    UPGRADE,
    Client,
    close_payload,
    frame,
    request,
)
from tests.servers import Server
from tests.waiting import DEADLINE, SECOND, eventually

SITE = "tests.sites.transport:application"
KINDS = ["daphne", "uvicorn", "daphne-tls"]
MiB = 1 << 20
ROOM = 16 * MiB  # of memory for all hostile clients together
CUT_AFTER = 10  # seconds, of slow readers and of slow headers
CLOSE_AFTER = 5  # seconds, if a Close is not read
SLACK = 12 * SECOND  # for a busy machine; without the limit: 40 s, or never

each = pytest.mark.parametrize("kind", KINDS)
each_that_takes_long = pytest.mark.parametrize(
    "kind", ["daphne", "uvicorn", pytest.param("daphne-tls", marks=pytest.mark.long)]
)
of_daphne = pytest.mark.parametrize("kind", ["daphne", "daphne-tls"])


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, Server]]:
    with ExitStack() as stack:
        yield {kind: stack.enter_context(Server(kind, SITE)) for kind in KINDS}


def opened(server: Server, app: str, name: str, receive_buffer: int | None = None) -> Client:
    client = Client(server.port, receive_buffer)
    answer = client.ask(f"/{app}/{name}/websocket", UPGRADE)
    assert answer.status_line.startswith("HTTP/1.1 101"), answer
    return client


def count(server: Server, name: str) -> int:
    return int(server.get(f"/count/{name}")[2])


def seconds_until(condition: Callable[[], bool], deadline: float) -> float:
    start = time.monotonic()
    while not condition() and time.monotonic() - start < deadline:
        time.sleep(0.05)
    return time.monotonic() - start


# Slow clients: each function returns its observation; all run side by side on one server


def slow_reader(server: Server, app: str, data: bytes) -> float:
    """Send as long as possible and read nothing; return when the count excludes it."""
    name = f"slow-{app}-{len(data)}"
    with opened(server, app, name) as client:

        def send() -> None:
            try:
                while data:
                    client.send(data)
            except OSError:
                pass

        client.socket.settimeout(3 * DEADLINE)
        sender = threading.Thread(target=send)
        sender.start()
        seconds = seconds_until(lambda: count(server, name) == 0, 2 * CUT_AFTER + SLACK)
        with suppress(OSError):  # it may be closed already
            client.socket.shutdown(socket.SHUT_RDWR)
        sender.join()
        return seconds


def slow_but_reading(server: Server, app: str) -> int:
    """Read 64 KiB a second for longer than SLOW_READER_TIMEOUT; return the count then."""
    with opened(server, app, f"reading-{app}") as client:
        end = time.monotonic() + CUT_AFTER + 5
        while time.monotonic() < end:
            client.socket.recv(1 << 14)
            time.sleep(0.25)
        return count(server, f"reading-{app}")


def close_unread(server: Server, app: str) -> tuple[float, float]:
    """Close with unread data; return the seconds until the count excludes it, and to its end."""
    name = f"unread-{app}"
    with opened(server, app, name, receive_buffer=4096) as client:
        if app == "echo":
            server.get(f"/push/{name}")
        else:
            client.send_text("a burst")
        time.sleep(SECOND)  # until more is sent than the kernel buffers
        client.send(frame(CLOSE, close_payload(4000)))
        uncounted = seconds_until(lambda: count(server, name) == 0, 2 * CUT_AFTER)
        return uncounted, uncounted + seconds_until(lambda: is_gone(server, client), 2 * CUT_AFTER)


def is_gone(server: Server, client: Client) -> bool:
    """Return whether no process of the server has the connection's socket any more."""
    _, port = client.socket.getsockname()
    with open(f"/proc/{server.process.pid}/net/tcp") as connections:
        for line in list(connections)[1:]:
            fields = line.split()
            if fields[1].endswith(f":{server.port:04X}") and fields[2].endswith(f":{port:04X}"):
                return fields[9] == "0"  # no inode: no process has the socket
    return True


def slow_headers(server: Server) -> float:
    """Send the headers of a handshake slowly; return the seconds until the server aborts."""
    start = time.monotonic()
    with Client(server.port) as client:
        client.socket.settimeout(0.2)
        try:
            for byte in request("/foo/websocket", {**UPGRADE, "X-Long": "x" * 1000}):
                client.send(bytes([byte]))
                try:
                    if not client.socket.recv(1000):
                        break
                except TimeoutError:
                    pass
        except OSError:
            pass
    return time.monotonic() - start


def slow_body(server: Server) -> bytes:
    """Send a body for longer than HEADERS_TIMEOUT; return the response."""
    size = CUT_AFTER + 3
    head = f"POST /size HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {size}\r\n\r\n"
    with Client(server.port) as client:
        client.send(head.encode())
        for _ in range(size):
            time.sleep(1)
            client.send(b"x")
        assert client.answer().status_line == "HTTP/1.1 200 OK"
        while b"\r\n0\r\n\r\n" not in client.buffer:
            client.buffer += client.socket.recv(1000)
        return client.buffer


def silent_application(server: Server) -> tuple[str, float]:
    start = time.monotonic()
    with Client(server.port) as client:
        client.socket.settimeout(3 * DEADLINE)
        answer = client.ask("/silent/foo/websocket", UPGRADE)
        return answer.status_line, time.monotonic() - start


TEXTS = frame(TEXT, b"x" * 1000) * 50
PINGS = frame(PING, b"x" * 125) * 500

RUNS: dict[str, Callable[[Server], object]] = {
    "slow reader of echoes": lambda server: slow_reader(server, "echo", TEXTS),
    "slow reader of a receive loop": lambda server: slow_reader(server, "loop", TEXTS),
    "slow reader of a broadcast": lambda server: slow_reader(server, "broadcast", b""),
    "slow reader of automatic replies": lambda server: slow_reader(server, "automatic", TEXTS),
    "slow reader of pongs": lambda server: slow_reader(server, "loop", PINGS),
    "slow but reading echo": lambda server: slow_but_reading(server, "broadcast"),
    "close unread echo": lambda server: close_unread(server, "echo"),
    "close unread burst": lambda server: close_unread(server, "burst"),
    "silent application": silent_application,
}
OF_DAPHNE = {"slow headers": slow_headers, "slow body": slow_body}  # uvicorn's HTTP is its own


def run_all(server: Server) -> dict[str, Future[object]]:
    """Run all slow clients side by side; "memory" is the maximum of all together."""
    for app in ("echo", "loop"):
        with opened(server, app, "first") as client:
            client.send_text("hello")
            client.text()
    runs = RUNS | OF_DAPHNE if server.kind != "uvicorn" else RUNS
    before = server.forget_peak()
    with ThreadPoolExecutor(len(runs)) as pool:
        results = {name: pool.submit(run, server) for name, run in runs.items()}
    results["memory"] = Future()
    results["memory"].set_result(server.memory("VmHWM") - before)
    return results


@pytest.fixture(scope="module")
def slow_runs(servers: dict[str, Server]) -> dict[str, dict[str, Future[object]]]:
    with ThreadPoolExecutor(len(KINDS)) as pool:
        return dict(zip(KINDS, pool.map(run_all, servers.values()), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("what", [name for name in RUNS if name.startswith("slow reader")])
@each
def test_slow_reader_is_cut_after_ten_seconds(slow_runs, kind: str, what: str) -> None:
    seconds = slow_runs[kind][what].result()

    assert CUT_AFTER - 1 < seconds < CUT_AFTER + SLACK


@pytest.mark.slow
@each
def test_reader_that_is_slow_but_reads_is_not_cut(slow_runs, kind: str) -> None:
    assert slow_runs[kind]["slow but reading echo"].result() == 1


@pytest.mark.slow
@pytest.mark.parametrize("app", ["echo", "burst"])
@each
def test_close_of_a_client_that_does_not_read_is_noticed_at_once(slow_runs, kind, app) -> None:
    uncounted, gone = slow_runs[kind][f"close unread {app}"].result()

    assert uncounted < CLOSE_AFTER / 2  # includes the reading of the count on a busy server
    assert CLOSE_AFTER - 1 < gone < CLOSE_AFTER + SLACK


@pytest.mark.slow
@each
def test_memory_that_all_slow_clients_cost_together(slow_runs, kind: str) -> None:
    room = 1.5 * ROOM if kind == "daphne-tls" else ROOM  # TLS has buffers of its own

    assert slow_runs[kind]["memory"].result() < room


@pytest.mark.slow
@of_daphne
def test_headers_must_come_within_ten_seconds(slow_runs, kind: str) -> None:
    assert CUT_AFTER - 1 < slow_runs[kind]["slow headers"].result() < CUT_AFTER + SLACK


@pytest.mark.slow
@of_daphne
def test_bodies_may_take_longer_than_headers(slow_runs, kind: str) -> None:
    assert slow_runs[kind]["slow body"].result() == b"2\r\n13\r\n0\r\n\r\n"


@pytest.mark.slow
@each
def test_application_must_answer_a_handshake_in_time(slow_runs, kind: str) -> None:
    status_line, seconds = slow_runs[kind]["silent application"].result()

    limit = 20 if kind == "uvicorn" else 5  # seconds; Daphne's --websocket_connect_timeout
    assert status_line == "HTTP/1.1 503 Service Unavailable"
    assert limit - 1 < seconds < limit + SLACK


@pytest.mark.slow
@pytest.mark.long
def test_event_stream_that_is_not_read_is_cut(servers) -> None:
    with Client(servers["daphne"].port, receive_buffer=4096) as client:
        client.send(request("/stream", {}))

        assert seconds_until(lambda: is_gone(servers["daphne"], client), 60 * SECOND) < 60 * SECOND


# Tests that do not take long


@each
def test_flood_into_a_busy_handler_waits_in_the_client(kind: str) -> None:
    """When the handler receives it, nothing is lost or out of order."""
    texts = [f"{number} ".ljust(1000, "x") for number in range(20_000)]
    flood = b"".join(frame(TEXT, text.encode()) for text in texts)
    with Server(kind, SITE) as server, opened(server, "busy", "busy") as client:
        count(server, "busy")
        before = server.forget_peak()
        sender = threading.Thread(target=client.send, args=(flood,))
        sender.start()
        time.sleep(2 * SECOND)  # the client sends as much as it can
        grown = server.memory("VmHWM") - before
        server.get("/release")
        echoed = [client.text() for _ in texts]
        sender.join()

    assert grown < ROOM
    assert echoed == texts


@each_that_takes_long
def test_burst_waits_in_the_application(kind: str) -> None:
    """Even while the client's next messages are queued."""
    with Server(kind, SITE) as server, opened(server, "burst", "burst") as client:
        count(server, "burst")
        before = server.forget_peak()
        client.send(frame(TEXT, b"") * 3)
        size = sum(len(client.text()) for _ in range(3000))
        grown = server.memory("VmHWM") - before

    assert size == 3000 * 65_536
    assert grown < ROOM


@each_that_takes_long
def test_replies_that_are_much_longer_than_texts_wait_in_the_client(kind: str) -> None:
    """Texts of one segment, 7 bytes each, ask for 640 MiB."""
    with Server(kind, SITE) as server, opened(server, "amplifying", "amplifying") as client:
        before = server.forget_peak()
        client.send(frame(TEXT, b"x") * 10_000)
        size = sum(len(client.text()) for _ in range(10_000))
        grown = server.memory("VmHWM") - before

    assert size == 10_000 * 65_536
    assert grown < ROOM


@each
def test_close_behind_texts_that_are_not_received_is_noticed(servers, kind: str) -> None:
    """The application closes at the first text; the client's Close was read with it."""
    with opened(servers[kind], "script", "behind") as client:
        client.send(
            frame(TEXT, b"close 4001 enough")
            + frame(TEXT, b"more") * 200
            + frame(CLOSE, close_payload(1000))
        )
        assert client.closing() == (4001, "enough")

        assert seconds_until(client.at_end, 2 * CLOSE_AFTER) < CLOSE_AFTER / 2


@pytest.mark.slow
@each_that_takes_long
def test_client_behind_a_cut_cable_is_noticed_by_its_silence(kind: str) -> None:
    prefix = "--ws-ping" if kind == "uvicorn" else "--ping"
    options = (f"{prefix}-interval", "1", f"{prefix}-timeout", "1")
    apps = ("echo", "loop", "deaf")
    with Server(kind, SITE, options) as server:
        there = opened(server, "echo", "there")
        pongs = threading.Thread(target=answer_pings, args=(there,), daemon=True)
        pongs.start()
        clients = [opened(server, app, f"gone-{app}") for app in apps]
        for client in clients:
            client.vanish()
        seconds = seconds_until(
            lambda: all(count(server, f"gone-{app}") == 0 for app in apps), DEADLINE
        )
        still_there = count(server, "there")
        there.socket.shutdown(socket.SHUT_RDWR)
        pongs.join()
        for client in (*clients, there):
            client.socket.close()

    assert 1 < seconds < 1 + 1 + 3
    assert still_there == 1


def answer_pings(client: Client) -> None:
    with suppress(AssertionError, OSError):  # until the connection ends
        while client.frame() == (PING, b""):
            client.send(frame(PONG))


LARGE = 2_621_440 + 1  # bytes: one more than Django's DATA_UPLOAD_MAX_MEMORY_SIZE


def upload(server: Server, headers: bytes, body: list[bytes]) -> Client:
    client = Client(server.port)
    with suppress(OSError):  # the server closes early
        client.send(b"POST /size HTTP/1.1\r\nHost: 127.0.0.1\r\n" + headers + b"\r\n")
        for piece in body:
            client.send(piece)
    return client


@pytest.fixture(scope="module")
def daphne(servers: dict[str, Server]) -> Server:
    return servers["daphne"]


def spooled(server: Server) -> int:
    """Return the size of the deleted files that the process has open."""
    sizes = [0]
    for file in Path(f"/proc/{server.process.pid}/fd").iterdir():
        with suppress(OSError):  # closed meanwhile
            if "(deleted)" in os.readlink(file) and file.stat().st_ino != log_inode(server):
                sizes.append(file.stat().st_size)
    return sum(sizes)


def log_inode(server: Server) -> int:
    return os.fstat(server.log_file.fileno()).st_ino


def test_body_with_too_large_a_content_length_is_rejected_before_it_is_received(
    daphne: Server,
) -> None:
    with upload(daphne, b"Content-Length: %d\r\n" % LARGE, []) as client:
        assert client.answer().status_line == "HTTP/1.1 413 Content Too Large"
        assert client.at_end()


def test_chunked_body_is_rejected_while_it_is_received(daphne: Server) -> None:
    piece = b"10000\r\n" + b"x" * 65_536 + b"\r\n"

    with upload(daphne, b"Transfer-Encoding: chunked\r\n", [piece] * 1000) as client:
        assert client.answer().status_line == "HTTP/1.1 413 Content Too Large"
    eventually(lambda: spooled(daphne), 0)


def test_body_of_the_maximum_size_is_accepted(daphne: Server) -> None:
    pieces = [b"x" * (LARGE - 1)]
    with upload(daphne, b"Content-Length: %d\r\n" % (LARGE - 1), pieces) as client:
        assert client.answer().status_line == "HTTP/1.1 200 OK"


def test_settings_limit_the_size_of_a_body(tmp_path: Path) -> None:
    (tmp_path / "larger.py").write_text(
        "from project.settings import *\nDATA_UPLOAD_MAX_MEMORY_SIZE = 3_000_000\n"
    )
    env = {"DJANGO_SETTINGS_MODULE": "larger", "PYTHONPATH": str(tmp_path)}
    with Server("daphne", **env) as server:
        taken = upload(server, b"Content-Length: %d\r\n" % LARGE, [b"x" * LARGE])
        rejected = upload(server, b"Content-Length: 3000001\r\n", [])
        with taken, rejected:
            assert taken.answer().status_line != "HTTP/1.1 413 Content Too Large"
            assert rejected.answer().status_line == "HTTP/1.1 413 Content Too Large"


def test_files_may_be_larger(daphne: Server) -> None:
    body = (
        b'--b\r\nContent-Disposition: form-data; name="f"\r\n\r\n' + b"x" * LARGE + b"\r\n--b--\r\n"
    )
    headers = b"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: %d\r\n"
    with upload(daphne, headers % len(body), [body]) as client:
        assert client.answer().status_line == "HTTP/1.1 200 OK"


# Events of the application as frames of the client


@pytest.fixture(params=KINDS)
def server(request: pytest.FixtureRequest, servers: dict[str, Server]) -> Server:
    return servers[request.param]


def closing_of(server: Server, command: str) -> tuple[int | None, str]:
    with opened(server, "script", "script") as client:
        client.send_text(command)
        return client.closing()


@pytest.mark.parametrize("code", [1000, 1001, 1008, 1011, 3000, 4999])
def test_own_code_and_reason_reach_the_client(server: Server, code: int) -> None:
    assert closing_of(server, f"close {code} das Maß ist voll") == (code, "das Maß ist voll")


@pytest.mark.parametrize("code", [1, 999, 1004, 1005, 1006, 1015, 2999, 5000, 70_000])
def test_code_that_may_not_be_sent_is_an_error(server: Server, code: int) -> None:
    assert closing_of(server, f"close {code} x") == (1011, "")
    assert f"ValueError: {code} is not a code" in server.log()


def test_long_reason_is_cut_between_characters(server: Server) -> None:
    assert closing_of(server, "close 4000 " + "ä" * 100) == (4000, "ä" * 61)


def test_exception_in_receive_is_a_1011_without_a_traceback(server: Server) -> None:
    assert closing_of(server, "raise secret") == (1011, "")


def test_return_without_a_close_is_a_1000(server: Server) -> None:
    assert closing_of(server, "return") == (1000, "")


def test_send_after_the_close_raises_client_disconnected(server: Server) -> None:
    before = server.get("/events")[2].count("ClientDisconnected")

    closing_of(server, "close 1000 done")

    eventually(lambda: server.get("/events")[2].count("ClientDisconnected"), before + 1)


def test_close_during_a_busy_handler_is_noticed_at_once(server: Server) -> None:
    with opened(server, "deaf", "deaf") as client:
        assert count(server, "deaf") == 1
        client.send(frame(CLOSE, close_payload(4000)))

        eventually(lambda: count(server, "deaf"), 0, SECOND)


@pytest.mark.parametrize("app", ["loop", "asynchronous", "synchronous"])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_empty_messages_go_both_ways(server: Server, app: str, opcode: int) -> None:
    with opened(server, app, "empty") as client:
        client.send(frame(opcode) + frame(opcode, b"x") + frame(opcode))

        assert [client.frame() for _ in range(3)] == [(opcode, b""), (opcode, b"x"), (opcode, b"")]


@pytest.fixture
def limit(server: Server) -> int:
    return 16 * MiB if server.kind == "uvicorn" else MiB  # bytes; uvicorn's --ws-max-size


def test_message_of_the_maximum_size_is_echoed(server: Server, limit: int) -> None:
    with opened(server, "echo", "large") as client:
        client.send(frame(TEXT, b"x" * limit))

        assert client.text() == "[Durable Object]: " + "x" * limit


def test_message_over_the_limit_is_rejected_by_its_header(server: Server, limit: int) -> None:
    with opened(server, "echo", "larger") as client:
        client.send(frame(TEXT, b"x" * (limit + 1))[:14])

        assert client.closing() == (1009, f"Message is too large: {limit + 1} > {limit}")
        assert count(server, "larger") == 0


def test_fragments_over_the_limit_are_rejected(server: Server, limit: int) -> None:
    with opened(server, "loop", "fragments") as client:
        client.send(frame(TEXT, b"x" * limit, fin=False) + frame(0, b"x", fin=False))

        assert client.closing() == (1009, f"Message is too large: {limit + 1} > {limit}")


@pytest.mark.parametrize("app", ["asynchronous", "synchronous"])
def test_channels_consumers_work_unchanged(server: Server, app: str) -> None:
    with opened(server, app, app) as client:
        client.send_text("hello")
        client.send(frame(BINARY, b"\xff"))
        assert [client.frame(), client.frame()] == [(TEXT, b"hello"), (BINARY, b"\xff")]
        client.send_text("close")
        assert client.closing() == (4001, "as asked")

    eventually(lambda: f"{app} 4001" in server.get("/events")[2], True)
    assert count(server, app) == 0


def test_json_consumers_work_unchanged(server: Server) -> None:
    with opened(server, "json", "json") as client:
        client.send_text('{"a": [1]}')
        assert client.text() == '{"a": [1]}'
        client.send_text('"close"')
        assert client.closing() == (4001, "as asked")


@pytest.mark.parametrize("app", ["asynchronous", "synchronous", "json"])
def test_channels_consumers_clean_up(server: Server, app: str) -> None:
    with opened(server, app, app) as client:
        client.send(frame(CLOSE, close_payload(4321, "bye")))
        assert client.closing()[0] == 4321
        assert client.at_end()

    eventually(lambda: f"{app} 4321" in server.get("/events")[2], True)


# The count


@pytest.mark.slow
@each_that_takes_long
def test_count_is_right_at_every_101_and_every_close_reply(servers, kind: str) -> None:
    server = servers[kind]
    counts = []
    with Client(server.port) as reader:
        for number in range(200):
            with opened(server, ("echo", "loop", "asynchronous")[number % 3], "promise") as client:
                counts.append(read_count(reader))
                client.send(frame(CLOSE, close_payload(1000)))
                client.closing()
                counts.append(read_count(reader))

    assert counts == [1, 0] * 200


def read_count(reader: Client) -> int:
    headers = {"Accept": "application/json"}
    return json.loads(reader.ask("/promise/getCurrentConnections", headers).body)["connections"]
