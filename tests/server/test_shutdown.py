"""SIGTERM and SIGINT at any moment: clients are closed, counts are 0, the exit is quick."""

import os
import signal
import threading
import time

import pytest

from tests.raw import CLOSE, UPGRADE, Client, close_payload, frame, request
from tests.servers import Server
from tests.waiting import SECOND

SITE = "tests.sites.transport:application"
KINDS = ["daphne", "uvicorn", pytest.param("daphne-tls", marks=pytest.mark.long)]
REPETITIONS = int(os.environ.get("ECHO_TEST_REPETITIONS", "3"))  # 20 for rare races
RESTART = (1012, "Service Restart")
END_AFTER = 5 * SECOND
# uvicorn raises the signal again at its end, when asyncio is closed.
CODES = {
    "daphne": (0, 0),
    "daphne-tls": (0, 0),
    "uvicorn": (-signal.SIGTERM, 0),
}  # by SIGTERM, by SIGINT
LEFT = "Counts left: {}"

each = pytest.mark.parametrize("kind", KINDS)


class Ending:
    """A server that gets a signal at the end of the block."""

    def __init__(self, kind: str, sign: int = signal.SIGTERM, options: tuple[str, ...] = ()):
        self.server = Server(kind, SITE, options)
        self.sign = sign

    def __enter__(self) -> "Ending":
        return self

    def __exit__(self, error: object, *details: object) -> None:
        if error is not None:
            self.server.stop()

    def opened(self, app: str) -> Client:
        client = Client(self.server.port)
        answer = client.ask(f"/{app}/{app}/websocket", UPGRADE)
        assert answer.status_line.startswith("HTTP/1.1 101"), answer
        return client

    def begin(self) -> None:
        self.began = time.monotonic()
        self.server.process.send_signal(self.sign)

    def finish(self) -> None:
        """Wait for the exit and check that it was in order."""
        server = self.server
        server.process.wait(4 * END_AFTER)
        self.seconds = time.monotonic() - self.began
        log = server.log()
        code = server.stop()
        assert LEFT in log
        assert "Traceback" not in log, log
        assert code == CODES[server.kind][self.sign == signal.SIGINT]
        assert self.seconds < END_AFTER


@pytest.mark.parametrize(
    ("kind", "sign"),
    [
        ("daphne", signal.SIGTERM),
        ("daphne", signal.SIGINT),
        ("uvicorn", signal.SIGTERM),
        ("uvicorn", signal.SIGINT),
        ("daphne-tls", signal.SIGTERM),
    ],
)
def test_idle_clients_are_closed(kind: str, sign: int) -> None:
    with Ending(kind, sign) as ending:
        clients = [ending.opened(app) for app in ("echo", "loop", "asynchronous", "synchronous")]
        ending.begin()

        assert [client.closing() for client in clients] == [RESTART] * 4
        for client in clients:
            client.socket.close()
        ending.finish()


@each
def test_stream_ends_when_the_application_has_finished(kind: str) -> None:
    with Ending(kind) as ending:
        clients = [ending.opened("lingering"), ending.opened("deaf")]
        ending.begin()
        seconds = []
        for client in clients:
            assert client.closing() == RESTART
            client.send(frame(CLOSE, close_payload(1012)))
        for client in clients:
            assert client.at_end()
            seconds.append(time.monotonic() - ending.began)
            client.socket.close()
        ending.finish()

    assert 0.5 <= seconds[0] < seconds[1] < 3.5 * SECOND


@each
def test_application_whose_callback_fails_delays_nothing(kind: str) -> None:
    with Server(kind, SITE) as server:
        clients = []
        for app in ("failing-at-the-end", "failing-at-the-end", "echo"):
            clients.append(Client(server.port))
            clients[-1].ask(f"/{app}/{app}/websocket", UPGRADE)
        server.process.terminate()

        assert [client.closing() for client in clients] == [RESTART] * 3
        for client in clients:
            client.socket.close()
        server.process.wait(END_AFTER)
        assert server.log().count("ZeroDivisionError") == 2
        assert LEFT in server.log()


@each
def test_clients_that_do_not_reply_delay_nothing(kind: str) -> None:
    with Ending(kind) as ending:
        clients = [ending.opened("echo") for _ in range(3)]
        ending.begin()
        ending.finish()

        assert [client.closing() for client in clients] == [RESTART] * 3
        for client in clients:
            client.socket.close()


@each
def test_busy_handlers_delay_nothing(kind: str) -> None:
    with Ending(kind) as ending:
        clients = [ending.opened("deaf"), ending.opened("busy"), ending.opened("burst")]
        clients[2].send_text("a burst that nobody reads")
        silent = Client(ending.server.port)
        silent.send(request("/silent/silent/websocket", UPGRADE, port=ending.server.port))
        time.sleep(0.2)
        ending.begin()

        assert [client.closing() for client in clients[:2]] == [RESTART] * 2
        assert silent.answer().status_line == "HTTP/1.1 503 Service Unavailable"
        ending.finish()
        for client in (*clients, silent):
            client.socket.close()


def test_threads_that_are_busy_delay_nothing() -> None:
    with Ending("daphne") as ending:
        client = ending.opened("sleeper")
        client.send_text("sleep")
        time.sleep(0.2)
        ending.begin()

        assert client.closing() == RESTART
        ending.finish()
        client.socket.close()


@each
def test_request_in_progress_delays_nothing(kind: str) -> None:
    # uvicorn waits for plain requests without limit, unless its own option sets one.
    options = ("--timeout-graceful-shutdown", "3") if kind == "uvicorn" else ()
    with Ending(kind, options=options) as ending:
        waiting = Client(ending.server.port)
        waiting.send(request("/wait", {}, port=ending.server.port))
        client = ending.opened("echo")
        ending.begin()

        assert client.closing() == RESTART
        ending.server.process.wait(4 * END_AFTER)
        seconds = time.monotonic() - ending.began
        log = ending.server.log()
        ending.server.stop()
        client.socket.close()
        waiting.socket.close()

    assert seconds < 2 * END_AFTER  # on a busy machine; without limits it would never end
    assert LEFT in log


@pytest.mark.slow
@each
def test_pending_handshakes_are_accepted_and_closed_or_rejected(kind: str) -> None:
    for repetition in range(REPETITIONS):
        with Ending(kind) as ending:
            ending.opened("echo").socket.close()
            clients: list[Client] = []
            storm = threading.Thread(target=knock, args=(ending.server.port, clients))
            storm.start()
            time.sleep(0.1 + 0.01 * repetition)
            ending.begin()
            storm.join()
            ends = [end_of(client) for client in clients]
            ending.finish()

            assert set(ends) <= {RESTART, "503", "never answered"}, ends
            assert RESTART in ends


def knock(port: int, clients: list[Client]) -> None:
    """Send handshakes, one after the other, until the connection is refused."""
    end = time.monotonic() + SECOND
    try:
        while time.monotonic() < end:
            client = Client(port)
            clients.append(client)
            client.send(request("/echo/knock/websocket", UPGRADE, port=port))
            time.sleep(0.001)
    except OSError:
        pass


def end_of(client: Client) -> object:
    with client:
        try:
            answer = client.answer()
        except (OSError, AssertionError):
            return "never answered"
        if answer.status_line.startswith("HTTP/1.1 101"):
            return client.closing()
        return answer.status_line.split()[1]


@each
def test_a_second_signal_does_no_harm(kind: str) -> None:
    with Ending(kind) as ending:
        client = ending.opened("deaf")
        ending.begin()
        assert client.closing() == RESTART
        ending.server.process.send_signal(signal.SIGTERM)
        ending.server.process.wait(4 * END_AFTER)
        log = ending.server.log()
        ending.server.stop()
        client.socket.close()

    assert "Traceback" not in log
