"""Plays a case of the wire transcript against a server, and asserts what must come back."""

import socket
from contextlib import ExitStack

import pytest

from tests.raw import CLOSE, Client, close_payload, frame
from tests.servers import Server
from tests.waiting import SECOND, eventually
from tests.wire.data import (
    ANSWERS,
    HANDSHAKE,
    Case,
    answer_problems,
    expected,
    frame_seen,
    frame_to_come,
    object_name,
    own_path,
    request,
    requests,
    says,
    sent_frame,
)

PREFIX = "[Durable Object]: "
CLOSED = {"op": "close", "code": 1000, "reason": "Durable Object is closing WebSocket"}
BYE = frame(CLOSE, close_payload(1000, "bye"))
PATIENCE = 5 * SECOND  # for anything that must come
AFTER_VANISHING = 0.5 * SECOND  # until a client that ended without a word is out of the count


class Replay:
    """A case on a server that takes a client out of its count `slack` seconds after its end."""

    def __init__(self, server: Server, case: Case, slack: float) -> None:
        self.server = server
        self.case = case
        self.expected = expected(case)
        self.name = object_name(case)
        self.slack = AFTER_VANISHING if "then" in case else slack

    def run(self) -> None:
        eventually(self.count, 0)  # the case before may have ended early

        if "crowd" in self.case:
            self.crowd(self.case["crowd"])
        elif "rounds" in self.case:
            self.rounds(self.case["rounds"])
        elif "clients" in self.case:
            self.clients(self.case["clients"])
        else:
            with self.client() as client:
                self.exchange(client)
        self.ends_with_count(self.expected.get("count", 0))

    def count(self) -> int:
        return self.server.count(self.name)

    def ends_with_count(self, count: int) -> None:
        eventually(self.count, count, self.slack)

    def client(self) -> Client:
        client = Client(self.server.port)
        client.socket.settimeout(PATIENCE)
        return client

    # One client: HTTP requests, then perhaps frames

    def exchange(self, client: Client) -> None:
        upgraded = self.ask(client)
        if upgraded:
            self.converse(client)
        elif self.expected["tcp"] == "open":
            client.send(request(["GET /getCurrentConnections HTTP/1.1"], client.port))
            assert answer_problems(client.answer(), "count") == []
        elif self.expected["tcp"] is not None:
            assert end_of(client) == self.expected["tcp"]

    def ask(self, client: Client) -> bool:
        """Send the requests, and return whether the last one has been answered with a 101."""
        asked = requests(self.case, client.port)
        if self.case.get("in_one_segment"):
            client.send(b"".join([*asked, *map(sent_frame, self.case.get("send", ()))]))
        names = self.expected.get("answers", ["upgraded"])
        for data, name in zip(asked, names, strict=True):
            if not self.case.get("in_one_segment"):
                client.send(data)
            if "interim" in self.expected:
                assert client.answer().status_line == self.expected["interim"]
            answer = client.answer(body=not data.startswith(b"HEAD "))
            assert answer_problems(answer, name) == []
        return name != "well-formed" and " 101 " in ANSWERS[name]["status_line"]

    def converse(self, client: Client) -> None:
        assert self.count() == 1
        if not self.case.get("in_one_segment"):
            self.send_frames(client)
        if "quiet_seconds" in self.case:
            assert_quiet(client, self.case["quiet_seconds"] * SECOND)
        end(client, self.case.get("then"))
        for described in self.expected.get("frames", ()):
            assert_frame(client, described)
        tcp = self.expected.get("tcp")
        if tcp == "open":
            assert self.count() == 1
            self.assert_alive(client)
            tcp = "FIN"
        self.ends_with_count(self.expected.get("count", 0))
        assert tcp is None or end_of(client) == tcp

    def send_frames(self, client: Client) -> None:
        data = b"".join(map(sent_frame, self.case["send"]))
        if self.case.get("then") == "FIN":  # in one segment with it (Linux)
            client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        step = 1 if self.case.get("bytewise") else len(data) or 1
        for start in range(0, len(data), step):
            client.send(data[start : start + step])

    def assert_alive(self, client: Client) -> None:
        client.send_text("alive?")
        assert_frame(client, {"op": "text", "payload": PREFIX + "alive?"})
        client.send(BYE)
        assert_frame(client, CLOSED)

    # Several clients

    def crowd(self, size: int) -> None:
        """That many clients at once: each has its own echo, and all are counted."""
        before, after = self.expected["counts"]
        with ExitStack() as stack:
            clients = [stack.enter_context(self.opened()) for _ in range(size)]
            assert self.sentence() == before
            for number, client in enumerate(clients):
                client.send_text(str(number))
            assert [client.text() for client in clients] == [f"{PREFIX}{n}" for n in range(size)]
            for client in clients:
                client.send(BYE)
            for client in clients:
                assert_frame(client, CLOSED)
            eventually(self.sentence, after, self.slack)
            assert {end_of(client) for client in clients} <= {"FIN"}

    def sentence(self) -> str:
        return self.server.get(own_path(self.case).replace("websocket", "getCurrentConnections"))[2]

    def rounds(self, times: int) -> None:
        """One client after the other, counted at once where the original was asked that often."""
        for _ in range(times):
            with self.opened() as client:
                if "counts" in self.expected:
                    assert self.count() == self.expected["counts"][0]
                client.send(BYE)
                assert_frame(client, CLOSED)
                if "counts" in self.expected:
                    self.ends_with_count(self.expected["counts"][1])

    def clients(self, heads: list[list[str]]) -> None:
        """One client on each of several paths and hosts."""
        with ExitStack() as stack:
            for head, name in zip(heads, self.expected["answers"], strict=True):
                client = stack.enter_context(self.client())
                client.send(request(head, client.port))
                assert answer_problems(client.answer(), name) == []
            counted = self.expected["counts"]
            assert {name: self.server.count(name) for name in counted} == counted
        for name in counted:
            eventually(lambda name=name: self.server.count(name), 0, AFTER_VANISHING)

    def opened(self) -> Client:
        client = self.client()
        try:
            client.send(request([f"GET {own_path(self.case)} HTTP/1.1", *HANDSHAKE], client.port))
            assert answer_problems(client.answer(), "upgraded") == []
        except BaseException:
            client.socket.close()
            raise
        return client


def assert_frame(client: Client, described: Case) -> None:
    seen, wanted = frame_seen(*client.frame()), frame_to_come(described)
    if "reason" in wanted and says(seen.get("reason", ""), wanted["reason"]):
        wanted["reason"] = seen["reason"]
    assert seen == wanted


def assert_quiet(client: Client, seconds: float) -> None:
    client.socket.settimeout(seconds)
    with pytest.raises(TimeoutError):
        client.socket.recv(1)
    client.socket.settimeout(PATIENCE)


def end(client: Client, how: str | None) -> None:
    """End the client's side of the connection."""
    if how == "FIN":
        client.socket.shutdown(socket.SHUT_WR)
    elif how == "RST":
        client.reset()
    elif how == "close":
        client.socket.close()


def end_of(client: Client) -> str:
    """Return how the server ends the connection, nothing being left to read."""
    try:
        rest = client.buffer or client.socket.recv(1 << 16)
    except ConnectionResetError:
        return "RST"
    return f"more: {rest!r}" if rest else "FIN"
