"""SIGTERM with a drain: handshakes are rejected, and the connections closed one after the other."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from selectors import EVENT_READ, DefaultSelector

import pytest

from tests.raw import CLOSE, UPGRADE, Client, close_payload, frame
from tests.servers import Server
from tests.waiting import DEADLINE, SECOND, eventually

KINDS = ["daphne", "uvicorn"]
RESTART = (1012, "Service Restart")
CODES = {"daphne": 0, "uvicorn": -signal.SIGTERM}  # uvicorn raises the signal again at its end
LONG = 600.0  # seconds: longer than any test
METRICS = "/operations/metrics"
TOKEN = {"Authorization": "Bearer token"}

both = pytest.mark.parametrize("kind", KINDS)


def draining(kind: str, seconds: float, *options: str, **env: str) -> Server:
    """Return a server that drains: by an option on Daphne, by the setting on uvicorn."""
    site = {"DJANGO_SETTINGS_MODULE": "tests.sites.operations", **env}
    if kind == "uvicorn":
        return Server(kind, options=options, **site, ECHO_DRAIN_SECONDS=str(seconds))
    return Server(kind, options=("--drain", str(seconds), *options), **site)


def closes(
    clients: list[Client], begin: float, on_close: Callable[[int], None] = lambda closed: None
) -> list[float]:
    """Reply to the Close of each client; return the seconds from the begin to each of them."""
    times: list[float] = []
    with DefaultSelector() as selector:
        for client in clients:
            selector.register(client.socket, EVENT_READ, client)
        while len(times) < len(clients):
            ready = selector.select(DEADLINE)
            assert ready, f"only {len(times)} clients got a Close"
            for key, _ in ready:
                times.append(time.monotonic() - begin)
                assert key.data.closing() == RESTART
                key.data.send(frame(CLOSE, close_payload(1012)))
                selector.unregister(key.fileobj)
                on_close(len(times))
    return times


@both
def test_closes_are_spread_and_leave_the_count_of_other_processes(
    kind: str, redis_url: str
) -> None:
    drain, number, counts = SECOND, 100, {}
    with (
        Server("uvicorn", ECHO_STATE_URL=redis_url) as other,
        draining(kind, drain, ECHO_STATE_URL=redis_url) as server,
    ):

        def count(closed: int) -> None:
            if closed % 25 == 0:
                deadline = time.monotonic() + SECOND
                while (found := other.count()) > number - closed and time.monotonic() < deadline:
                    time.sleep(0.01)
                counts[closed] = found

        clients = [Client.opened(server.port) for _ in range(number)]
        assert other.count() == number
        server.process.terminate()
        times = closes(clients, time.monotonic(), count)
        last = time.monotonic()
        code = server.process.wait(DEADLINE)
        seconds = time.monotonic() - last
        log = server.log()

    tenths = [sum(drain * n / 10 <= t < drain * (n + 1) / 10 for t in times) for n in range(11)]
    assert max(tenths) <= 25  # on a busy machine; 10 if each is in time
    assert 0.9 * drain < times[-1] < drain + SECOND
    assert code == CODES[kind]
    assert seconds < 3 * SECOND
    assert log.count(f"Draining: closing 100 WebSockets within {drain:g} s") == 1
    # Others may have been closed since, but not many.
    assert all(number - closed - 25 <= counts[closed] <= number - closed for closed in counts)
    assert counts[100] == 0


def test_draining_server_rejects_handshakes_and_serves_the_rest() -> None:
    with draining("daphne", LONG) as server:
        healthy = server.get("/operations/health")
        client, idle = Client.opened(server.port), Client(server.port)
        assert idle.ask("/getCurrentConnections", {}).status_line == "HTTP/1.1 200 OK"
        before = server.get(METRICS, **TOKEN)[2]
        server.process.terminate()
        eventually(lambda: server.get("/operations/health")[0], 503, SECOND)

        _, headers, body = server.get("/operations/health")
        denied = [each.ask("/foo/websocket", UPGRADE) for each in (idle, Client(server.port))]
        count = server.get("/getCurrentConnections")
        after = server.get(METRICS, **TOKEN)[2]
        client.send_text("still open")
        echo = client.text()
        log = server.log()
        client.socket.close()
        server.process.wait(DEADLINE)

    assert healthy[0] == 200
    assert (headers["retry-after"], body) == ("2", '{"status": "draining", "state": "process"}')
    assert [answer.status_line for answer in denied] == ["HTTP/1.1 503 Service Unavailable"] * 2
    assert [answer.header("Retry-After") for answer in denied] == ["2", "2"]
    assert count[0] == 200 and " 1 WebSocket client " in count[2]
    assert echo == "[Durable Object]: still open"
    assert 'echo_draining{process="' in before and drains(before) == 0
    assert drains(after) == 1
    assert log.count("Draining: closing 1 WebSockets within 600 s") == 1


def drains(metrics: str) -> float:
    (line,) = [line for line in metrics.splitlines() if line.startswith("echo_draining{")]
    return float(line.split()[-1])


@both
def test_second_signal_closes_the_rest_at_once(kind: str) -> None:
    with draining(kind, LONG) as server:
        clients = [Client.opened(server.port) for _ in range(10)]
        server.process.terminate()
        time.sleep(0.5)
        server.process.terminate()
        times = closes(clients, time.monotonic())
        code = server.process.wait(DEADLINE)
        log = server.log()

    assert times[-1] < SECOND
    assert code == CODES[kind]
    assert "Traceback" not in log


@pytest.mark.long
@both
def test_clients_that_do_not_reply_delay_the_exit_by_the_usual_limits(kind: str) -> None:
    with draining(kind, SECOND) as server:
        clients = [Client.opened(server.port) for _ in range(3)]
        begin = time.monotonic()
        server.process.terminate()
        code = server.process.wait(DEADLINE)
        seconds = time.monotonic() - begin

        assert [client.closing() for client in clients] == [RESTART] * 3
    assert code == CODES[kind]
    assert seconds < 6 * SECOND


@both
def test_server_exits_when_all_clients_have_left(kind: str) -> None:
    with draining(kind, LONG) as server:
        client, stream = Client.opened(server.port), Client(server.port)
        assert stream.ask("/foo/connections/live", {}).status_line == "HTTP/1.1 200 OK"
        server.process.terminate()
        time.sleep(0.3)
        client.send(frame(CLOSE, close_payload(1000)))
        code = server.process.wait(DEADLINE)

        assert client.closing()[0] == 1000
    assert code == CODES[kind]


def test_timeout_of_uvicorn_shortens_the_drain() -> None:
    with draining("uvicorn", LONG, "--timeout-graceful-shutdown", "4") as server:
        clients = [Client.opened(server.port) for _ in range(5)]
        server.process.terminate()
        times = closes(clients, time.monotonic())
        code = server.process.wait(DEADLINE)
        log = server.log()

    assert 0.9 < times[-1] < 1 + SECOND
    assert code == CODES["uvicorn"]
    told = "ECHO_DRAIN_SECONDS is 600, but --timeout-graceful-shutdown 4 leaves time for 1."
    assert told in log


@pytest.mark.parametrize(("value", "problem"), [("-1", "of at least 0"), ("ten", "invalid")])
def test_invalid_option_is_an_error(value: str, problem: str) -> None:
    command = [sys.executable, "-m", "echo.server", "--drain", value, "project.asgi:application"]
    done = subprocess.run(command, capture_output=True, text=True)

    assert done.returncode == 2
    assert problem in done.stderr
