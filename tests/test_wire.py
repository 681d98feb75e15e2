"""What the original does on real sockets, case by case, replayed against real servers.

tests/wire/transcript.json holds what was observed of Cloudflare's program on its own runtime;
tests/wire/differences.py says where ours answers otherwise, and why.
"""

import json
import resource
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from tests.raw import (
    CLOSE,
    PING,
    PONG,
    TEXT,
    UPGRADE,
    Answer,
    Client,
    close_payload,
    frame,
    request,
)
from tests.servers import ROOT, Server
from tests.waiting import eventually
from tests.wire.differences import OURS, stock_reason
from tests.wire.frames import MIB, sent

CASES = json.loads((ROOT / "tests" / "wire" / "transcript.json").read_text())
LIMIT = 32 * MIB  # bytes: the original's
LIMITS = (f"--websocket-max-message-size={LIMIT}", f"--websocket-max-frame-size={LIMIT}")
PREFIX = "[Durable Object]: "
OPCODES = {TEXT: "text", PING: "ping", PONG: "pong"}
Observed = dict[str, Any]


@pytest.fixture(scope="module", params=["daphne", "stock-daphne"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with Server(request.param, options=LIMITS) as server:
        server.kind = request.param  # type: ignore[attr-defined]
        yield server


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_wire(server: Server, case: dict[str, Any], request: pytest.FixtureRequest) -> None:
    expected = OURS[case["id"]][1] if case["id"] in OURS else case["observed"]
    if server.kind == "stock-daphne":  # type: ignore[attr-defined]
        if reason := stock_reason(case["id"]):
            request.applymarker(pytest.mark.xfail(strict=True, reason=reason))
        expected = {key: expected[key] for key in expected if key != "then_close_1000"}

    before = len(server.log())

    observed = replay(server, case["id"], case["actions"], expected)

    assert differences(observed, expected) == {}
    eventually(lambda: server.count("foo"), 0)
    if server.kind == "daphne":  # type: ignore[attr-defined]  # stock logs them a second later
        assert "Traceback" not in server.log()[before:]


def replay(server: Server, case: str, actions: str, expected: Observed) -> Observed:
    """Do what the client of the case does, and return what it sees."""
    for start, play in PLAYS.items():
        if case.startswith(start):
            return play(server, case, actions, expected)
    raise AssertionError(f"nobody knows how to play {case}")


def differences(observed: Observed, expected: Observed) -> Observed:
    """Return what was observed otherwise than expected, of what both tell."""
    return {
        key: (value, expected[key])
        for key, value in observed.items()
        if key in expected and not same(key, value, expected[key])
    }


def same(key: str, observed: Any, expected: Any) -> bool:
    if key == "headers":  # more of them are allowed
        have = {header.lower() for header in observed}
        return all(header.lower() in have for header in expected)
    if key == "frames":
        return len(observed) == len(expected) and all(
            all(seen.get(part) == value for part, value in wanted.items())
            for seen, wanted in zip(observed, expected, strict=True)
        )
    return bool(observed == expected)


# HTTP


def play_http(server: Server, case: str, actions: str, expected: Observed) -> Observed:
    line, headers, body = http_request(actions)
    method, path = line.rsplit(" ", 1)[0].split(" ", 1)
    with Client(server.port) as client:
        version = line.rsplit("/", 1)[1]
        client.send(request(path, headers, method, version, server.port) + body)
        answer = client.answer(body=method != "HEAD")
        while answer.status_line.split()[1] == "100":
            answer = client.answer()
        observed = answered(answer)
        if answer.status_line.split()[1] == "101":
            client.send(frame(CLOSE, close_payload(1000)))
            frames, ended = received(client)
            return {**observed, "frames": frames, "tcp_after": tcp(ended)}
        return {**observed, "tcp_after": tcp(not still_answers(client, server.port))}


def http_request(actions: str) -> tuple[str, dict[str, str], bytes]:
    """Return request line, headers and body of a case, from its words."""
    line, headers, *rest = actions.split(" | ")
    body = rest[0] if rest else ""
    pairs = [] if headers == "(Host only)" else headers.split("; ")
    named = dict(pair.split(":", 1) for pair in pairs)
    raw = eval(body.removeprefix("body "), {}) if body else b""
    return line, {name: value.strip() for name, value in named.items()}, raw


def answered(answer: Answer) -> Observed:
    return {
        "status_line": answer.status_line,
        "headers": answer.headers,
        "body": answer.body.decode(),
        "body_len": len(answer.body),
    }


def still_answers(client: Client, port: int) -> bool:
    """Return whether the connection takes another request."""
    try:
        client.send(request("/", {}, port=port))
        return client.answer().status_line.startswith("HTTP/1.1 200")
    except (OSError, AssertionError):
        return False


def tcp(ended: bool) -> str:
    return "server sent FIN" if ended else "still open"


def play_keepalive(server: Server, case: str, actions: str, expected: Observed) -> Observed:
    both = [request(path, {}, port=server.port) for path in ("/", "/getCurrentConnections")]
    with Client(server.port) as client:
        if case.endswith("426-then-upgrade"):
            first = client.ask("/websocket", {}).status_line
            second = client.ask("/websocket", UPGRADE).status_line
            client.send_text("hi")
            frames = received(client, 1)[0]
            client.send(frame(CLOSE, close_payload(1000)))
            return {
                "first": first,
                "second": second,
                "frames": frames,
                "close": received(client)[0],
            }
        if case.endswith("pipelined"):
            client.send(b"".join(both))
            answers = [client.answer(), client.answer()]
        else:
            answers = []
            for one in both:
                client.send(one)
                answers.append(client.answer())
    responses = [{"status_line": a.status_line, "body_len": len(a.body)} for a in answers]
    return {"responses": responses}


def play_count(server: Server, case: str, actions: str, expected: Observed) -> Observed:
    clients = [Client.opened(server.port) for _ in range(int(case[-1]))]
    with Client(server.port) as asking:
        answer = asking.ask("/getCurrentConnections", {"Connection": "close"})
    for client in clients:
        client.send(frame(CLOSE, close_payload(1000)))
        received(client)
        client.socket.close()
    eventually(server.count, 0)
    after = server.get("/getCurrentConnections")[2]
    return {**answered(answer), "body_after_all_closed": after}


# Frames


def received(client: Client, least: int = 0) -> tuple[list[Observed], bool]:
    """Return the frames that come, and whether the server ends the connection after them.

    With `least`, return after so many frames.
    """
    frames: list[Observed] = []
    while not least or len(frames) < least:
        try:
            opcode, payload = client.frame()
        except (AssertionError, ConnectionError):
            return frames, True
        frames.append(described(opcode, payload))
    return frames, False


def described(opcode: int, payload: bytes) -> Observed:
    if opcode == CLOSE:
        code = int.from_bytes(payload[:2], "big") if payload else None
        return {"op": "close", "code": code, "reason": payload[2:].decode()}
    told: Observed = {"op": OPCODES[opcode], "payload": payload.decode(), "len": len(payload)}
    told["matches_prefix_plus_payload"] = told["payload"] == PREFIX + "x" * (len(payload) - 18)
    return told


def play_frames(server: Server, case: str, actions: str, expected: Observed) -> Observed:
    with Client.opened(server.port) as client:
        opened = server.count()
        # A client that is refused while it sends is told so by a Close that is still to be read.
        with suppress(ConnectionError):
            send_parts(client, sent(case, actions), bytewise=case == "msg.bytewise")
        if expected.get("tcp", "still open") != "still open":
            frames, ended = received(client)
            seen = {"frames": frames, "tcp": tcp(ended)}
            eventually(server.count, 0)
        else:
            seen = alive(client, len(expected.get("frames", [])))
    return {**seen, "count_delta_open": opened}


def send_parts(client: Client, data: bytes, bytewise: bool) -> None:
    parts = [data[i : i + 1] for i in range(len(data))] if bytewise else [data]
    for part in parts:
        client.send(part)


def alive(client: Client, frames: int) -> Observed:
    """Return the frames that come, and how an echo and a Close after them are answered."""
    seen = received(client, frames)[0] if frames else []
    client.send_text("alive?")
    then_text = received(client, 1)[0]
    client.send(frame(CLOSE, close_payload(1000)))
    then_close, ended = received(client)
    return {
        "frames": seen,
        "tcp": "still open",
        "then_text_alive?": plain(then_text),
        "then_close_1000": then_close,
        "tcp_after_close": tcp(ended),
    }


def plain(frames: list[Observed]) -> list[Observed]:
    return [{"op": one["op"], "payload": one["payload"]} for one in frames]


def play_end(server: Server, case: str, actions: str, expected: Observed) -> Observed:
    data = {
        "end.fin.midheader": b"\x81",
        "end.fin.after-text": frame(TEXT, b"last"),
    }.get(case, frame(CLOSE, close_payload(1000, "bye")) if "after-close" in case else b"")
    with Client.opened(server.port) as client:
        opened = server.count()
        client.send(data)
        if case.startswith("end.fin"):
            client.socket.shutdown(1)
            frames, ended = received(client)
            seen: Observed = {"frames": frames, "tcp": tcp(ended)}
        else:
            client.reset() if "rst" in case else client.socket.close()
            seen = {}
        eventually(server.count, 0)
    return {"count_delta_open": opened, **seen}


HEADERS = {
    "handshake.protocol.one": {"Sec-WebSocket-Protocol": "chat"},
    "handshake.protocol.two": {"Sec-WebSocket-Protocol": "chat, superchat"},
    "handshake.origin.other": {"Origin": "http://evil.example"},
    "handshake.origin.null": {"Origin": "null"},
    "handshake.cookie-auth": {"Cookie": "a=b", "Authorization": "Basic Zm9vOmJhcg=="},
    "handshake.version-list": {"Sec-WebSocket-Version": "  13  "},
    "handshake.deflate.bad-param": {"Sec-WebSocket-Extensions": "permessage-deflate; bogus=1"},
    "handshake.deflate.two-offers": {
        "Sec-WebSocket-Extensions": "permessage-deflate; bogus=1, permessage-deflate"
    },
}


def play_handshake(server: Server, case: str, actions: str, expected: Observed) -> Observed:
    path = "/foo/bar/websocket" if case == "handshake.nested-path" else "/websocket"
    headers = {**UPGRADE, **HEADERS.get(case, {})}
    if case == "handshake.lowercase-headers":
        headers = {name.lower(): value for name, value in headers.items()}
    with Client(server.port) as client:
        answer = client.ask(path, headers)
        if "101" not in answer.status_line:
            return answered(answer)
        opened = server.count()
        client.send_text("hi")
        echo = plain(received(client, 1)[0])
        # no subprotocol and no extension is ever granted
        assert not [h for h in answer.headers if h.lower().startswith("sec-websocket-")][1:]
    response = {"status_line": answer.status_line, "headers": answer.headers}
    assert differences(response, expected["response"]) == {}
    return {"echo_of_hi": echo, "count_delta_open": opened}


def play_early(server: Server, case: str, actions: str, expected: Observed) -> Observed:
    with Client(server.port) as client:
        client.send(request("/websocket", UPGRADE, port=server.port) + frame(TEXT, b"early"))
        status_line = client.answer().status_line
        return {"status_line": status_line, "frames": received(client, 1)[0]}


# Many clients


def play_shared(server: Server, case: str, actions: str, expected: Observed) -> Observed:
    """Ours: each name is an object of its own, and other hosts are refused."""
    with (
        Client.opened(server.port),
        Client.opened(server.port, "room1"),
        Client(server.port) as third,
    ):
        refused = third.ask("/websocket", {**UPGRADE, "Host": "other.example"})
        assert (server.count("foo"), server.count("room1")) == (1, 1)
        assert refused.status_line == "HTTP/1.1 400 Bad Request"
    eventually(lambda: server.count("room1"), 0)
    return {}


def play_thousand(server: Server, case: str, actions: str, expected: Observed) -> Observed:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    clients = [Client.opened(server.port) for _ in range(1000)]
    with_all = server.get("/getCurrentConnections")[2]
    for number, client in enumerate(clients):
        client.send_text(str(number))
    own = sum(client.text() == f"{PREFIX}{number}" for number, client in enumerate(clients))
    replies: dict[str, int] = {}
    for client in clients:
        client.send(frame(CLOSE, close_payload(1000, "bye")))
        reply = json.dumps(received(client)[0])
        replies[reply] = replies.get(reply, 0) + 1
        client.socket.close()
    eventually(server.count, 0)
    return {
        "body_with_1000_open": with_all,
        "clients_that_got_exactly_their_own_echo": own,
        "close_replies": replies,
    }


def play_busy(server: Server, case: str, actions: str, expected: Observed) -> Observed:
    for _ in range(200):
        with Client.opened(server.port) as client:
            client.send(frame(CLOSE, close_payload(1000)))
            received(client)
    eventually(server.count, 0)
    return {"count_delta_end": 0}


def play_race(server: Server, case: str, actions: str, expected: Observed) -> Observed:
    open_, closed_ = [], []
    for _ in range(20):
        with Client.opened(server.port) as client:
            open_.append(server.count())
            client.send(frame(CLOSE, close_payload(1000)))
            client.frame()
            if server.kind == "stock-daphne":  # type: ignore[attr-defined]  # within a second
                eventually(server.count, 0, deadline=1)
            closed_.append(server.count())
    return {
        "delta_right_after_101": {str(count): open_.count(count) for count in set(open_)},
        "delta_right_after_close_frame": {
            str(count): closed_.count(count) for count in set(closed_)
        },
    }


Play = Callable[[Server, str, str, Observed], Observed]
# The first whose start the id has.
PLAYS: dict[str, Play] = {
    "http.keepalive": play_keepalive,
    "http.": play_http,
    "count.": play_count,
    "handshake.early-frame": play_early,
    "handshake.deflate.use": play_frames,
    "handshake.deflate.bomb": play_frames,
    "handshake.deflate.broken": play_frames,
    "handshake.no-greeting": play_frames,
    "handshake.": play_handshake,
    "end.": play_end,
    "many.mixed-order": play_frames,
    "many.paths": play_shared,
    "many.1000": play_thousand,
    "many.count-while-busy": play_busy,
    "many.count-race": play_race,
    "": play_frames,
}
