import asyncio

import pytest
from channels.routing import URLRouter
from channels.testing import WebsocketCommunicator

from echo.exceptions import InvalidName
from echo.objects import connected_objects, get_object
from echo.routing import websocket_urlpatterns


@pytest.fixture
async def connections():
    """Two connections of "foo" and one of "bar", through the app's own routes."""
    router = URLRouter(websocket_urlpatterns)
    paths = ["/foo/websocket", "/foo/websocket", "/bar/websocket"]
    communicators = [WebsocketCommunicator(router, path) for path in paths]
    for communicator in communicators:
        assert await communicator.connect() == (True, None)
    yield communicators
    for communicator in communicators:
        await communicator.disconnect()
    assert connected_objects() == {}


async def texts(communicators):
    events = [await communicator.receive_output() for communicator in communicators]
    return [(event["type"], event["text"]) for event in events]


async def test_count_of_an_object_is_that_of_its_connections(connections):
    assert [get_object(name).count() for name in ("foo", "bar", "baz")] == [2, 1, 0]
    assert await get_object("foo").acount() == 2


async def test_object_is_occupied_while_it_has_connections(connections):
    assert [get_object(name).is_occupied() for name in ("foo", "bar", "baz")] == [True, True, False]
    assert [await get_object(name).ais_occupied() for name in ("foo", "baz")] == [True, False]


async def test_connected_objects_are_told_with_their_counts(connections):
    assert connected_objects() == {"foo": 2, "bar": 1}


async def test_count_can_be_read_in_any_thread(connections):
    assert await asyncio.to_thread(get_object("foo").count) == 2


async def test_text_reaches_all_connections_of_the_object_and_no_other(connections):
    *foos, bar = connections

    await get_object("foo").asend("hello")

    assert await texts(foos) == [("websocket.send", "hello")] * 2
    assert await bar.receive_nothing()


async def test_text_can_be_sent_by_code_that_is_not_asynchronous(connections):
    *foos, _ = connections

    await asyncio.to_thread(get_object("foo").send, "hello")

    assert await texts(foos) == [("websocket.send", "hello")] * 2


async def test_text_to_an_object_without_connections_goes_nowhere(connections):
    await get_object("baz").asend("hello")

    for communicator in connections:
        assert await communicator.receive_nothing(timeout=0.02)


async def test_texts_and_replies_share_the_connection(connections):
    foo = connections[0]

    await foo.send_to("one")
    assert await texts([foo]) == [("websocket.send", "[Durable Object]: one")]
    await get_object("foo").asend("two")
    assert await texts([foo]) == [("websocket.send", "two")]
    await foo.send_to("three")
    assert await texts([foo]) == [("websocket.send", "[Durable Object]: three")]


async def test_text_of_an_object_that_was_left_reaches_the_others(connections):
    first, second, _ = connections

    await first.disconnect()
    await get_object("foo").asend("hello")

    assert await texts([second]) == [("websocket.send", "hello")]
    assert get_object("foo").count() == 1


@pytest.mark.parametrize("name", ["", "a/b", "x" * 129, "a\nb"])
def test_object_of_an_invalid_name_cannot_be_had(name):
    with pytest.raises(InvalidName):
        get_object(name)
