import time
from contextlib import closing
from http.client import HTTPConnection

import pytest
from channels.routing import URLRouter
from channels.testing import WebsocketCommunicator
from django.contrib.auth.models import AnonymousUser, User
from django.urls import path
from websockets.exceptions import InvalidStatus

from echo.consumers import EchoConsumer
from echo.counting import counted
from echo.routing import as_websocket_application, console_urlpatterns, websocket_urlpatterns
from echo.state import get_state
from echo.views import USAGE
from tests.raw import UPGRADE, Client
from tests.servers import Server
from tests.sites.streams import LARGE, PAUSE, PIECES
from tests.waiting import DEADLINE, eventually


@pytest.fixture(scope="module")
def uvicorn():
    """The demo on a server that can answer a handshake with a page of its own."""
    with Server("stock-uvicorn") as server:
        yield server


@pytest.fixture(params=["site", "uvicorn"])
def server(request):
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("path", ["/websocket", "/foo/websocket", "/%C3%A9t%C3%A9/websocket"])
def test_websocket_of_an_object_is_accepted(server, path):
    with Client(server.port) as client:
        answer = client.ask(path, UPGRADE)

    assert answer.status_line.startswith("HTTP/1.1 101")


def test_websocket_without_a_name_is_of_the_default_object(server):
    with Client(server.port) as client:
        client.ask("/websocket", UPGRADE)

        assert server.count("foo") == 1


@pytest.mark.parametrize("path", ["/", "/nowhere", "/a/b/websocket", "/foo/getcurrentconnections"])
def test_unknown_path_is_answered_as_without_upgrade(uvicorn, path):
    with Client(uvicorn.port) as client:
        answer = client.ask(path, UPGRADE)

    assert (answer.status_line.split()[1], answer.body.decode()) == ("200", USAGE)
    assert answer.header("Content-Type") == "text/plain;charset=UTF-8"
    assert answer.header("Cache-Control") == "no-store"


@pytest.fixture(scope="module", params=["daphne", "uvicorn"])
def streamed_site(request):
    options = ("--http-timeout", "1") if request.param == "daphne" else ()
    env = {"DJANGO_SETTINGS_MODULE": "tests.sites.streamed"}
    with Server(request.param, options=options, **env) as server:
        yield server


@pytest.mark.parametrize("path", ["/stream", "/file"])
def test_answer_of_many_pieces_is_whole(streamed_site, path):
    with closing(HTTPConnection("127.0.0.1", streamed_site.port, timeout=DEADLINE)) as client:
        client.request("GET", path, headers=UPGRADE)
        answer = client.getresponse()

        assert (answer.status, answer.read().decode()) == (200, "".join(PIECES))


def test_answer_may_take_its_time(streamed_site):
    with closing(HTTPConnection("127.0.0.1", streamed_site.port, timeout=DEADLINE)) as client:
        client.request("GET", "/slow", headers=UPGRADE)

        assert client.getresponse().read().decode() == "".join(PIECES[:2])


def test_client_may_read_slowly(streamed_site):
    with closing(HTTPConnection("127.0.0.1", streamed_site.port, timeout=DEADLINE)) as client:
        client.request("GET", "/large", headers=UPGRADE)
        answer, read = client.getresponse(), 0
        for _ in range(20):
            time.sleep(PAUSE / 20)
            read += len(answer.read(200_000))

        assert read + len(answer.read()) == LARGE


@pytest.mark.slow
def test_quiet_answer_ends_with_its_client(streamed_site):
    with closing(HTTPConnection("127.0.0.1", streamed_site.port, timeout=DEADLINE)) as client:
        client.request("GET", "/quiet", headers=UPGRADE)
        answer = client.getresponse()
        assert answer.readline() == b"still here\n"
        time.sleep(PAUSE)
        assert "The quiet stream has ended." not in streamed_site.log()
        answer.close()

    eventually(lambda: "The quiet stream has ended." in streamed_site.log(), True)


def test_answer_without_an_end_ends_with_its_client(streamed_site):
    with closing(HTTPConnection("127.0.0.1", streamed_site.port, timeout=DEADLINE)) as client:
        client.request("GET", "/endless", headers=UPGRADE)
        assert client.getresponse().readline() == b"still here\n"

    eventually(lambda: "The stream has ended." in streamed_site.log(), True)


def test_upgrade_of_a_count_is_answered_with_the_count(uvicorn):
    with Client(uvicorn.port) as client:
        answer = client.ask("/nobody/getCurrentConnections", UPGRADE)

    assert answer.body.decode() == (
        "There are 0 WebSocket clients connected to this Durable Object instance."
    )


def test_unknown_path_is_a_403_where_the_server_can_say_no_more(site):
    with Client(site.port) as client:
        answer = client.ask("/nowhere", UPGRADE)

    assert answer.status_line.split()[1] == "403"


def test_invalid_name_is_a_400_before_the_upgrade(uvicorn):
    with Client(uvicorn.port) as client:
        answer = client.ask("/a%0Ab/websocket", UPGRADE)

    assert (answer.status_line.split()[1], answer.body.decode()) == (
        "400",
        r"The name 'a\nb' has a control character.",
    )


def test_invalid_name_is_a_403_where_the_server_can_say_no_more(site):
    with Client(site.port) as client:
        answer = client.ask(f"/{'x' * 129}/websocket", UPGRADE)

    assert answer.status_line.split()[1] == "403"


@pytest.mark.parametrize("kind", ["stock-daphne", "stock-uvicorn"])
def test_refusals_leave_no_traceback_in_the_log(kind):
    with Server(kind) as server:
        for path in ("/nowhere", "/a%0Ab/websocket", "/", "/nobody/getCurrentConnections"):
            with Client(server.port) as client:
                client.ask(path, UPGRADE)
        for path in ("/nowhere", "/a%0Ab/websocket"):
            with Client(server.port) as client:
                client.socket.sendall(b"GET " + path.encode() + b" HTTP/1.1\r\nHost: x\r\n")
                client.reset()
        assert server.count() == 0

        assert "Traceback" not in server.log()
        assert "rror" not in server.log()


def test_site_keeps_the_page_of_an_unknown_path_to_itself(tmp_path):
    """`http` answers: here with the site's own 404, not with this app's usage text."""
    with (
        Server("stock-uvicorn", "tests.sites.own_routes:application") as server,
        Client(server.port) as client,
    ):
        answer = client.ask("/nowhere", UPGRADE)

        assert (answer.status_line.split()[1], answer.body) == ("404", b"Nothing here.")


async def test_routes_of_a_site_can_stand_beside_or_instead():
    routes = [path("ws/<slug:room>/", counted(EchoConsumer.as_asgi(), by="room"))]
    communicator = WebsocketCommunicator(
        as_websocket_application(routes), "/ws/kitchen/", headers=[(b"host", b"testserver")]
    )

    assert await communicator.connect() == (True, None)

    assert get_state().counts() == {"kitchen": 1}
    await communicator.disconnect()


@pytest.mark.parametrize("path", ["/app/lobby/websocket", "/lobby/websocket"])
def test_websocket_is_below_the_script_name_of_the_site(connect, settings, path):
    """As with Django's URLs a proxy may have taken it off the path, or not."""
    settings.FORCE_SCRIPT_NAME = "/app"

    connect(path)

    assert get_state().counts() == {"lobby": 1}


@pytest.mark.parametrize(
    ("path", "name"), [("/app/websocket", "foo"), ("/apple/websocket", "apple")]
)
def test_script_name_is_no_name_of_an_object(connect, settings, path, name):
    settings.FORCE_SCRIPT_NAME = "/app"

    connect(path)

    assert get_state().counts() == {name: 1}


@pytest.mark.parametrize("path", ["/app/websocket", "/websocket"])
async def test_websocket_is_below_the_root_path_of_the_server(path):
    communicator = WebsocketCommunicator(
        as_websocket_application(), path, headers=[(b"host", b"testserver")]
    )
    communicator.scope["root_path"] = "/app"

    assert await communicator.connect() == (True, None)

    assert get_state().counts() == {"foo": 1}
    await communicator.disconnect()


@pytest.mark.parametrize("path", ["/app", "/app/", "/app/nowhere", "/nowhere"])
def test_unknown_path_below_the_script_name_is_answered_as_without_upgrade(connect, settings, path):
    settings.FORCE_SCRIPT_NAME = "/app"

    with pytest.raises(InvalidStatus) as refused:
        connect(path)

    # Django's URLs begin with a slash: it sends who left it out to where it is
    status, location = refused.value.response.status_code, refused.value.response.headers
    assert (status, location.get("Location")) == ((301, "/app/") if path == "/app" else (200, None))


async def test_routes_can_stand_below_a_prefix():
    router = URLRouter([path("connections/", URLRouter(websocket_urlpatterns))])
    communicator = WebsocketCommunicator(router, "/connections/bar/websocket")

    assert await communicator.connect() == (True, None)

    assert get_state().counts() == {"bar": 1}
    await communicator.disconnect()


console = URLRouter([path("connections/", URLRouter(console_urlpatterns))])


async def joins(user, name="user-7"):
    """Return whether that user's console joins the object."""
    communicator = WebsocketCommunicator(console, f"/connections/{name}/websocket")
    communicator.scope["user"] = user
    accepted, _ = await communicator.connect()
    stays = accepted and await communicator.receive_nothing(timeout=0.01)  # else 4403
    assert get_state().counts() == ({name: 1} if stays else {})
    if stays:
        await communicator.disconnect()
    return stays


@pytest.mark.parametrize("user", [None, AnonymousUser(), User(username="visitor")])
async def test_console_lets_nobody_join_an_object_who_may_not_list(settings, user):
    assert not await joins(user)

    settings.DEBUG = True
    assert await joins(user)


async def test_console_is_for_staff():
    assert await joins(User(username="staff", is_staff=True))


@pytest.mark.parametrize(("allowed", "expected"), [("list", False), ("connect", False)])
async def test_console_asks_for_connecting_too(settings, allowed, expected):
    settings.ECHO_AUTHORIZE = f"tests.test_routing.may_{allowed}"

    assert await joins(User(username="staff", is_staff=True)) == expected


async def may_list(asking, name, action):
    return action == "list"


async def may_connect(asking, name, action):
    return action == "connect"
