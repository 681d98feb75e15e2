"""Every block of code in the README is run, as it stands there."""

import asyncio
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.template import Context, Template

from echo.conf import NAMES, conf
from echo.objects import NamedObject
from echo.state import get_state
from tests.raw import UPGRADE, Client
from tests.readme import BLOCKS, README, block, make_site, run, seen
from tests.servers import ROOT, Server, free_port
from tests.waiting import eventually


@pytest.fixture(scope="module", autouse=True)
def all_blocks_are_tested() -> Iterator[None]:
    yield
    if len(seen) > 1:  # all were run, not one of them
        assert not [b for b in BLOCKS if b not in seen]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The demo in a folder of its own, started by the README's commands."""
    folder = tmp_path_factory.mktemp("demo")
    for part in ("manage.py", "project", "echo"):
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        copy(ROOT / part, folder / part)
    install, migrate, runserver = block("sh", "runserver").strip().split(" && ")
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
    first = block("python", "CountFirst") + "\nfrom chat"
    asgi.write_text(asgi.read_text().replace("\nfrom chat", first))
    return tmp_path, {"PYTHONPATH": str(ROOT), "DJANGO_SETTINGS_MODULE": "mysite.settings"}


def test_existing_site_counts_its_own_consumers(existing_site: tuple[Path, dict[str, str]]) -> None:
    folder, environment = existing_site

    with Server("daphne", "mysite.asgi:application", folder=folder, **environment) as server:
        client = Client(server.port)
        answer = client.ask("/chat/lobby/", UPGRADE)
        healthy = server.get("/operations/health")
        one = server.get("/connections/lobby/getCurrentConnections", Accept="application/json")
        client.reset()

        assert answer.status_line == "HTTP/1.1 101 Switching Protocols"
        assert healthy[2] == '{"status": "ok", "state": "process"}'
        assert one[2] == '{"name": "lobby", "connections": 1}'
        eventually(lambda: "0" in server.get("/connections/lobby/getCurrentConnections")[2], True)


def test_tests_of_an_existing_site_have_connections(
    existing_site: tuple[Path, dict[str, str]],
) -> None:
    folder, environment = existing_site
    (folder / "conftest.py").write_text(block("python", "pytest_plugins"))
    (folder / "chat" / "test_consumers.py").write_text(block("python", "assert_count"))

    told = run("python -m pytest -q -p no:asyncio -p no:cacheprovider", folder, **environment)

    assert told.splitlines()[-1].startswith("1 passed")


@pytest.fixture
def many(redis_url: str, tmp_path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """The port of nginx in front of four processes, and their environment, as in the README."""
    if not shutil.which("nginx"):
        missing = pytest.fail if os.environ.get("CI") else pytest.skip
        missing("nginx is not on PATH: the README's example with nginx is not run.")
    setting, command = block("sh", "--workers 4").strip().split(" ", 1)
    assert setting.startswith("ECHO_STATE_URL=redis://")
    assert command == (
        "uvicorn --ws echo.server.uvicorn:WebSocketProtocol --workers 4 project.asgi:application"
    )
    environment = {"ECHO_STATE_URL": redis_url}
    with Server("uvicorn", options=("--workers", "4"), **environment) as server:
        port = free_port()
        site = block("nginx", "proxy_pass").replace(":8080", f":{port}")
        site = site.replace(":8000", f":{server.port}")
        (tmp_path / "nginx.conf").write_text(
            f"daemon off; pid {tmp_path}/pid; error_log stderr; events {{}}\n"
            f"http {{ access_log off; {site} }}"
        )
        with proxy(tmp_path / "nginx.conf"):
            eventually(lambda: is_listening(port), True)
            yield port, environment


@contextmanager
def proxy(config: Path) -> Iterator[None]:
    nginx = subprocess.Popen(["nginx", "-p", config.parent, "-c", config, "-e", "stderr"])
    try:
        yield
    finally:
        nginx.terminate()
        nginx.wait()


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_many_processes_are_one_behind_nginx(many: tuple[int, dict[str, str]]) -> None:
    port, environment = many
    commands = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block("console", "echo_counts"), re.M)

    with Client.opened(port, "lobby") as client:
        for command, output in commands:
            assert run(command, **environment) == output

        assert client.text() == "Back in five minutes"
        assert client.closing() == (4000, "The lobby is closed")


def test_template_tag_shows_the_count() -> None:
    html = Template(block("html", "connection_count")).render(Context())

    assert ">0</output>" in html


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
