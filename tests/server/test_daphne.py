"""Daphne's command line and `runserver`, with this package's connections."""

import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis

from echo.state.redis import scripts
from tests.raw import CLOSE, TEXT, UPGRADE, Client, close_payload, frame, listens, request
from tests.servers import ROOT, Server, free_port
from tests.waiting import DEADLINE, eventually

REASON = "Durable Object is closing WebSocket"


def closed(client: Client) -> tuple[int | None, str]:
    """Return the close reply, which has a reason only from this package's connections."""
    client.send(frame(CLOSE, close_payload(4000)))
    return client.closing()


def greeted(client: Client) -> str:
    """Send a handshake on the connection, however it was made, and return an echo."""
    client.send(request("/foo/websocket", UPGRADE))
    assert client.answer().status_line.startswith("HTTP/1.1 101")
    client.send_text("hello")
    return client.text()


def test_command_line_has_daphnes_options() -> None:
    def options(module: str) -> set[str]:
        command = [sys.executable, "-m", module, "--help"]
        shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        return {word.strip("[],") for word in shown.stdout.split() if "--" in word}

    assert options("daphne") <= options("echo.server")


def test_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with Server("daphne", options=("--unix-socket", path)) as server:
        eventually(lambda: listens(socket.AF_UNIX, path), True)  # bound after the port
        with Client.connected(socket.AF_UNIX, path) as client:
            assert greeted(client) == "[Durable Object]: hello"
            assert server.count() == 1
            assert closed(client) == (4000, REASON)


def test_hundreds_of_connections_wait_to_be_accepted() -> None:
    with Server("daphne") as server, ExitStack() as stack:
        server.process.send_signal(signal.SIGSTOP)
        try:
            for _ in range(300):
                address = ("127.0.0.1", server.port)
                stack.enter_context(socket.create_connection(address, timeout=0.5))
        finally:
            server.process.send_signal(signal.SIGCONT)


def test_file_descriptor() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        number = listener.fileno()
        command = [sys.executable, "-m", "echo.server", "--fd", str(number)]
        server = subprocess.Popen(
            [*command, "project.asgi:application"],
            cwd=ROOT,
            pass_fds=[number],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            with Client.connected(socket.AF_INET, listener.getsockname()) as client:
                assert greeted(client) == "[Durable Object]: hello"
                assert closed(client) == (4000, REASON)
        finally:
            server.terminate()
            assert server.wait(DEADLINE) == 0


@pytest.fixture(scope="module")
def tls_server() -> Iterator[Server]:
    with Server("daphne-tls", "tests.sites.transport:application") as server:
        yield server


def open_echo(server: Server) -> Client:
    return Client.opened(server.port, path="/echo/foo/websocket")


def count(server: Server) -> str:
    return server.get("/count/foo")[2]


def test_tls_endpoint_has_this_transport(tls_server: Server) -> None:
    with open_echo(tls_server) as client:
        client.send_text("x" * 100_000)

        assert client.text() == "[Durable Object]: " + "x" * 100_000
        assert count(tls_server) == "1"
        assert closed(client) == (4000, REASON)
        assert count(tls_server) == "0"
        assert client.at_end()
        assert client.socket.is_shut_down  # by `close_notify`: nothing is missing
    assert "served by Daphne" not in tls_server.log()


def test_scope_of_a_tls_endpoint_has_the_scheme_wss(tls_server: Server) -> None:
    origin = f"https://127.0.0.1:{tls_server.port}"

    with Client.opened(tls_server.port, Origin=origin):  # compared with the scheme of the scope
        pass


def test_handshake_behind_another_request_is_accepted_over_tls(tls_server: Server) -> None:
    with Client(tls_server.port) as client:
        client.send(request("/count/foo", {}) + request("/echo/foo/websocket", UPGRADE))
        assert client.answer().status_line == "HTTP/1.1 200 OK"
        while b"HTTP/1.1 101" not in client.buffer:
            client.buffer += client.socket.recv(1000)
        client.buffer = client.buffer[client.buffer.index(b"HTTP/1.1 101") :]
        client.answer()
        client.send_text("hello")

        assert client.text() == "[Durable Object]: hello"


@pytest.mark.parametrize("end", ["close_notify", "FIN"])
def test_replies_reach_a_client_that_has_shut_its_side_of_tls_down(tls_server, end: str) -> None:
    with open_echo(tls_server) as client:
        client.send(frame(TEXT, b"x" * 1000) * 100)
        if end == "close_notify":
            client.socket.shut_down()
        client.socket.shutdown(socket.SHUT_WR)

        assert [client.text() for _ in range(100)] == ["[Durable Object]: " + "x" * 1000] * 100
        assert client.at_end()
    eventually(lambda: count(tls_server), "0")


def test_invalid_record_ends_the_connection(tls_server: Server) -> None:
    with open_echo(tls_server) as client:
        client.send_text("hello")
        assert client.text() == "[Durable Object]: hello"
        client.socket.send_unencrypted(b"\x17\x03\x03\x00\x20" + b"x" * 32)

        with pytest.raises(ssl.SSLError, match="alert"):
            client.frame()
    eventually(lambda: count(tls_server), "0")
    assert "Traceback" not in tls_server.log()


@pytest.mark.parametrize("kind", ["tcp", "ssl"])
def test_endpoint_with_the_proxy_protocol(kind: str, certificate: tuple[Path, Path]) -> None:
    port = free_port()
    endpoint = f"haproxy:tcp:{port}:interface=127.0.0.1"
    if kind == "ssl":
        endpoint = tls_endpoint("haproxy:", port, certificate)
    with Server("daphne", options=("--endpoint", endpoint)) as server:
        with over_tls(port, certificate) if kind == "ssl" else Client(port) as client:
            client.send(b"PROXY TCP4 10.0.0.1 10.0.0.2 1000 2000\r\n")
            assert greeted(client) == "[Durable Object]: hello"
            assert server.count() == 1
            assert closed(client) == (4000, REASON)
            assert server.count() == 0
        assert "10.0.0.1:1000 - - " in server.log()


def tls_endpoint(prefix: str, port: int, certificate: tuple[Path, Path]) -> str:
    files = f"privateKey={certificate[1]}:certKey={certificate[0]}"
    return f"{prefix}ssl:{port}:{files}:interface=127.0.0.1"


def over_tls(port: int, certificate: tuple[Path, Path]) -> Client:
    eventually(lambda: listens(socket.AF_INET, ("127.0.0.1", port)), True)
    client = Client.connected(socket.AF_INET, ("127.0.0.1", port))
    context = ssl.create_default_context(cafile=str(certificate[0]))
    context.check_hostname = False
    client.socket = context.wrap_socket(client.socket)
    return client


@pytest.mark.parametrize("kind", ["runserver", "runserver with autoreload"])
def test_runserver_has_this_transport_and_static_files(kind: str) -> None:
    with Server(kind) as server:
        with Client.opened(server.port) as client:
            assert server.count() == 1
            assert closed(client) == (4000, REASON)
        assert server.get("/static/admin/css/base.css")[0] == 200
        interrupt(server)

        assert server.process.wait(DEADLINE) == 0
        assert "Traceback" not in server.log()


def interrupt(server: Server) -> None:
    """Press Ctrl-C: the terminal signals the whole process group."""
    os.killpg(server.process.pid, signal.SIGINT)


def test_runserver_without_autoreload_closes_its_clients() -> None:
    with Server("runserver") as server, Client.opened(server.port) as client:
        interrupt(server)

        assert client.closing() == (1012, "Service Restart")


@pytest.mark.slow
def test_runserver_restarts_when_a_file_changes(tmp_path: Path) -> None:
    for folder in ("echo", "project"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    shutil.copy(ROOT / "manage.py", tmp_path)
    with Server("runserver with autoreload", folder=tmp_path) as server:
        with Client.opened(server.port) as client:
            eventually(lambda: "Watching for file changes" in server.log(), True)
            client.socket.settimeout(0.5)
            eventually(lambda: changed(tmp_path / "project" / "urls.py", client), True)
        eventually(lambda: server.log().count("Starting ASGI/Daphne"), 2)
        eventually(lambda: listens(socket.AF_INET, ("127.0.0.1", server.port)), True)

        assert server.count() == 0
        with Client.opened(server.port) as client:
            assert closed(client) == (4000, REASON)
        interrupt(server)
        assert server.process.wait(DEADLINE) == 0


def changed(file: Path, client: Client) -> bool:
    """Change the file again and again: Django ignores changes before its first poll."""
    file.touch()
    try:
        return client.at_end()
    except TimeoutError:
        return False


def test_processes_share_a_port_by_its_file_descriptor(redis_url: str) -> None:
    """As when systemd passes one socket to several services."""
    command = [sys.executable, "-m", "echo.server", "--fd", "{}", "project.asgi:application"]
    env = {**os.environ, "ECHO_STATE_URL": redis_url}
    with socket.socket() as listening, ExitStack() as stack:
        listening.bind(("127.0.0.1", 0))
        listening.listen(100)
        port, fd = listening.getsockname()[1], listening.fileno()
        processes = []
        for _ in range(2):
            process = subprocess.Popen(
                [part.format(fd) for part in command],
                cwd=ROOT,
                env=env,
                pass_fds=[fd],
                stderr=subprocess.DEVNULL,
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            processes.append(process)
        clients: list[Client] = []
        while len(counts_of_processes(redis_url)) < 2:  # the second may still be starting
            assert len(clients) < 500
            time.sleep(0.05)
            clients.append(stack.enter_context(Client.opened(port)))
        assert sum(counts_of_processes(redis_url)) == len(clients)

        for process in processes:
            process.terminate()
        assert [client.closing()[0] for client in clients] == [1012] * len(clients)
        for client in clients:
            client.socket.close()
        assert [process.wait(DEADLINE) for process in processes] == [0, 0]


def counts_of_processes(url: str) -> list[int]:
    """Return the counts of the processes that have connections."""
    with redis.Redis.from_url(url) as client:
        shares = client.keys(f"{scripts.SHARE}*")
        return [int(count) for share in shares if (count := client.hget(share, "foo"))]
