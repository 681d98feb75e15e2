"""Every block of code in README and docs is run as it stands there, or checked if it cannot be."""

import asyncio
import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, build_opener

import pytest
import yaml
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter
from django.contrib.auth.models import AnonymousUser
from django.core.asgi import get_asgi_application
from django.template import Context, Template, engines
from django.test import Client as HTTPClient
from django.test import RequestFactory
from django.urls import path, resolve
from pytest_django import Settings

from echo.conf import conf
from echo.members import Member
from echo.objects import NamedObject, get_object
from echo.state import get_state
from tests.nginx import nginx
from tests.raw import UPGRADE, Client
from tests.readme import BLOCKS, DOCS, EXISTING_SITE, PAGES, Block, block, make_site, missing, run
from tests.servers import ROOT, Server
from tests.states import redis_state
from tests.waiting import eventually

LIVE = "docs/howto/live-counts.md"
DEPLOY = "docs/howto/deploy.md"
OPERATOR = {
    "DJANGO_SUPERUSER_USERNAME": "operator",
    "DJANGO_SUPERUSER_PASSWORD": "secret",
    "DJANGO_SUPERUSER_EMAIL": "operator@example.com",
}


# Blocks that a test of another file runs: page, start of the block, file.
ELSEWHERE = [
    ("docs/tutorial/first-site.md", "", "tests/test_own_site.py"),
    ("docs/tutorial/who-is-here.md", "", "tests/test_docs_who_is_here.py"),
    ("docs/howto/members.md", "", "tests/test_docs_members.py"),
    ("docs/howto/limits.md", "", "tests/test_docs_limits.py"),
    ("docs/howto/logins.md", "", "tests/test_docs_limits.py"),
    ("docs/howto/deploy.md", "", "tests/test_docs_deploy.py"),
    ("docs/howto/many-processes.md", "CHANNEL_LAYERS", "tests/groups/test_idle_socket.py"),
    ("docs/howto/security.md", "ACL SETUSER", "tests/state/redis/test_permissions.py"),
    (
        *("docs/howto/consumers.md", "from channels.generic.websocket"),
        "tests/counting/test_auto_reply.py",
    ),
    ("docs/howto/live-counts.md", "const stream", "tests/test_docs_browser.py"),
    ("docs/howto/reconnect.md", "", "tests/test_docs_browser.py"),
]


def is_run_elsewhere(found: Block) -> bool:
    return any(found.page == page and found.code.startswith(start) for page, start, _ in ELSEWHERE)


@pytest.fixture(scope="module", autouse=True)
def all_blocks_are_tested(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    assert [b for b in missing(request, PAGES) if not is_run_elsewhere(b)] == []


@pytest.mark.parametrize(("page", "start", "file"), ELSEWHERE)
def test_blocks_that_another_file_runs_are_read_there(page: str, start: str, file: str) -> None:
    assert [b for b in BLOCKS if b.page == page and b.code.startswith(start)]
    assert Path(page).name in (ROOT / file).read_text()


def test_every_block_has_a_language() -> None:
    fences = sum(len(re.findall(r"^```(?!\{)", text, re.M)) for text in PAGES.values())
    directives = sum(len(re.findall(r"^```\{", text, re.M)) for text in PAGES.values())

    assert fences - directives == 2 * len(BLOCKS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the demo and nothing else."""
    folder = tmp_path_factory.mktemp("demo")
    for part in ("manage.py", "project", "echo"):
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        copy(ROOT / part, folder / part)
    return folder


@pytest.fixture(scope="module")
def demo(folder: Path) -> Iterator[Server]:
    """The demo in a folder of its own, started by the README's commands."""
    enter, start = block("sh", "runserver", "README.md").strip().splitlines()
    install, migrate, runserver = start.split(" && ")
    assert run(f"{enter} && command -v pip", folder) == f"{folder}/.venv/bin/pip\n"
    assert install == "pip install -r requirements.txt"
    assert runserver == "python manage.py runserver"
    run(migrate, folder)
    with Server("runserver", folder=folder, DJANGO_DEBUG="1") as server:
        yield server


def test_shell_examples_print_what_they_say(demo: Server) -> None:
    commands = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block("console", "curl"), re.M)

    for command, output in commands:
        assert run(command.replace(":8000", f":{demo.port}")).strip() == output.strip()


def test_python_client_prints_what_it_says(demo: Server, tmp_path: Path) -> None:
    script = tmp_path / "client.py"
    code = block("python", "websockets.sync.client")
    script.write_text(code.replace(":8000", f":{demo.port}"))

    assert run(f"python {script}") == block("text", "[Durable Object]: hello")


def test_demo_answers_a_browser_with_the_page(demo: Server) -> None:
    status, headers, page = demo.get("/", Accept="text/html")

    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "getCurrentConnections" in page


@pytest.fixture
def existing_site(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """The folder of a site with all that the guides add to one, and its environment."""
    make_site(tmp_path)
    urls = tmp_path / "mysite" / "urls.py"
    urls.write_text(urls.read_text() + block("python", "operations/", "docs/howto/operating.md"))
    asgi = tmp_path / "mysite" / "asgi.py"
    code = asgi.read_text()
    for known, more in {
        "\nfrom chat": block("python", "CountFirst") + "\nfrom chat",
        "ProtocolTypeRouter\n": "ProtocolTypeRouter, URLRouter\n",
        "as_websocket_application\n": "as_websocket_application, console_urlpatterns\n",
        'by="room"))': 'by="room")),\n' + block("python", "URLRouter(console_urlpatterns)"),
    }.items():
        assert code.count(known) == 1
        code = code.replace(known, more)
    asgi.write_text(code)
    return tmp_path, {"PYTHONPATH": str(ROOT), "DJANGO_SETTINGS_MODULE": "mysite.settings"}


def test_existing_site_counts_its_own_consumers(existing_site: tuple[Path, dict[str, str]]) -> None:
    folder, environment = existing_site
    with (folder / "mysite" / "settings.py").open("a") as settings:
        settings.write('\nDEBUG = False\nALLOWED_HOSTS = ["127.0.0.1"]\n')

    with Server("daphne", "mysite.asgi:application", folder=folder, **environment) as server:
        client = Client(server.port)
        answer = client.ask("/chat/lobby/", UPGRADE)
        healthy = server.get("/operations/health")
        one = server.get("/connections/lobby/getCurrentConnections", Accept="application/json")
        page = server.get("/connections/", Accept="text/html")
        with Client(server.port) as stranger:  # DEBUG is off
            refused = stranger.ask("/connections/user-7/websocket", UPGRADE)
        client.reset()

        assert answer.status_line == "HTTP/1.1 101 Switching Protocols"
        assert healthy[2] == '{"status": "ok", "state": "process"}'
        assert (refused.status_line, refused.body) == (
            "HTTP/1.1 403 Forbidden",
            b"You may not use the console.",
        )
        assert 'id="echo-console"' not in page[2]
        assert one[2] == '{"name": "lobby", "connections": 1}'
        eventually(lambda: "0" in server.get("/connections/lobby/getCurrentConnections")[2], True)


def test_existing_site_has_its_console_in_debug(
    existing_site: tuple[Path, dict[str, str]],
) -> None:
    folder, environment = existing_site  # as startproject makes it

    with Server("daphne", "mysite.asgi:application", folder=folder, **environment) as server:
        assert 'id="echo-console"' in server.get("/connections/", Accept="text/html")[2]
        with Client.opened(server.port, "connections/echoing") as echoing:
            echoing.send_text("hello")
            assert echoing.text() == "[Durable Object]: hello"


def test_existing_site_may_leave_out_the_usage_page(
    existing_site: tuple[Path, dict[str, str]],
) -> None:
    folder, environment = existing_site
    urls = folder / "mysite" / "urls.py"
    urls.write_text(
        urls.read_text().replace('path("connections/", include("echo.urls"))', "")
        + block("python", "include(endpoints)")
    )

    with Server("daphne", "mysite.asgi:application", folder=folder, **environment) as server:
        statuses = {
            path: server.get(f"/connections/{path}")[0]
            for path in ("", "no/such/path", "lobby/getCurrentConnections", "lobby/websocket")
        }

    assert statuses == {
        "": 404,
        "no/such/path": 404,
        "lobby/getCurrentConnections": 200,
        "lobby/websocket": 426,
    }


def test_tests_of_an_existing_site_have_connections(
    existing_site: tuple[Path, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, environment = existing_site
    del environment["DJANGO_SETTINGS_MODULE"]  # pytest.ini says it
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE")
    (folder / "pytest.ini").write_text(block("ini", "[pytest]"))
    (folder / "conftest.py").write_text(block("python", "pytest_plugins"))
    (folder / "chat" / "test_consumers.py").write_text(block("python", "assert_count"))
    (folder / "chat" / "test_members.py").write_text(block("python", "assert_members"))
    asgi = folder / "mysite" / "asgi.py"
    asgi.write_text(asgi.read_text().replace('by="room"', 'by="room", member="user"'))

    told = run("python -m pytest -q -p no:asyncio -p no:cacheprovider", folder, **environment)

    assert told.splitlines()[-1].startswith("2 passed")


def test_site_of_ones_own_reads_the_url_of_its_counts_by_one_line(tmp_path: Path) -> None:
    make_site(tmp_path)
    environment = {"PYTHONPATH": str(ROOT), "ECHO_STATE_URL": "redis://localhost:6379/0"}
    settings = tmp_path / "mysite" / "settings.py"
    read = "python manage.py shell -c 'from echo.conf import conf; print(conf.ECHO_STATE_URL)'"
    environment["DJANGO_SETTINGS_MODULE"] = "mysite.settings"
    assert "memory://" in run(f"{read} 2>&1", tmp_path, **environment)
    assert "echo.W006" in run("python manage.py check 2>&1", tmp_path, **environment)

    page = "docs/howto/many-processes.md"
    settings.write_text(settings.read_text() + block("python", "ECHO_STATE_URL = ", page))

    assert "redis://localhost:6379/0" in run(read, tmp_path, **environment)
    assert "echo." not in run("python manage.py check 2>&1", tmp_path, **environment)


@pytest.fixture
def many(redis_url: str, folder: Path, tmp_path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """The port of nginx in front of four processes, and their environment, as in the guides."""
    url, key, migrate, collect, command = block("sh", "--workers 4").strip().splitlines()
    assert url.startswith("export ECHO_STATE_URL=redis://")
    assert command == (
        "uvicorn --ws echo.server.uvicorn:WebSocketProtocol --workers 4 project.asgi:application"
    )
    made = run(key.removeprefix("export DJANGO_SECRET_KEY=$(").removesuffix(")")).strip()
    environment = {"ECHO_STATE_URL": redis_url, "DJANGO_SECRET_KEY": made}
    run(migrate, folder, **environment)
    run(collect, folder, **environment)
    with Server("uvicorn", options=("--workers", "4"), folder=folder, **environment) as server:
        site = block("nginx", "proxy_http_version", DEPLOY)
        site = re.sub(r"127\.0\.0\.1:800[12]", f"127.0.0.1:{server.port}", site)
        with nginx(site.replace("/srv/echo", str(folder)), tmp_path) as port:
            yield port, environment


def test_many_processes_are_one_behind_nginx(many: tuple[int, dict[str, str]]) -> None:
    port, environment = many
    commands = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block("console", "echo_send"), re.M)

    with Client.opened(port, "lobby") as client:
        for command, output in commands:
            assert run(command, **environment) == output

        assert client.text() == "Back in five minutes"
        assert client.closing() == (4000, "The lobby is closed")


async def test_command_prints_the_members(redis_url: str) -> None:
    shown = block("console", "--members")
    command, output = shown.removeprefix("$ ").split("\n", 1)

    with redis_state(redis_url) as state:
        await state.join("lobby", member=("7", '{"name":"Ada"}'))
        printed = await asyncio.to_thread(run, command, ECHO_STATE_URL=redis_url)

    time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
    assert re.sub(time, "", printed) == re.sub(time, "", output)


def test_nginx_serves_the_static_files_and_a_log_in_is_for_all_processes(
    many: tuple[int, dict[str, str]], folder: Path
) -> None:
    port, environment = many
    run("python manage.py createsuperuser --noinput -v 0", folder, **environment, **OPERATOR)
    browser = build_opener(HTTPCookieProcessor())
    site = f"http://127.0.0.1:{port}"

    script = browser.open(f"{site}/static/echo/usage.js").read()
    form = browser.open(f"{site}/admin/").read().decode()
    token = re.search('csrfmiddlewaretoken" value="(.*?)"', form)[1]
    fields = {"username": "operator", "password": "secret", "csrfmiddlewaretoken": token}
    browser.open(f"{site}/admin/login/", urlencode(fields).encode())
    # a connection each, so that the processes take turns
    pages = [browser.open(f"{site}/admin/echo/object/") for _ in range(20)]

    assert script == (ROOT / "echo" / "static" / "echo" / "usage.js").read_bytes()
    assert {page.url for page in pages} == {f"{site}/admin/echo/object/"}


def test_template_tag_shows_the_count() -> None:
    html = Template(block("html", "connection_count", LIVE)).render(Context())

    assert ">0<" in html


def test_member_list_is_shown_to_those_who_may_see_it(settings: Settings) -> None:
    live = block("html", "{% load echo %}\n{% member_list", LIVE)
    with_heading = block("html", " as people", LIVE)

    def render(source: str) -> str:
        return engines["django"].from_string(source).render({}, RequestFactory().get("/"))

    assert render(live).strip() == render("{% load echo %}" + with_heading).strip() == ""
    settings.DEBUG = True
    assert "Nobody is here." in render(live)
    assert "<h2>Who is here</h2>" in render("{% load echo %}" + with_heading)


def test_members_are_the_json_of_the_reference(settings: Settings, client: HTTPClient) -> None:
    settings.DEBUG = True
    listed = json.loads(block("json", "members", "docs/reference/endpoints.md"))
    keys = [member["key"] for member in listed["members"] for _ in range(member["connections"])]
    for key in [*keys, None, None]:
        member = None if key is None else (key, json.dumps(listed["members"][0]["info"]))
        asyncio.run(get_state().join("lobby", member=member))
    try:
        found = client.get("/lobby/members").json()
    finally:
        for key in [*keys, None, None]:
            get_state().leave("lobby", key)

    found["members"][0]["since"] = listed["members"][0]["since"]
    assert found == listed


def test_objects_tell_their_counts() -> None:
    for _ in range(3):
        asyncio.run(get_state().join("lobby"))
    try:
        lines = block("python", "connected_objects()  # {", "README.md").strip().splitlines()
        names: dict[str, object] = {}
        exec(lines[0], names)

        assert [eval(line, names) for line in lines[2:]] == [3, True, {"lobby": 3}, None, None]
    finally:
        for _ in range(3):
            get_state().leave("lobby")


def test_signals_tell_receivers(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    exec(block("python", "object_vacated"), names)

    for signal, receiver in {
        "object_occupied": "start",
        "count_changed": "note",
        "object_vacated": "stop",
    }.items():
        names[signal].send(NamedObject, name="lobby", count=1, previous=0)
        assert names[signal].disconnect(names[receiver])

    assert capsys.readouterr().out.splitlines() == [
        "Somebody is in 'lobby'",
        "'lobby': 0 -> 1",
        "Nobody is in 'lobby' any more",
    ]


def test_signals_of_members_name_the_member(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    start = "import member_joined, member_left"
    exec(block("python", start, "docs/howto/signals.md"), names)

    for signal, receiver in {"member_joined": "greet", "member_left": "miss"}.items():
        names[signal].send(NamedObject, name="lobby", member=Member("7", {"name": "Ada"}))
        assert names[signal].disconnect(names[receiver])

    assert capsys.readouterr().out.splitlines() == ["Ada is in 'lobby'", "Ada has left 'lobby'"]


def test_consumer_overrides_one_function() -> None:
    names: dict[str, type] = {}
    exec(block("python", "ShoutConsumer"), names)

    assert names["ShoutConsumer"]().reply("tea") == "TEA"


def test_routes_of_the_readme_are_counted() -> None:
    names: dict[str, Any] = {
        "ChatConsumer": consumer(),
        "ProtocolTypeRouter": ProtocolTypeRouter,
        "http": get_asgi_application(),
        "path": path,
    }
    exec(block("python", "routes = ", "README.md"), names)

    assert [str(route.pattern) for route in names["routes"]] == ["chat/<str:room>/"]
    assert names["routes"][0].callback.counted_by == ("room",)


def consumer() -> type:
    return type("ChatConsumer", (AsyncWebsocketConsumer,), {})


def test_object_may_be_the_user() -> None:
    names: dict[str, Any] = {"ChatConsumer": consumer()}
    exec(block("python", "by_user"), names)

    (by,) = names["application"].counted_by
    assert by({"user": SimpleNamespace(pk=7)}) == "user-7"


def test_index_shows_the_count() -> None:
    lines = block("python", "count()  # 3", "docs/index.md").strip().splitlines()
    asyncio.run(get_state().join("lobby"))
    try:
        assert eval(lines[-1], {"get_object": get_object}) == 1
    finally:
        get_state().leave("lobby")


def test_report_is_rendered_only_if_somebody_is_connected() -> None:
    names: dict[str, Any] = {}
    exec(block("python", "def rebuild"), names)
    rendered: list[int] = []
    report = SimpleNamespace(pk=7, render=lambda: rendered.append(7) or "a report")

    names["rebuild"](report)
    assert rendered == []
    asyncio.run(get_state().join("report-7"))
    try:
        names["rebuild"](report)
    finally:
        get_state().leave("report-7")

    assert rendered == [7]


def permission(page: str, monkeypatch: pytest.MonkeyPatch, settings: Settings) -> Any:
    """Return the function of that page, found by the setting that the page shows."""
    setting = block("python", "ECHO_AUTHORIZE = ", page)
    names: dict[str, Any] = {}
    exec(setting, names)
    module = ModuleType("mysite.access")
    exec(block("python", "def authorize", page), vars(module))
    monkeypatch.setitem(sys.modules, "mysite", ModuleType("mysite"))
    monkeypatch.setitem(sys.modules, "mysite.access", module)
    settings.ECHO_AUTHORIZE = names["ECHO_AUTHORIZE"]
    return conf.ECHO_AUTHORIZE


def test_members_may_connect_to_their_rooms(
    monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    authorize = permission("docs/howto/permissions.md", monkeypatch, settings)
    rooms = SimpleNamespace(
        filter=lambda slug: SimpleNamespace(exists=lambda: slug == "lobby"),
    )
    member = SimpleNamespace(is_staff=False, is_authenticated=True, rooms=rooms)
    staff = SimpleNamespace(is_staff=True)
    scope, request = {"type": "websocket", "user": member}, SimpleNamespace(user=member)

    assert authorize(scope, "lobby", "connect") and authorize(request, "lobby", "count")
    assert not authorize(scope, "cellar", "connect")
    assert not authorize(request, None, "list") and not authorize(request, "lobby", "close")
    assert authorize({"type": "websocket", "user": staff}, "lobby", "close")


def test_prometheus_reads_the_metrics_with_its_token(
    monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    authorize = permission("docs/howto/operating.md", monkeypatch, settings)
    monkeypatch.setenv("METRICS_TOKEN", "the-token")
    [job] = yaml.safe_load(block("yaml", "scrape_configs"))["scrape_configs"]
    settings.ROOT_URLCONF = "tests.sites.operations_urls"

    def allowed(token: str, action: str = "list") -> bool:
        headers = {"Authorization": f"Bearer {token}"}
        request = RequestFactory(headers=headers).get(job["metrics_path"])
        request.user = AnonymousUser()
        return authorize(request, None, action)

    assert resolve(job["metrics_path"]).view_name == "echo_operations:metrics"
    assert allowed(job["authorization"]["credentials"])
    assert not allowed("another")
    assert not allowed("the-token", "close")


def test_nginx_limits_the_connections_of_an_address(demo: Server, tmp_path: Path) -> None:
    site = block("nginx", "limit_conn_zone").replace(":8000", f":{demo.port}")

    with nginx(site.replace("addresses 100", "addresses 1"), tmp_path) as port:
        site = f"http://127.0.0.1:{port}/connections/live"
        with build_opener().open(site) as stream:
            assert stream.status == 200
            again = run(f"curl -so /dev/null -w '%{{http_code}}' {site}")

    assert again == "503"


def test_uvicorn_runs_with_a_parser_that_has_limits() -> None:
    command = block("text", "--http h11").split()
    assert command[:3] == ["uvicorn", "--http", "h11"]

    with Server("uvicorn", options=("--http", "h11")) as server:
        assert server.get("/getCurrentConnections")[0] == 200


def test_log_has_one_line_per_end_and_none_of_the_layer() -> None:
    code = f"""
import logging.config
logging.basicConfig(level="INFO")  # as servers do
{block("python", "LOGGING = ")}
logging.config.dictConfig(LOGGING)
logging.getLogger("echo.connections").info("An end")
logging.getLogger("channels_redis.pubsub").error("An outage")
"""

    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    assert done.stderr == "An end\n"


def test_dashboard_has_the_queries_of_the_page() -> None:
    dashboard = json.loads((DOCS / "grafana.json").read_text())
    queries = block("text", "echo_connections{").strip().splitlines()

    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]

    assert sorted(asked) == sorted(queries)


def test_package_is_installed_by_its_name() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert block("sh", "pip install", EXISTING_SITE) == f"pip install {project['name']}\n"


def test_test_command_is_the_one_that_ci_runs() -> None:
    install, test = block("sh", "pytest", "README.md").strip().split(" && ")
    assert block("text", "counted(app)")
    assert block("sh", "sphinx-build").strip() in (ROOT / ".ci" / "run").read_text().splitlines()

    steps = (ROOT / ".ci" / "run").read_text()
    assert install.removeprefix("pip install ") in steps
    assert test in steps
