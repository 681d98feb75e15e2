"""Hostile HTTP clients: limits on descriptors, memory, log lines and the delay of others."""

import itertools
import os
import resource
import select
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.raw import TEXT, UPGRADE, Client, frame, request
from tests.servers import Server
from tests.waiting import DEADLINE, SECOND, eventually

SITE = "tests.sites.transport:application"
KINDS = ["daphne", "uvicorn"]
MiB = 1 << 20
CHECKED = 1.0  # seconds between two rounds of the checker

both = pytest.mark.parametrize("kind", KINDS)


def descriptors(server: Server) -> int:
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, Server]]:
    with Server("daphne", SITE) as daphne, Server("uvicorn", SITE) as uvicorn:
        yield {"daphne": daphne, "uvicorn": uvicorn}


@pytest.fixture(params=KINDS)
def server(request: pytest.FixtureRequest, servers: dict[str, Server]) -> Server:
    return servers[request.param]


@pytest.fixture
def daphne(servers: dict[str, Server]) -> Server:
    return servers["daphne"]


# Requests followed at once by a TCP reset

GET = request("/count/foo", {})
POST = request("/size", {"Content-Length": "10"}, method="POST")
REQUESTS = {"whole": GET, "half": GET[:20], "without its body": POST, "empty": b""}


def reset_after(server: Server, data: bytes, times: int) -> None:
    for _ in range(times):
        client = Client(server.port)
        if data:
            client.send(data)
        client.reset()


@pytest.mark.parametrize("what", REQUESTS)
def test_request_and_reset_frees_its_descriptor(server: Server, what: str) -> None:
    server.get("/count/foo")
    before, log = descriptors(server), len(server.log())

    reset_after(server, REQUESTS[what], 100)

    eventually(lambda: descriptors(server) <= before + 3, True)
    assert "Traceback" not in server.log()[log:]
    assert server.get("/count/foo")[0] == 200


def test_server_accepts_after_many_resets(daphne: Server) -> None:
    """More resets than the process may have descriptors."""
    before = descriptors(daphne)
    soft, hard = resource.prlimit(daphne.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(daphne.process.pid, resource.RLIMIT_NOFILE, (before + 100, hard))
    try:
        reset_after(daphne, GET, 500)
        eventually(lambda: descriptors(daphne) <= before + 3, True)
        assert daphne.get("/count/foo")[0] == 200
    finally:
        resource.prlimit(daphne.process.pid, resource.RLIMIT_NOFILE, (soft, hard))


# Applications that fail


def test_response_that_fails_is_aborted_and_logged_once(daphne: Server) -> None:
    """And does not affect the requests after it."""
    before, log = descriptors(daphne), len(daphne.log())
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(daphne.port)) for _ in range(3)]
        for client in clients:
            client.send(request("/breaks", {}))

        assert [client.answer().status_line for client in clients] == ["HTTP/1.1 200 OK"] * 3
        for client in clients:
            assert not without_end(client).endswith(b"0\r\n\r\n")

        eventually(lambda: descriptors(daphne) <= before, True)
    time.sleep(2 * CHECKED)
    assert daphne.log()[log:].count("Traceback") == 3


def without_end(client: Client) -> bytes:
    """Return the bytes received until the connection is reset or closed."""
    with suppress(ConnectionResetError):
        while data := client.socket.recv(1000):
            client.buffer += data
    return client.buffer


# Forms


def form(size: int, name: bytes = b"f") -> tuple[dict[str, str], bytes]:
    """Return the headers and the body of a form with a file of the size."""
    head = b'--b\r\nContent-Disposition: form-data; name="%s"\r\n\r\n' % name
    body = head + b"x" * size + b"\r\n--b--\r\n"
    kind = "multipart/form-data; boundary=b"
    return {"Content-Type": kind, "Content-Length": str(len(body))}, body


def many_fields(size: int) -> tuple[dict[str, str], bytes]:
    field = b'--b\r\nContent-Disposition: form-data; name="f"\r\n\r\n\r\n'
    body = field * (size // len(field)) + b"--b--\r\n"
    kind = "multipart/form-data; boundary=b"
    return {"Content-Type": kind, "Content-Length": str(len(body))}, body


def test_form_of_many_fields_delays_nobody(daphne: Server) -> None:
    headers, body = many_fields(9 * MiB)
    with Client(daphne.port) as client, Client.opened(daphne.port) as good:
        client.socket.settimeout(3 * DEADLINE)
        client.send(request("/size", headers, method="POST") + body)
        longest = 0.0
        while not select.select([client.socket], [], [], 0.005)[0]:
            start = time.monotonic()
            good.send_text("hello")
            good.text()
            longest = max(longest, time.monotonic() - start)

        assert client.answer().status_line == "HTTP/1.1 200 OK"
    assert longest < SECOND


def test_long_body_is_not_held_in_memory(server: Server) -> None:
    headers, body = form(100 * MiB)
    before = server.forget_peak()
    with Client(server.port) as client:
        client.send(request("/size", headers, method="POST"))
        client.send(body)
        assert client.answer().status_line.startswith("HTTP/1.1 200")
        while not client.buffer.endswith(b"0\r\n\r\n"):
            client.buffer += client.socket.recv(1000)

    assert str(len(body)).encode() in client.buffer
    assert server.memory("VmHWM") - before < 24 * MiB


def test_form_with_files_has_a_limit_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "smaller.py").write_text(
        "from project.settings import *\nECHO_MAX_UPLOAD_SIZE = 3_000_000\n"
    )
    env = {"DJANGO_SETTINGS_MODULE": "smaller", "PYTHONPATH": str(tmp_path)}
    with Server("daphne", SITE, **env) as server:
        for size, status in ((2_900_000, "200 OK"), (3_000_000, "413 Content Too Large")):
            headers, body = form(size)
            with Client(server.port) as client:
                client.send(request("/size", headers, method="POST"))
                if "413" not in status:
                    client.send(body)
                assert client.answer().status_line == f"HTTP/1.1 {status}"


def test_client_that_leaves_in_its_body_leaves_no_file(daphne: Server) -> None:
    before = descriptors(daphne)
    headers, body = form(5 * MiB)
    with Client(daphne.port) as client:
        client.send(request("/wait", headers, method="POST") + body)
        eventually(lambda: descriptors(daphne), before + 2)

    eventually(lambda: descriptors(daphne), before)


# Forwarded addresses, sent by a proxy or by a client that imitates one


PROXIED = ("--proxy-headers",)


@pytest.fixture(scope="module")
def proxied() -> Iterator[Server]:
    with Server("daphne", SITE, PROXIED) as server:
        yield server


@pytest.mark.parametrize("name", ["X-Forwarded-For", "X-Forwarded-Port", "X-Forwarded-Proto"])
@pytest.mark.parametrize("path", ["/foo/websocket", "/count/foo"])
def test_forwarded_header_that_is_not_ascii_is_rejected(proxied: Server, path: str, name: str):
    headers = {"X-Forwarded-For": "10.0.0.1", name: "\xff"}
    before, log = descriptors(proxied), len(proxied.log())
    for _ in range(20):
        with Client(proxied.port) as client:
            upgrade = UPGRADE if path.endswith("websocket") else {}
            answer = client.ask(path, {**upgrade, **headers})
            assert answer.status_line == "HTTP/1.1 400 Bad Request"

    eventually(lambda: descriptors(proxied) <= before, True)
    assert proxied.get("/open")[2] == "0"
    assert "Traceback" not in proxied.log()[log:]


@pytest.mark.parametrize("value", ["<b>", "1.2.3", "evil 1", "x" * 5000, "", "fe80::1%\x1b[31m"])
def test_invalid_forwarded_address_is_rejected(proxied: Server, value: str) -> None:
    with Client(proxied.port) as client:
        answer = client.ask("/foo/websocket", {**UPGRADE, "X-Forwarded-For": value})

    assert answer.status_line == "HTTP/1.1 400 Bad Request"


@pytest.mark.parametrize(
    "value", ["10.0.0.1", "10.0.0.1, 10.0.0.2", "10.0.0.1:80", "2001:db8::1", "[2001:db8::1]:80"]
)
def test_forwarded_address_is_used(proxied: Server, value: str) -> None:
    log = len(proxied.log())

    Client.opened(proxied.port, **{"X-Forwarded-For": value}).socket.close()

    address = value.partition(",")[0]
    eventually(lambda: f"{address}:0 - - " in proxied.log()[log:], True)


def test_access_log_is_escaped(server: Server) -> None:
    log = len(server.log())
    path = '/a"_200_5_\\/websocket'

    for headers in (UPGRADE, {}):
        with Client(server.port) as client:
            client.ask(path, headers)

    eventually(lambda: server.log()[log:].count("websocket") >= 3, True)
    assert '/a"_200' not in server.log()[log:]


# Unusual requests


def test_100_continue_does_not_follow_a_413(daphne: Server) -> None:
    headers = {"Content-Length": "99999999", "Expect": "100-continue"}
    with Client(daphne.port) as client:
        client.send(request("/size", headers, method="POST"))

        answer = without_end(client)

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"100 Continue" not in answer


def test_query_of_an_absolute_uri_is_no_path(daphne: Server) -> None:
    with Client(daphne.port) as client:
        answer = client.ask("http://127.0.0.1?x=/scope", {})

    assert answer.status_line == "HTTP/1.1 200 OK"
    assert b"root_path" not in answer.body


def test_handshake_with_the_last_descriptor_gets_a_response(server: Server) -> None:
    numbers = {int(number) for number in os.listdir(f"/proc/{server.process.pid}/fd")}
    free = next(number for number in itertools.count() if number not in numbers)
    limits = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (free + 1, limits[1]))
    try:
        with Client.opened(server.port) as client:
            client.send_text("hello")
            assert client.text() == "[Durable Object]: hello"
    finally:
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, limits)


@pytest.mark.parametrize("kind", ["daphne", "runserver"])
def test_wrong_host_is_one_line_of_the_log(kind: str) -> None:
    with Server(kind) as server, Client(server.port) as client:
        answer = client.ask("/foo/connections/live", {"Host": "evil.example"})
        assert answer.status_line == "HTTP/1.1 400 Bad Request"

        eventually(lambda: "evil.example" in server.log(), True)
        assert "Traceback" not in server.log()


def test_body_must_grow() -> None:
    with Server("daphne", "tests.sites.impatient:application") as server:
        start = time.monotonic()
        with Client(server.port) as client:
            client.send(request("/size", {"Content-Length": "99999"}, method="POST"))
            answer = b""
            while not select.select([client.socket], [], [], 0.1)[0]:
                client.send(b"x")
                assert time.monotonic() - start < DEADLINE
            answer = without_end(client)
        assert answer.startswith(b"HTTP/1.1 408 ")

        with Client(server.port) as client:
            client.send(request("/size", {"Content-Length": "40000"}, method="POST"))
            for _ in range(20):
                time.sleep(0.1)
                client.send(b"x" * 2000)
            assert client.answer().status_line == "HTTP/1.1 200 OK"


def test_error_and_reset_leave_no_traceback(server: Server) -> None:
    log = len(server.log())
    for _ in range(100):
        client = Client.opened(server.port)
        client.send(frame(TEXT, b"x", rsv=4))
        client.reset()

    eventually(server.count, 0)
    assert "Traceback" not in server.log()[log:]


# Endless headers


def test_handshake_with_long_headers_is_rejected(server: Server) -> None:
    with Client(server.port) as client:
        client.send(request("/foo/websocket", {**UPGRADE, "X-Long": "x" * 70_000}))
        answer = without_end(client)

    if server.kind == "uvicorn":
        assert answer.startswith(b"HTTP/1.1 431 ")
    else:  # Twisted closes the connection without a response
        assert answer == b""
    eventually(lambda: server.get("/open")[2], "0")


def test_h11_has_limits() -> None:
    """The command line of the docs."""
    with Server("uvicorn", SITE, ("--http", "h11")) as server, Client(server.port) as client:
        before = server.forget_peak()
        with suppress(OSError):
            client.send(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n")
            for number in range(500):
                client.send(b"X-%d: " % number + b"x" * 60_000 + b"\r\n")
        assert server.memory("VmHWM") - before < 4 * MiB
