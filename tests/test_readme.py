"""Every block of code in the README is run, as it stands there."""

import asyncio
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, build_opener

import pytest
from django.template import Context, Template

from echo.conf import NAMES, conf
from echo.objects import NamedObject
from echo.state import get_state
from tests.nginx import nginx
from tests.raw import UPGRADE, Client
from tests.readme import BLOCKS, README, block, make_site, run, seen
from tests.servers import ROOT, Server
from tests.waiting import eventually

OPERATOR = {
    "DJANGO_SUPERUSER_USERNAME": "operator",
    "DJANGO_SUPERUSER_PASSWORD": "secret",
    "DJANGO_SUPERUSER_EMAIL": "operator@example.com",
}


@pytest.fixture(scope="module", autouse=True)
def all_blocks_are_tested() -> Iterator[None]:
    yield
    if len(seen) > 1:  # all were run, not one of them
        assert not [b for b in BLOCKS if b not in seen]


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
    enter, install, migrate, runserver = block("sh", "runserver").strip().splitlines()
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
    """The folder of a site with all that the README puts into one, and its environment."""
    make_site(tmp_path)
    urls = tmp_path / "mysite" / "urls.py"
    urls.write_text(urls.read_text() + block("python", "operations/"))
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

    told = run("python -m pytest -q -p no:asyncio -p no:cacheprovider", folder, **environment)

    assert told.splitlines()[-1].startswith("1 passed")


def test_site_of_ones_own_reads_the_url_of_its_counts_by_one_line(tmp_path: Path) -> None:
    make_site(tmp_path)
    environment = {"PYTHONPATH": str(ROOT), "ECHO_STATE_URL": "redis://localhost:6379/0"}
    settings = tmp_path / "mysite" / "settings.py"
    read = "python manage.py shell -c 'from echo.conf import conf; print(conf.ECHO_STATE_URL)'"
    environment["DJANGO_SETTINGS_MODULE"] = "mysite.settings"
    assert "memory://" in run(f"{read} 2>&1", tmp_path, **environment)
    assert "echo.W006" in run("python manage.py check 2>&1", tmp_path, **environment)

    settings.write_text(settings.read_text() + block("python", "ECHO_STATE_URL = "))

    assert "redis://localhost:6379/0" in run(read, tmp_path, **environment)
    assert "echo." not in run("python manage.py check 2>&1", tmp_path, **environment)


@pytest.fixture
def many(redis_url: str, folder: Path, tmp_path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """The port of nginx in front of four processes, and their environment, as in the README."""
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
        site = block("nginx", "proxy_pass").replace(":8000", f":{server.port}")
        with nginx(site.replace("/srv/echo", str(folder)), tmp_path) as port:
            yield port, environment


def test_many_processes_are_one_behind_nginx(many: tuple[int, dict[str, str]]) -> None:
    port, environment = many
    commands = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block("console", "echo_counts"), re.M)

    with Client.opened(port, "lobby") as client:
        for command, output in commands:
            assert run(command, **environment) == output

        assert client.text() == "Back in five minutes"
        assert client.closing() == (4000, "The lobby is closed")


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
    html = Template(block("html", "connection_count")).render(Context())

    assert ">0<" in html


def test_objects_tell_their_counts() -> None:
    for _ in range(3):
        asyncio.run(get_state().join("lobby"))
    try:
        lines = block("python", "connected_objects()").strip().splitlines()
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


def test_consumer_overrides_one_function() -> None:
    names: dict[str, type] = {}
    exec(block("python", "ShoutConsumer"), names)

    assert names["ShoutConsumer"]().reply("tea") == "TEA"


def test_settings_table_lists_all_with_their_defaults() -> None:
    rows = re.findall(r"^\| `(ECHO_\w+)` \| `(.*?)` \|", README, re.M)

    assert [name for name, _ in rows] == list(NAMES)
    defaults = [eval(default) for _, default in rows]
    assert [frozenset(value) if isinstance(value, list) else value for value in defaults] == [
        getattr(conf, name) for name in NAMES
    ]


def test_test_command_is_the_one_that_ci_runs() -> None:
    install, test = block("sh", "pytest").strip().split(" && ")
    assert block("text", "counted(app)")
    assert block("sh", "sphinx-build").strip() in (ROOT / ".ci" / "run").read_text().splitlines()

    steps = (ROOT / ".ci" / "run").read_text()
    assert install.removeprefix("pip install ") in steps
    assert test in steps
