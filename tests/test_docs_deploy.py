"""The files of docs/howto/deploy.md: each is used as it stands there, or checked."""

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from configparser import ConfigParser
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from django.urls import resolve
from django.utils.module_loading import import_string
from pytest_django import Settings

from tests import readme
from tests.nginx import nginx
from tests.raw import UPGRADE, Client
from tests.readme import BLOCKS, block, run
from tests.servers import ENVIRONMENT, ROOT, SITE, Server
from tests.waiting import DEADLINE, SECOND, eventually

PAGE = "docs/howto/deploy.md"
EXIT_TIMEOUT = 5  # seconds after the drain, as the page says
RESTART = (1012, "Service Restart")
AS_DESCRIPTOR_3 = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.fixture(scope="module", autouse=True)
def all_blocks_are_tested(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    assert readme.missing(request, [PAGE]) == []


def drain_of(command: str) -> int:
    return int(re.search(r"--drain (\d+)", command)[1])


def assert_options_exist(arguments: str) -> None:
    shown = run("python -m echo.server --help")
    assert [o for o in re.findall(r"(?<= )--?\w+", f" {arguments}") if f"{o} " not in shown] == []


def test_commands_start_the_server_with_options_that_exist() -> None:
    start = block("sh", "python -m echo.server --drain", PAGE)
    unit = block("ini", "-p %i", PAGE)

    for command in (start, unit):
        assert_options_exist(command.split(" -m echo.server ")[1])
    assert drain_of(start) == 30


class Deployed:
    """Processes behind nginx, whose requests a thread repeats, each on a connection of its own."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.results: dict[str, int] = {}  # the number of each result
        self._is_ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Deployed":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._is_ended.set()
        self._thread.join()

    def wait_for_more(self, number: int = 20) -> None:
        end = sum(self.results.values()) + number
        eventually(lambda: sum(self.results.values()) >= end, True)

    def _run(self) -> None:
        while not self._is_ended.is_set():
            for path, headers in (("/foo/websocket", UPGRADE), ("/getCurrentConnections", {})):
                try:
                    with Client(self.port) as client:
                        result = client.ask(path, headers).status_line.split(" ", 1)[1]
                        if headers:
                            client.reset()
                except (OSError, AssertionError) as error:
                    result = repr(error)
                self.results[result] = self.results.get(result, 0) + 1


ALL_WELL = {"101 Switching Protocols", "200 OK"}


def test_clients_of_nginx_do_not_notice_a_process_that_drains_and_exits(tmp_path: Path) -> None:
    drain = ("--drain", str(SECOND / 2))
    with Server("daphne", options=drain) as first, Server("daphne", options=drain) as second:
        site = block("nginx", "proxy_http_version", PAGE)
        site = site.replace(":8001", f":{first.port}").replace(":8002", f":{second.port}")
        with nginx(site, tmp_path) as port, Deployed(port) as deployed:
            clients = [Client.opened(port) for _ in range(10)]
            deployed.wait_for_more()
            first.process.terminate()
            while first.process.poll() is None:
                deployed.wait_for_more(1)
            deployed.wait_for_more()
            ended, _, _ = select.select([client.socket for client in clients], [], [], 0)
            closed = [client.closing() for client in clients if client.socket in ended]
            others = [client for client in clients if client.socket not in ended]
            for client in others:
                client.send_text("still open")
            echoes = [client.text() for client in others]
            for client in clients:
                client.socket.close()

    assert set(deployed.results) == ALL_WELL
    assert set(closed) == {RESTART}
    assert set(echoes) == {"[Durable Object]: still open"}


def unit() -> ConfigParser:
    found = ConfigParser(interpolation=None)
    found.optionxform = str  # type: ignore[assignment,method-assign]
    found.read_string(block("ini", "Sockets=", PAGE))
    return found


@contextmanager
def started(listening: socket.socket, log: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Start the process of the unit as systemd does, with the socket as its descriptor 3."""
    command = unit()["Service"]["ExecStart"]
    command = command.replace("/srv/mysite/venv/bin/python", sys.executable)
    command = command.replace("mysite.asgi:application", SITE)
    command = re.sub(r"--drain \d+", f"--drain {SECOND / 2}", command)
    number = listening.fileno()
    process = subprocess.Popen(
        [sys.executable, "-c", AS_DESCRIPTOR_3, str(number), *command.split()],
        cwd=ROOT,
        env={**os.environ, **ENVIRONMENT},
        pass_fds=[number],
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_no_connection_is_refused_while_processes_with_one_socket_are_replaced() -> None:
    def has_started(process: subprocess.Popen[bytes], number: int) -> bool:
        text = os.pread(log.fileno(), 1 << 20, 0).decode()
        assert process.poll() is None, text
        return text.count("Listening on TCP address") == number

    with (
        tempfile.TemporaryFile() as log,
        socket.create_server(("127.0.0.1", 0), backlog=4096) as listening,
        started(listening, log) as first,
    ):
        port = listening.getsockname()[1]
        with Deployed(port) as deployed:  # its first connection waits for the first process
            eventually(lambda: has_started(first, 1), True)
            client = Client.opened(port)
            # One replaces the other: the second accepts what comes while the first drains.
            with started(listening, log) as second:
                eventually(lambda: has_started(second, 2), True)
                first.send_signal(signal.SIGTERM)
                assert client.closing() == RESTART
                client.socket.close()
                assert first.wait(DEADLINE) == 0
                deployed.wait_for_more()
                # One after the other: connections wait until the next process has started.
                client = Client.opened(port)
                second.send_signal(signal.SIGTERM)
                assert client.closing() == RESTART
                client.socket.close()
                assert second.wait(DEADLINE) == 0
            with started(listening, log):
                deployed.wait_for_more()
                deployed.stop()

    # A connection that is accepted right before a SIGTERM, but whose handshake is read after it.
    assert deployed.results.pop("503 Service Unavailable", 0) <= 2
    assert set(deployed.results) == ALL_WELL


def test_systemd_gives_the_process_the_socket_and_the_time_to_drain() -> None:
    opened = ConfigParser()
    opened.read_string(block("ini", "ListenStream", PAGE))
    service = unit()["Service"]
    program, arguments = service["ExecStart"].split(" -m echo.server ")
    first, deploy = block("sh", "systemctl", PAGE).splitlines()

    assert opened["Socket"]["Service"] == "mysite@1.service"
    assert service["Sockets"] == unit()["Unit"]["Requires"] == "mysite.socket"
    assert program == "/srv/mysite/venv/bin/python"
    assert_options_exist(arguments)
    assert int(service["TimeoutStopSec"]) > drain_of(arguments) + EXIT_TIMEOUT
    assert first.startswith("systemctl enable --now mysite.socket mysite@1 mysite@2 ")
    assert deploy.startswith("systemctl restart mysite@1 && systemctl restart mysite@2 ")


def test_systemd_passes_variables_that_the_settings_read() -> None:
    lines = block("ini", "# /etc/mysite.env", PAGE).splitlines()[1:]
    variables = {line.split("=")[0] for line in lines} - {"DJANGO_SETTINGS_MODULE"}
    block("python", "ECHO_STATE_URL = ", PAGE)  # the tutorial's settings have the same line
    [settings] = [
        b.code for b in BLOCKS if "INSTALLED_APPS" in b.code and b.page.startswith("docs/tutorial/")
    ]

    assert [name for name in variables if f'"{name}"' not in settings] == []


def test_kubernetes_asks_the_health_view_and_leaves_time_to_drain(settings: Settings) -> None:
    settings.ROOT_URLCONF = "tests.sites.operations_urls"
    deployment, service = yaml.safe_load_all(block("yaml", "readinessProbe", PAGE))
    template = deployment["spec"]["template"]
    [container] = template["spec"]["containers"]
    command = " ".join(container["command"])
    [port] = container["ports"]
    probe = container["readinessProbe"]["httpGet"]

    assert deployment["spec"]["selector"]["matchLabels"] == template["metadata"]["labels"]
    assert service["spec"]["selector"] == template["metadata"]["labels"]
    assert [each["targetPort"] for each in service["spec"]["ports"]] == [port["name"]]
    assert f" -p {port['containerPort']} " in command
    assert command.startswith("python -m echo.server ")
    assert_options_exist(command)
    assert probe["port"] == port["name"]
    assert resolve(probe["path"]).view_name == "echo_operations:health"
    assert [header["name"] for header in probe["httpHeaders"]] == ["Host"]
    assert "livenessProbe" not in json.dumps(deployment)
    grace = template["spec"]["terminationGracePeriodSeconds"]
    assert grace > drain_of(command) + EXIT_TIMEOUT
    # Unless another pod is ready, none drains.
    assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_worker_of_gunicorn_has_the_transport_and_time_to_drain(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    package = ModuleType("uvicorn_worker")  # CI does not install it
    package.UvicornWorker = type("UvicornWorker", (), {"CONFIG_KWARGS": {"loop": "auto"}})
    monkeypatch.setitem(sys.modules, "uvicorn_worker", package)
    names: dict[str, Any] = {"__name__": "mysite.worker"}
    exec(block("python", "uvicorn_worker", PAGE), names)
    command = block("sh", "gunicorn", PAGE)

    assert re.search(r"-k (\S+)", command)[1] == f"mysite.worker.{names['EchoWorker'].__name__}"
    assert int(re.search(r"--graceful-timeout (\d+)", command)[1]) > 30 + EXIT_TIMEOUT
    kwargs = names["EchoWorker"].CONFIG_KWARGS
    assert (kwargs["loop"], import_string(kwargs["ws"].replace(":", ".")).__name__) == (
        "auto",
        "WebSocketProtocol",
    )
