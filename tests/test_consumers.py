import asyncio

import pytest
from channels.routing import URLRouter
from channels.testing import WebsocketCommunicator
from django.urls import path

from echo.consumers import REASON, EchoConsumer
from echo.counting import counted
from echo.state import get_state
from tests.raw import BINARY, CLOSE, PING, PONG, TEXT, Client, close_payload, frame
from tests.waiting import eventually


class Asynchronous(EchoConsumer):
    async def reply(self, text):
        await asyncio.sleep(0)
        return f"{self.name}: {text}"


class Silent(EchoConsumer):
    def reply(self, text):
        return None if text == "quiet" else text.upper()


class Broken(EchoConsumer):
    def reply(self, text):
        raise ZeroDivisionError


class BrokenAsynchronous(EchoConsumer):
    async def reply(self, text):
        raise ZeroDivisionError


def communicate(consumer, where="/foo/websocket"):
    routes = [
        path("websocket", counted(consumer.as_asgi(), by=lambda scope: "default")),
        path("<str:name>/websocket", counted(consumer.as_asgi())),
    ]
    return WebsocketCommunicator(URLRouter(routes), where)


@pytest.fixture
async def connection():
    """Open connections of a consumer; those that are still open are closed at the end."""
    opened = []

    async def connect(consumer, where="/foo/websocket"):
        communicator = communicate(consumer, where)
        assert await communicator.connect() == (True, None)
        opened.append(communicator)
        return communicator

    yield connect
    for communicator in opened:
        if not communicator.future.done():
            await communicator.disconnect()
    assert get_state().counts() == {}


async def answer(communicator, text):
    await communicator.send_input({"type": "websocket.receive", "text": text})
    return await communicator.receive_output()


def sent(text):
    return {"type": "websocket.send", "text": text}


@pytest.mark.parametrize("text", ["hello", "", "été \N{PILE OF POO}", "\x00", "x" * 100_000])
async def test_text_comes_back_with_the_prefix(connection, text):
    communicator = await connection(EchoConsumer)

    assert await answer(communicator, text) == sent(f"[Durable Object]: {text}")


@pytest.mark.parametrize("data", [b"", b"hello", b"\xff"])
async def test_binary_comes_back_as_javascript_would_write_it(connection, data):
    communicator = await connection(EchoConsumer)

    await communicator.send_input({"type": "websocket.receive", "bytes": data, "text": None})

    assert await communicator.receive_output() == sent("[Durable Object]: [object ArrayBuffer]")


async def test_replies_come_in_the_order_of_the_texts(connection):
    communicator = await connection(Asynchronous)

    for number in range(100):
        await communicator.send_to(str(number))

    replies = [(await communicator.receive_output())["text"] for _ in range(100)]
    assert replies == [f"foo: {number}" for number in range(100)]


async def test_reply_can_be_asynchronous(connection):
    communicator = await connection(Asynchronous, "/bar/websocket")

    assert await answer(communicator, "hello") == sent("bar: hello")


async def test_none_is_no_answer(connection):
    communicator = await connection(Silent)

    await communicator.send_to("quiet")

    assert await answer(communicator, "hello") == sent("HELLO")


async def test_name_is_that_of_the_object_in_which_it_is_counted(connection):
    communicator = await connection(Asynchronous, "/websocket")

    assert await answer(communicator, "hello") == sent("default: hello")
    assert get_state().counts() == {"default": 1}


@pytest.mark.parametrize("consumer", [Broken, BrokenAsynchronous])
async def test_exception_in_reply_ends_the_connection_and_uncounts_it(consumer):
    communicator = communicate(consumer)
    await communicator.connect()
    assert get_state().counts() == {"foo": 1}

    await communicator.send_to("hello")
    with pytest.raises(ZeroDivisionError):
        await communicator.wait()

    assert get_state().counts() == {}


@pytest.mark.parametrize(
    ("code", "answered"), [(1000, 1000), (4321, 4321), (1001, 1001), (1005, 1005), (None, 1005)]
)
async def test_close_is_answered_with_the_code_of_the_client(code, answered):
    communicator = communicate(EchoConsumer)
    await communicator.connect()

    await communicator.send_input({"type": "websocket.disconnect", "code": code})

    assert await communicator.receive_output() == {
        "type": "websocket.close",
        "code": answered,
        "reason": REASON,
    }
    await communicator.wait()


@pytest.mark.parametrize("error", [OSError, RuntimeError])
async def test_server_that_has_closed_already_is_no_error(error):
    arriving = iter([{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1000}])

    async def receive():
        return next(arriving)

    async def send(event):
        if event["type"] == "websocket.close":
            raise error

    await EchoConsumer()({"type": "websocket"}, receive, send)


async def test_client_that_is_cancelled_before_its_accept_leaves_nothing():
    async def receive():
        return {"type": "websocket.connect"}

    async def send(event):
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await EchoConsumer()({"type": "websocket"}, receive, send)

    assert asyncio.all_tasks() == {asyncio.current_task()}


def test_echo_over_the_wire(site):
    with Client.opened(site.port, "wire") as client:
        client.send_text("hello")
        assert client.text() == "[Durable Object]: hello"

        client.send(frame(BINARY, b"\xff"))
        assert client.text() == "[Durable Object]: [object ArrayBuffer]"

        client.send(frame(TEXT, b"hel", fin=False) + frame(0, b"lo"))
        assert client.text() == "[Durable Object]: hello"

        client.send(frame(PING, b"?"))
        assert client.frame() == (PONG, b"?")

        client.send(frame(CLOSE, close_payload(1000)))
        assert client.closing()[0] == 1000
    eventually(lambda: site.count("wire"), 0)


def test_many_connections_of_one_object_are_counted_exactly(connect, assert_count):
    connections = []
    for number in range(1, 51):
        connections.append(connect("/crowd/websocket"))
        assert get_state().counts() == {"crowd": number}

    for connection in connections:
        connection.vanish()

    assert_count("crowd", 0)
