"""What hostile HTTP clients may cost: descriptors, memory, log lines, time of others."""

import os
import resource
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from tests.raw import Client, request
from tests.servers import Server
from tests.waiting import eventually

SITE = "tests.sites.transport:application"
KINDS = ["daphne", "uvicorn"]
MiB = 1 << 20
CHECKED = 1.0  # seconds between two rounds of the checker

both = pytest.mark.parametrize("kind", KINDS)


def descriptors(server: Server) -> int:
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, Server]]:
    with Server("daphne", SITE) as daphne, Server("uvicorn", SITE) as uvicorn:
        yield {"daphne": daphne, "uvicorn": uvicorn}


@pytest.fixture(params=KINDS)
def server(request: pytest.FixtureRequest, servers: dict[str, Server]) -> Server:
    return servers[request.param]


@pytest.fixture
def daphne(servers: dict[str, Server]) -> Server:
    return servers["daphne"]


# Requests that are followed at once by a TCP reset

GET = request("/count/foo", {})
POST = request("/size", {"Content-Length": "10"}, method="POST")
REQUESTS = {"whole": GET, "half": GET[:20], "without its body": POST, "empty": b""}


def reset_after(server: Server, data: bytes, times: int) -> None:
    for _ in range(times):
        client = Client(server.port)
        if data:
            client.send(data)
        client.reset()


@pytest.mark.parametrize("what", REQUESTS)
def test_request_and_reset_frees_its_descriptor(server: Server, what: str) -> None:
    server.get("/count/foo")
    before, log = descriptors(server), len(server.log())

    reset_after(server, REQUESTS[what], 100)

    eventually(lambda: descriptors(server) <= before + 3, True)
    assert "Traceback" not in server.log()[log:]
    assert server.get("/count/foo")[0] == 200


def test_many_resets_leave_a_server_that_accepts(daphne: Server) -> None:
    """More than the process may have descriptors."""
    before = descriptors(daphne)
    soft, hard = resource.prlimit(daphne.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(daphne.process.pid, resource.RLIMIT_NOFILE, (before + 100, hard))
    try:
        reset_after(daphne, GET, 500)
        eventually(lambda: descriptors(daphne) <= before + 3, True)
        assert daphne.get("/count/foo")[0] == 200
    finally:
        resource.prlimit(daphne.process.pid, resource.RLIMIT_NOFILE, (soft, hard))


# Applications that fail


def test_response_that_breaks_is_cut_off_and_logged_once(daphne: Server) -> None:
    """And is no obstacle to those that come after it."""
    before, log = descriptors(daphne), len(daphne.log())
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(daphne.port)) for _ in range(3)]
        for client in clients:
            client.send(request("/breaks", {}))

        assert [client.answer().status_line for client in clients] == ["HTTP/1.1 200 OK"] * 3
        for client in clients:
            assert not without_end(client).endswith(b"0\r\n\r\n")

        eventually(lambda: descriptors(daphne) <= before, True)
    time.sleep(2 * CHECKED)
    assert daphne.log()[log:].count("Traceback") == 3


def without_end(client: Client) -> bytes:
    """Return what comes until the connection is reset or closed."""
    with suppress(ConnectionResetError):
        while data := client.socket.recv(1000):
            client.buffer += data
    return client.buffer
