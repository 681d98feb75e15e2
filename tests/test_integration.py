"""The wheel of the project, in fresh sites: nothing of the repository is on their path."""

import json
import shutil
import zipfile
from pathlib import Path

import django
import pytest
from playwright.sync_api import Browser, Page

from echo.testing import ClientWebSocket
from tests.browser import new_page
from tests.pages import connect, log, table
from tests.raw import UPGRADE, Client
from tests.readme import make_site, run
from tests.servers import ROOT, Server
from tests.waiting import SECOND, eventually

PIP = "python -m pip --disable-pip-version-check --quiet"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    # A build leaves files beside the source, and would take old ones for its own.
    other = shutil.ignore_patterns(".*", "__pycache__", "build", "*.egg-info", "node_modules")
    shutil.copytree(ROOT, folder / "source", ignore=other)
    options = "--no-deps --no-build-isolation --no-index"
    run(f"{PIP} wheel {options} -w {folder} {folder}/source")
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the wheel is installed in."""
    folder = tmp_path_factory.mktemp("installed")
    run(f"{PIP} install --no-deps --no-index --target {folder} {wheel}")
    return folder


class Site:
    """A site as the README makes one, and what a test changes in it."""

    def __init__(self, folder: Path, installed: Path) -> None:
        self.folder = folder
        self.environment = {
            "PYTHONPATH": str(installed),
            "DJANGO_SETTINGS_MODULE": "mysite.settings",
        }

    def append(self, name: str, code: str) -> None:
        file = self.folder / "mysite" / f"{name}.py"
        file.write_text(file.read_text() + code)

    def replace(self, name: str, old: str, new: str) -> None:
        file = self.folder / "mysite" / f"{name}.py"
        assert file.read_text().count(old) == 1
        file.write_text(file.read_text().replace(old, new))

    def add_routes(self, routes: str, imports: str) -> None:
        """Put WebSocket routes before those of the README."""
        self.replace("asgi", '[path("chat/', f'[{routes}, path("chat/')
        self.replace("asgi", "\nfrom chat", f"\n{imports}\nfrom chat")

    def serve(self, kind: str, *options: str) -> Server:
        return Server(kind, "mysite.asgi:application", options, self.folder, **self.environment)

    def run(self, command: str) -> str:
        return run(command, self.folder, **self.environment)


@pytest.fixture(scope="module")
def fresh_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    make_site(folder)
    return folder


@pytest.fixture
def site(fresh_site: Path, installed: Path, tmp_path: Path) -> Site:
    shutil.copytree(fresh_site, tmp_path, dirs_exist_ok=True)
    return Site(tmp_path, installed)


def assert_counted(server: Server, path: str, count: str) -> None:
    """Open a WebSocket on the path, echo a text and close, with a look at the count between."""
    with ClientWebSocket(f"ws://127.0.0.1:{server.port}{path}") as connection:
        connection.send("hello")
        assert str(connection.recv()).endswith("hello")
        assert connections(server, count) == 1
    assert connections(server, count) == 0


def connections(server: Server, path: str) -> int:
    return json.loads(server.get(path, Accept="application/json")[2])["connections"]


def page(server: Server, path: str) -> str:
    status, headers, text = server.get(path, Accept="text/html")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    return text


def test_wheel_has_the_whole_app_and_its_licence_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    source = {str(file.relative_to(ROOT)) for file in (ROOT / "echo").rglob("*") if file.is_file()}

    app = {name for name in names if name.startswith("echo/")}
    assert app == {name for name in source if "__pycache__" not in name}
    assert {"echo/py.typed", "echo/templates/echo/usage.html", "echo/static/echo/live.js"} <= app
    catalogues = {name for name in app if name.endswith(".po")}
    assert {name.replace(".po", ".mo") for name in catalogues} <= app
    rest = {name.partition(".dist-info/")[2] for name in names - app}
    assert rest == {"licenses/LICENSE", "METADATA", "RECORD", "WHEEL", "top_level.txt"}


CHECK = """
import django, echo
from django.core.management import call_command

django.setup()
call_command("check", fail_level="WARNING")
print(echo.__file__)
"""


def test_fresh_site_uses_the_installed_app_and_passes_its_checks(
    site: Site, installed: Path
) -> None:
    (site.folder / "check.py").write_text(CHECK)

    assert site.run("python -W error check.py").splitlines() == [
        "System check identified no issues (0 silenced).",
        f"{installed}/echo/__init__.py",
    ]


def test_own_consumer_is_counted_by_an_argument_of_its_route(site: Site) -> None:
    with site.serve("runserver") as server:
        assert_counted(server, "/chat/lobby/", "/connections/lobby/getCurrentConnections")


def test_prefix_is_for_the_site_to_choose(site: Site) -> None:
    site.replace("urls", '"connections/"', '"live/counts/"')
    with site.serve("daphne") as server:
        assert_counted(server, "/chat/lobby/", "/live/counts/lobby/getCurrentConnections")
        assert "<code>/live/counts/getCurrentConnections</code>" in page(server, "/live/counts/")
        assert server.get("/connections/")[0] == 404


OWN_URLS = """
from django.http import HttpResponse

urlpatterns = [path("", lambda request: HttpResponse("my own page")), *urlpatterns]
"""
OWN_ROUTES = (
    're_path(r"^ticker/(?P<symbol>[a-z]+)/$", ChatConsumer.as_asgi()), '
    're_path(r"^rooms/(?P<number>[0-9]+)/$", counted(ChatConsumer.as_asgi(), by="number"))'
)


def test_own_pages_and_websocket_routes_of_a_site_stay_its_own(site: Site) -> None:
    site.append("urls", OWN_URLS)
    site.add_routes(OWN_ROUTES, "from django.urls import re_path")
    with site.serve("uvicorn") as server:
        assert server.get("/")[2] == "my own page"
        with ClientWebSocket(f"ws://127.0.0.1:{server.port}/ticker/abc/") as uncounted:
            uncounted.send("hello")
            assert uncounted.recv() == "hello"
            assert "No object has a connection now." in page(server, "/connections/")
        assert_counted(server, "/rooms/7/", "/connections/7/getCurrentConnections")
        with Client(server.port) as client:
            assert client.ask("/", UPGRADE).body == b"my own page"
        for headers in ({}, UPGRADE):
            with Client(server.port) as client:
                answer = client.ask("/nowhere", headers)
            assert answer.status_line == "HTTP/1.1 404 Not Found"
        assert "Traceback" not in server.log()


OWN_ADMIN = """
from django.contrib.admin import AdminSite
from echo.admin import ConnectedObject, ConnectedObjectAdmin


class OperationsSite(AdminSite):
    site_header = "Operations of mine"

    def has_permission(self, request):
        return True


operations = OperationsSite(name="operations")
operations.register([ConnectedObject], ConnectedObjectAdmin)
urlpatterns = [path("operations/", operations.urls), path("connections/", include("echo.urls"))]
"""


def test_operators_page_is_on_an_admin_site_of_ones_own(site: Site) -> None:
    site.append("urls", OWN_ADMIN)
    with (
        site.serve("runserver") as server,
        ClientWebSocket(f"ws://127.0.0.1:{server.port}/chat/lobby/"),
    ):
        objects = page(server, "/operations/echo/object/")
        assert '<a href="/operations/echo/object/object/?name=lobby">' in objects
        assert "Operations of mine" in objects
        assert "Connections now:" in page(server, "/operations/echo/object/object/?name=lobby")
        assert 'href="/operations/echo/object/"' in page(server, "/operations/echo/")
        # the usage page has the frame of that site
        assert "Operations of mine" in page(server, "/connections/")
        assert server.get("/admin/")[0] == 404
        assert "Traceback" not in server.log()


ECHO_ROUTES = 'path("connections/", URLRouter(websocket_urlpatterns))'
ECHO_IMPORTS = """
from channels.routing import URLRouter
from echo.routing import websocket_urlpatterns
"""
LIVE_PAGE = """
from django.http import HttpResponse
from django.template import Context, Template

# a browser asks for the icon, and would complain about a 404
urlpatterns.append(path("favicon.ico", lambda request: HttpResponse(status=204)))
LIVE = '{% load echo %}<!doctype html><title>Live</title>{% connection_count "foo" live=True %}'
urlpatterns.append(path("live", lambda request: HttpResponse(Template(LIVE).render(Context()))))
"""


@pytest.fixture
def whole_site(site: Site) -> Site:
    """A site with the routes of the echo kind, and a page with a live count."""
    site.add_routes(ECHO_ROUTES, ECHO_IMPORTS)
    site.append("urls", LIVE_PAGE)
    return site


def assert_below_a_path(server: Server, prefix: str) -> None:
    """All addresses have `/app`; what comes to the server begins with the prefix."""
    usage = page(server, f"{prefix}/connections/")
    assert "<code>/app/connections/websocket</code>" in usage
    assert 'data-root="/app/connections/"' in usage  # of the console's WebSockets
    assert 'data-url="/app/connections/live"' in usage
    assert 'src="/app/static/echo/usage.js"' in usage
    assert 'data-url="/app/connections/foo/connections/live"' in page(server, f"{prefix}/live")
    count = f"{prefix}/connections/foo/getCurrentConnections"
    for path in ("/connections/foo/websocket", "/connections/websocket", "/chat/foo/"):
        assert_counted(server, prefix + path, count)
    assert "Traceback" not in server.log()


@pytest.mark.parametrize(("kind", "prefixes"), [("daphne", ["/app", ""]), ("uvicorn", [""])])
def test_site_can_be_below_the_root_path_of_a_server(
    whole_site: Site, kind: str, prefixes: list[str]
) -> None:
    """Behind a proxy that takes the path off, or does not, which uvicorn has no name for."""
    with whole_site.serve(kind, "--root-path", "/app") as server:
        for prefix in prefixes:
            assert_below_a_path(server, prefix)


POLICY = {
    "default-src": ["'none'"],
    "script-src": ["'self'"],
    "style-src": ["'self'"],
    "connect-src": ["'self'"],
    "img-src": ["'self'"],
    "base-uri": ["'none'"],
    "form-action": ["'self'"],
    "frame-ancestors": ["'none'"],
}
if django.VERSION >= (6, 0):
    STRICT = f"""
SECURE_CSP = {POLICY!r}
MIDDLEWARE = ["django.middleware.csp.ContentSecurityPolicyMiddleware", *MIDDLEWARE]
"""
else:
    HEADER = "; ".join(f"{name} {' '.join(values)}" for name, values in POLICY.items())
    STRICT = f"""
def strict_policy(get_response):
    def answer(request):
        response = get_response(request)
        response["Content-Security-Policy"] = {HEADER!r}
        return response

    return answer


MIDDLEWARE = ["mysite.settings.strict_policy", *MIDDLEWARE]
"""


@pytest.fixture
def complaints() -> list[str]:
    """What the browser's console said."""
    return []


@pytest.fixture
def browser_page(browser: Browser, complaints: list[str]) -> Page:
    page = new_page(browser)
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    return page


def test_pages_work_in_a_browser_below_a_path_and_under_the_strictest_policy(
    whole_site: Site, browser_page: Page, complaints: list[str]
) -> None:
    whole_site.append("settings", f'FORCE_SCRIPT_NAME = "/app"\n{STRICT}')
    with whole_site.serve("runserver") as server:
        assert_below_a_path(server, "/app")
        base = f"127.0.0.1:{server.port}/app"
        response = browser_page.goto(f"http://{base}/live")
        assert response is not None
        assert response.headers["content-security-policy"].startswith("default-src 'none'")
        with ClientWebSocket(f"ws://{base}/connections/foo/websocket"):
            eventually(lambda: browser_page.locator("output").inner_text(), "1", 2 * SECOND)

        browser_page.goto(f"http://{base}/connections/")
        connect(browser_page)
        browser_page.get_by_label("Text").fill("Hello")
        browser_page.keyboard.press("Enter")

        eventually(lambda: log(browser_page, "received"), ["[Durable Object]: Hello"])
        assert log(browser_page, "opened") == [f"ws://{base}/connections/foo/websocket"]
        eventually(lambda: table(browser_page), [["foo", "1"]])
        assert complaints == []
