import asyncio

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect as open_websocket

from echo.exceptions import InvalidName
from echo.objects import connected_objects, get_object
from echo.state import get_state
from tests.servers import Server
from tests.states import known
from tests.waiting import DEADLINE, eventually


@pytest.fixture
def connections(connect):
    """Two connections of "foo" and one of "bar", through the app's own routes."""
    return [connect(f"/{name}/websocket") for name in ("foo", "foo", "bar")]


def texts(connections):
    return [connection.recv() for connection in connections]


async def test_count_of_an_object_is_that_of_its_connections(connections):
    assert [get_object(name).count() for name in ("foo", "bar", "baz")] == [2, 1, 0]
    assert await get_object("foo").acount() == 2


async def test_object_is_occupied_while_it_has_connections(connections):
    assert [get_object(name).is_occupied() for name in ("foo", "bar", "baz")] == [True, True, False]
    assert [await get_object(name).ais_occupied() for name in ("foo", "baz")] == [True, False]


def test_connected_objects_are_told_with_their_counts(connections):
    assert connected_objects() == {"foo": 2, "bar": 1}


async def test_count_can_be_read_in_any_thread(connections):
    assert await asyncio.to_thread(get_object("foo").count) == 2


async def test_text_reaches_all_connections_of_the_object_and_no_other(connections):
    *foos, bar = connections

    await get_object("foo").asend("hello")
    await get_object("bar").asend("after it")

    assert texts(foos) == ["hello", "hello"]
    assert bar.recv() == "after it"


def test_text_can_be_sent_by_code_that_is_not_asynchronous(connections):
    *foos, _ = connections

    get_object("foo").send("hello")

    assert texts(foos) == ["hello", "hello"]


def test_text_to_an_object_without_connections_goes_nowhere(connections):
    get_object("baz").send("hello")
    for name in ("foo", "bar"):
        get_object(name).send("after it")

    assert texts(connections) == ["after it"] * 3


def test_texts_and_replies_share_the_connection(connections):
    foo = connections[0]

    foo.send("one")
    assert foo.recv() == "[Durable Object]: one"
    get_object("foo").send("two")
    assert foo.recv() == "two"
    foo.send("three")
    assert foo.recv() == "[Durable Object]: three"


def test_text_of_an_object_that_was_left_reaches_the_others(connections):
    first, second, _ = connections

    first.close()
    get_object("foo").send("hello")

    assert second.recv() == "hello"
    assert get_object("foo").count() == 1


def test_connections_of_an_object_are_closed_with_code_and_reason(connections):
    *foos, bar = connections

    get_object("foo").close(4000, "Tea is over")

    for foo in foos:
        foo.wait_closed()
        assert (foo.close_code, foo.close_reason) == (4000, "Tea is over")
    assert connected_objects() == {"bar": 1}
    assert bar.close_code is None


@pytest.fixture
def shared(settings, redis_url):
    """This process and those that are given the URL are of one site."""
    layer = "channels_redis.pubsub.RedisPubSubChannelLayer"
    settings.ECHO_STATE_URL = redis_url
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": layer, "CONFIG": {"hosts": [redis_url]}}}
    known(get_state())
    return redis_url


@pytest.mark.parametrize("kind", ["daphne", "uvicorn", "stock-daphne", "stock-uvicorn"])
def test_consumers_of_a_site_are_reached_from_another_process(kind, shared):
    lobby = get_object("lobby")
    with Server(kind, "tests.sites.chat:application", ECHO_STATE_URL=shared) as server:
        url = f"ws://127.0.0.1:{server.port}"
        with (
            open_websocket(f"{url}/chat/lobby/") as chatting,
            open_websocket(f"{url}/talk/lobby/") as talking,
        ):
            lobby.send("Tea is ready")
            assert [one.recv(DEADLINE) for one in (chatting, talking)] == ["Tea is ready"] * 2

            talking.send("go on")
            assert talking.recv(DEADLINE) == "on and on"
            lobby.close(4000, "Tea is over")
            for one in (chatting, talking):
                with pytest.raises(ConnectionClosed) as closed:
                    while one.recv(DEADLINE) == "on and on":
                        pass
                assert closed.value.rcvd.code == 4000
                # stock Daphne gives no reason
                assert closed.value.rcvd.reason in ("Tea is over", *[""] * ("daphne" in kind))
            eventually(lambda: known(get_state()), {})
        eventually(lambda: "The talk is over" in server.log(), True)
        assert "Traceback" not in server.log()


@pytest.mark.parametrize("name", ["", "a/b", "x" * 129, "a\nb"])
def test_object_of_an_invalid_name_cannot_be_had(name):
    with pytest.raises(InvalidName):
        get_object(name)
