"""The count before Django's handler: every answer is the view's."""

from collections.abc import Iterator

import pytest
from asgiref.testing import ApplicationCommunicator
from django.core.asgi import get_asgi_application

from echo.exceptions import StateUnavailable
from echo.middleware.count_first import CountFirst
from echo.state import get_state
from tests.servers import Server

OF_THE_VIEW = ("content-type", "content-length", "cache-control", "x-content-type-options", "vary")
ACCEPTS = [None, "*/*", "text/plain", "application/json", "text/html, application/json;q=0.5", "x"]
PATHS = [
    "/getCurrentConnections",
    "/foo/getCurrentConnections",
    "/nobody/getCurrentConnections",
    "/bär <b>/getCurrentConnections",
    "/a\x00b/getCurrentConnections",
    f"/{'x' * 129}/getCurrentConnections",
    "/foo/getCurrentConnections/",
    "/foo/bar/getCurrentConnections",
    "/foo/websocket",
    "/",
]


async def answer(application, path="/getCurrentConnections", method="GET", **headers):
    """Return the status, the headers that the view sets, and the body."""
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "server": ("127.0.0.1", 8000),
        "headers": [
            (name.replace("_", "-").encode(), value.encode())
            for name, value in {"host": "localhost", **headers}.items()
            if value is not None
        ],
    }
    communicator = ApplicationCommunicator(application, scope)
    await communicator.send_input({"type": "http.request", "body": b"", "more_body": False})
    start = await communicator.receive_output()
    body = await communicator.receive_output()
    await communicator.wait()
    told = {name.decode().lower(): value.decode() for name, value in start["headers"]}
    kept = {name: told.get(name) for name in (*OF_THE_VIEW, "retry-after")}
    return start["status"], kept, body["body"].decode()


@pytest.mark.parametrize("kind", ["daphne", "uvicorn"])
@pytest.mark.parametrize("accept", ["*/*", "application/json"])
@pytest.mark.parametrize("path", PATHS[:3])
def test_demo_responds_as_the_view_does(
    servers: dict[str, Server], kind: str, path: str, accept: str
) -> None:
    """A request with an Accept header that is too long is for the view."""
    status, headers, body = servers[kind].get(path, accept=accept)
    of_view = servers[kind].get(path, accept=f"{accept},{'x/y;q=0,' * 200}x/z;q=0")

    assert (status, body) == (of_view[0], of_view[2])
    assert [headers.get(n) for n in OF_THE_VIEW] == [of_view[1].get(n) for n in OF_THE_VIEW]
    assert "referrer-policy" in of_view[1].keys() - headers.keys()  # of Django's middleware


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, Server]]:
    with Server("daphne") as daphne, Server("uvicorn") as uvicorn:
        yield {"daphne": daphne, "uvicorn": uvicorn}


async def handed_on(scope, receive, send):
    await send({"type": "http.response.start", "status": 299, "headers": []})
    await send({"type": "http.response.body", "body": b"of the site"})


@pytest.fixture
async def connected():
    for _ in range(2):
        await get_state().join("foo")
    yield
    for _ in range(2):
        get_state().leave("foo")


@pytest.mark.parametrize("accept", ACCEPTS)
@pytest.mark.parametrize("path", PATHS)
async def test_answer_is_that_of_the_view(connected, path, accept):
    django = get_asgi_application()

    assert await answer(CountFirst(django), path, accept=accept) == await answer(
        django, path, accept=accept
    )


@pytest.mark.parametrize("path", PATHS[:4])
async def test_count_is_answered_before_the_site(path):
    assert (await answer(CountFirst(handed_on), path))[0] == 200


@pytest.mark.parametrize("path", PATHS[6:])
async def test_all_else_is_for_the_site(path):
    assert (await answer(CountFirst(handed_on), path))[0] == 299


async def test_other_methods_are_for_the_site():
    assert (await answer(CountFirst(handed_on), method="POST"))[0] == 299


async def test_prefix_is_that_of_the_urls():
    application = CountFirst(handed_on, prefix="live.counts/")

    assert (await answer(application, "/live.counts/foo/getCurrentConnections"))[0] == 200
    assert (await answer(application, "/livexcounts/foo/getCurrentConnections"))[0] == 299
    assert (await answer(application, "/foo/getCurrentConnections"))[0] == 299


async def test_host_that_is_not_allowed_is_for_the_site(settings):
    settings.ALLOWED_HOSTS = ["example.com"]

    assert (await answer(CountFirst(handed_on), host="example.com"))[0] == 200
    assert (await answer(CountFirst(handed_on), host="evil.example"))[0] == 299


async def test_path_that_may_begin_with_a_script_name_is_for_the_site(settings):
    settings.FORCE_SCRIPT_NAME = "/app"

    status, _, body = await answer(CountFirst(handed_on), "/app/getCurrentConnections")

    assert (status, body) == (299, "of the site")  # not the count of the object "app"


async def test_permissions_of_the_site_are_asked_by_the_view(settings):
    settings.ECHO_AUTHORIZE = "tests.middleware.test_count_first.nobody"

    status, _, body = await answer(CountFirst(get_asgi_application()))

    assert (status, body) == (403, "You may not see the count of this object.")


def nobody(asking, name, action):
    return False


async def test_count_that_cannot_be_known_is_503_as_in_the_view(monkeypatch):
    def unknown(name):
        raise StateUnavailable("Redis is away.")

    for method in ("count", "snapshot"):
        monkeypatch.setattr(get_state(), method, unknown)
    django = get_asgi_application()

    told = await answer(CountFirst(django))

    assert told[0] == 503
    assert told[1]["retry-after"] == "2"
    assert told == await answer(django)


@pytest.mark.parametrize(("size", "status"), [(1024, 200), (1025, 299), (3_000_000, 299)])
async def test_long_accept_is_left_to_the_view(connected, size: int, status: int) -> None:
    """Django takes seconds for some megabytes, which must not be on the event loop."""
    accept = ("a/b," * size)[:size]

    assert (await answer(CountFirst(handed_on), accept=accept))[0] == status
