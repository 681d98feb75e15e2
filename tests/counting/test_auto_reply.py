"""Texts to which `counted` replies, so that the application does not receive them."""

import time
from typing import Any

import pytest
from channels.routing import URLRouter
from channels.testing import WebsocketCommunicator
from django.core.exceptions import ImproperlyConfigured

from echo.counting import counted
from tests.raw import BINARY, TEXT, Client, frame
from tests.readme import block
from tests.servers import Server
from tests.sites.auto_reply import APPLICATIONS, REPLIES
from tests.waiting import SECOND, eventually

SITE = "tests.sites.auto_reply:application"
OURS = ["daphne", "uvicorn"]
SERVERS = [*OURS, "stock-daphne", "stock-uvicorn"]
LIMIT = 20


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("ping", "'ping'.: expected a dict of replies by text"),
        ([("ping", "pong")], "expected a dict of replies by text"),
        ({"ping": b"pong"}, "b'pong' is no text"),
        ({b"ping": "pong"}, "b'ping' is no text"),
        ({"ping": None}, "None is no text"),
        ({"ping": "\ud800"}, "cannot be sent"),
    ],
)
def test_replies_must_be_texts_by_text(value, problem: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=rf"^counted\(auto_reply=.*{problem}"):
        counted(lambda scope, receive, send: None, auto_reply=value)


@pytest.mark.django_db  # Channels closes old connections
async def test_guide_has_an_example() -> None:
    names: dict[str, Any] = {}
    exec(block("python", "auto_reply =", "docs/howto/consumers.md"), names)
    client = WebsocketCommunicator(URLRouter(names["routes"]), "/chat/lobby/")
    await client.connect()

    await client.send_to(text_data="ping")

    assert await client.receive_from() == "pong"
    await client.disconnect()


async def test_consumers_are_tested_with_their_automatic_replies() -> None:
    communicator = WebsocketCommunicator(APPLICATIONS["nested"], "/nested/foo/websocket")
    communicator.scope["url_route"] = {"args": (), "kwargs": {"name": "foo"}}
    await communicator.connect()
    for text in ("ping", "hello", "tick"):
        await communicator.send_to(text_data=text)

    texts = [await communicator.receive_from() for _ in range(3)]

    assert texts == ["pong", "received 'hello' None", "tock"]
    await communicator.disconnect()


@pytest.fixture(scope="module", params=SERVERS)
def server(request):
    with Server(request.param, SITE) as server:
        yield server
        assert "Traceback" not in server.log()


def opened(server: Server, kind: str) -> Client:
    return Client.opened(server.port, path=f"/{kind}/{kind}/websocket")


@pytest.mark.parametrize("kind", APPLICATIONS)
def test_application_does_not_receive_what_has_a_reply(server: Server, kind: str) -> None:
    with opened(server, kind) as client:
        for text, reply in REPLIES.items():
            client.send_text(text)
            assert client.text() == reply
        for text in ("Ping", "ping ", "pong"):
            client.send_text(text)
            assert client.text() == f"received {text!r} None"
        client.send(frame(BINARY, b"ping"))
        assert client.text().startswith("received None ")
        client.send(frame(TEXT, b"pi", fin=False) + frame(0, b"ng"))
        assert client.text() == "pong"

        assert server.count(kind) == 1
    eventually(lambda: server.count(kind), 0)


def test_inner_and_outer_replies_are_sent(server: Server) -> None:
    with opened(server, "nested") as client:
        for text, reply in (("tick", "tock"), ("ping", "pong"), ("", "empty")):
            client.send_text(text)
            assert client.text() == reply


def test_many_texts_are_replied_to_in_order(server: Server) -> None:
    texts = ["ping", "", "wie geht's?"] * 200

    with opened(server, "loop") as client:
        client.send(b"".join(frame(TEXT, text.encode()) for text in texts))

        assert [client.text() for _ in texts] == [REPLIES[text] for text in texts]


def test_replies_are_sent_while_the_application_is_busy(server: Server) -> None:
    seconds = 0.3 if server.kind in OURS else 1.5  # others reply within 0.8 s
    with opened(server, "asynchronous") as client:
        client.send_text(f"busy {seconds}")
        client.send_text("hello")
        time.sleep(0.05)
        client.send_text("ping")

        assert [client.text() for _ in range(3)] == [
            "pong",
            f"received 'busy {seconds}' None",
            "received 'hello' None",
        ]


@pytest.fixture(scope="module", params=SERVERS)
def limited(request):
    env = {"DJANGO_SETTINGS_MODULE": "tests.sites.rates", "MAX_MESSAGES": str(LIMIT)}
    with Server(request.param, SITE, **env) as server:
        yield server
        assert "Traceback" not in server.log()


@pytest.mark.parametrize("kind", ["asynchronous", "echo"])
def test_texts_with_a_reply_are_limited_per_second(limited: Server, kind: str) -> None:
    with opened(limited, kind) as client:
        client.send(frame(TEXT, b"ping") * (LIMIT + 10))

        assert [client.text() for _ in range(LIMIT)] == ["pong"] * LIMIT
        assert client.closing()[0] == (4008 if limited.kind == "stock-daphne" else 1008)
    eventually(lambda: limited.count(kind), 0)


def test_as_many_texts_with_a_reply_as_the_limit_are_no_problem(limited: Server) -> None:
    with opened(limited, "loop") as client:
        for _second in range(2):
            began = time.monotonic()
            client.send(frame(TEXT, b"ping") * LIMIT)
            assert [client.text() for _ in range(LIMIT)] == ["pong"] * LIMIT
            time.sleep(max(began + 1.1 * SECOND - time.monotonic(), 0))
