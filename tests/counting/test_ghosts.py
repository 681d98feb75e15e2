"""However a connection ends, on whatever server, in whatever application: it counts no more."""

import itertools
import json
import socket

import pytest

from tests.raw import CLOSE, TEXT, UPGRADE, Client, close_payload, frame, request
from tests.servers import Server
from tests.waiting import SECOND, eventually

SITE = "tests.sites.ghosts:application"
NAMES = map("ghost-{}".format, itertools.count())


class Case:
    """A name of its own on the server, with an application that behaves in one way."""

    def __init__(self, server: Server, kind: str, behaviour: str) -> None:
        self.server = server
        self.name = next(NAMES)
        self.path = f"/{kind}/{behaviour}/{self.name}/websocket"

    def asked(self) -> Client:
        """Return a client that has asked for an upgrade, the answer not being read."""
        client = Client(self.server.port)
        client.send(request(self.path, UPGRADE, port=self.server.port))
        return client

    def opened(self) -> Client:
        """Return a client that has been accepted, and counts from then on."""
        client = self.asked()
        try:
            assert client.answer().status_line.startswith("HTTP/1.1 101")
            assert self.count() == 1
        except BaseException:
            client.socket.close()
            raise
        return client

    def echoing(self) -> Client:
        client = self.opened()
        client.send_text("hello")
        assert client.text() == "hello"
        return client

    def count(self) -> int:
        return self.server.count(self.name)

    def story(self) -> list[str]:
        return json.loads(self.server.get(f"/story/{self.name}")[2])

    def release(self) -> None:
        self.server.get(f"/release/{self.name}")

    def wait_for(self, moment: str) -> None:
        eventually(lambda: moment in self.story(), True)


def refused(case: Case) -> None:
    with case.asked() as client:
        assert client.answer().status_line.split()[1] == "403"


def exception_in_connect(case: Case) -> None:
    with case.asked() as client:
        assert client.answer().status_line.split()[1] == "500"


def exception_after_accept(case: Case) -> None:
    with case.asked() as client:
        case.wait_for("end")
        assert client.answer().status_line.startswith("HTTP/1.1 101")
        assert case.count() == 0


def exception_in_receive(case: Case) -> None:
    with case.opened() as client:
        client.send_text("hello")
        case.wait_for("end")
        assert case.count() == 0


def exception_in_disconnect(case: Case) -> None:
    with case.echoing() as client:
        client.send(frame(CLOSE, close_payload(1000)))


def cancellation(case: Case) -> None:
    with case.echoing() as client:
        client.send_text("cancel")
        case.wait_for("end")
        assert case.count() == 0


def busy_at_close(case: Case) -> None:
    with case.opened() as client:
        client.send_text("hello")
        case.wait_for("receive")
        client.send(frame(CLOSE, close_payload(1000)))
        eventually(case.count, 0, 2 * SECOND)
        case.release()


def busy_at_close_with_messages_waiting(case: Case) -> None:
    with case.opened() as client:
        client.send_text("hello")
        case.wait_for("receive")
        for _ in range(20):
            client.send_text("still there?")
        client.send(frame(CLOSE, close_payload(1000)))
        eventually(case.count, 0, 2 * SECOND)
        case.release()


def busy_when_it_vanishes(case: Case) -> None:
    with case.opened() as client:
        client.send_text("hello")
        case.wait_for("receive")
        client.reset()
        eventually(case.count, 0, 2 * SECOND)
        case.release()


def busy_in_disconnect(case: Case) -> None:
    with case.echoing() as client:
        client.send(frame(CLOSE, close_payload(1000)))
        case.wait_for("disconnect")
        assert case.count() == 0
        case.release()


def tcp_reset(case: Case) -> None:
    with case.echoing() as client:
        client.reset()


def end_of_stream(case: Case) -> None:
    with case.echoing() as client:
        client.socket.shutdown(socket.SHUT_WR)


def end_of_stream_inside_a_frame(case: Case) -> None:
    with case.echoing() as client:
        client.send(frame(TEXT, b"hello")[:-2])
        client.socket.shutdown(socket.SHUT_WR)


def close_with_code(case: Case) -> None:
    with case.echoing() as client:
        client.send(frame(CLOSE, close_payload(4000, "enough")))


def close_without_code(case: Case) -> None:
    with case.echoing() as client:
        client.send(frame(CLOSE))


def protocol_error(case: Case) -> None:
    with case.echoing() as client:
        client.send(frame(3, b"a reserved opcode"))


def server_closes(case: Case) -> None:
    with case.opened() as client:
        client.send_text("hello")
        assert client.closing()[0] == 4001
        assert case.count() == 0
        client.send(frame(CLOSE, close_payload(4001)))


def abandoned_handshake(case: Case) -> None:
    with case.asked() as client:
        case.wait_for("connect")
        assert case.count() == 0
        client.reset()
    case.release()


ENDINGS = [
    (refused, "refuse"),
    (exception_in_connect, "raise-in-connect"),
    (exception_after_accept, "raise-in-accepted"),
    (exception_in_receive, "raise-in-receive"),
    (exception_in_disconnect, "raise-in-disconnect"),
    (cancellation, "echo"),
    (busy_at_close, "hold-in-receive"),
    (busy_at_close_with_messages_waiting, "hold-in-receive"),
    (busy_when_it_vanishes, "hold-in-receive"),
    (busy_in_disconnect, "hold-in-disconnect"),
    (tcp_reset, "echo"),
    (end_of_stream, "echo"),
    (end_of_stream_inside_a_frame, "echo"),
    (close_with_code, "echo"),
    (close_without_code, "echo"),
    (protocol_error, "echo"),
    (server_closes, "close-in-receive"),
    (abandoned_handshake, "hold-in-connect"),
]


@pytest.fixture(scope="module", params=["stock-daphne", "stock-uvicorn"])
def server(request):
    with Server(request.param, SITE) as server:
        yield server
        # What `leave` raises if a connection leaves twice.
        assert "KeyError" not in server.log()


@pytest.mark.parametrize("kind", ["asynchronous", "synchronous", "function"])
@pytest.mark.parametrize(("end", "behaviour"), ENDINGS, ids=[e.__name__ for e, _ in ENDINGS])
def test_ended_connection_is_not_counted(server, end, behaviour, kind):
    case = Case(server, kind, behaviour)

    try:
        end(case)
    finally:
        case.release()

    case.wait_for("end")
    eventually(case.count, 0)
