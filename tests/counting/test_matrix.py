"""`counted` changes nothing about a consumer but that it is counted, whatever the layer and server.

Each cell runs one script twice on one server: with the consumer plain, and counted. What the
client sees and what the server logs must be the same, and the count exact at each moment.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from echo.testing import ClientWebSocket
from tests.redis_server import RedisServer
from tests.servers import ROOT, Server
from tests.waiting import SECOND, eventually

LAYERS = ["in-memory", "core", "pubsub", "none"]
SERVERS = ["daphne", "uvicorn", "stock-daphne", "stock-uvicorn"]
OURS = ["daphne", "uvicorn"]

SITE = "tests.sites.matrix:application"
COUNT = "/anything/getCurrentConnections"
SETTINGS = {"DJANGO_SETTINGS_MODULE": "tests.sites.matrix_settings", "PYTHONWARNINGS": "error"}

SOON = SECOND  # within which a message comes if nothing is wrong
LATE = 7 * SECOND  # more than the 5 s after which channels_redis looks again
STOCK = 2 * SECOND  # within which the end is known on servers that are not ours

EXCEPTION = re.compile(r"^(?:\w+\.)*(\w*(?:Error|Exception|Warning|Disconnected)(?::.*)?)$", re.M)
NEVER = re.compile(r"never (?:retrieved|awaited)|destroyed but it is pending|Unclosed|unclosed")


class Rejected(Exception):
    """A handshake was rejected: the rest of the script cannot be."""


class Run:
    """One run of a script: it notes what the client sees, and reads the count."""

    def __init__(self, server: Server, consumer: str, kind: str) -> None:
        self.server = server
        self.is_counted = kind == "counted"
        self.room = f"{consumer}-{kind}-{server.kind}"
        self.url = f"ws://127.0.0.1:{server.port}/{consumer}/{kind}/{self.room}/"
        self.seen: list[str] = []
        self.counts: list[tuple[int, int]] = []  # found, expected
        self.sockets = ExitStack()

    def connect(self, who: str, *subprotocols: str) -> "Socket":
        try:
            connection = ClientWebSocket(self.url, subprotocols=subprotocols)
        except InvalidStatus as error:
            self.seen.append(f"{who} is rejected with {error.response.status_code}")
            raise Rejected from None
        self.seen.append(f"{who} is connected, subprotocol {connection.subprotocol}")
        socket = Socket(self, who, connection)
        self.sockets.callback(socket.vanish)
        return socket

    def count(self, expected: int) -> None:
        """Note how many are counted now; of a server that is not ours, within STOCK."""
        if not self.is_counted:
            expected = 0
        end = time.monotonic() + (0 if self.server.kind in OURS else STOCK)
        while (count := self.server.count(self.room)) != expected and time.monotonic() < end:
            time.sleep(0.01)
        self.counts.append((count, expected))


class Socket:
    """One of the client's WebSockets: what comes on it is seen."""

    def __init__(self, run: Run, who: str, connection: ClientWebSocket) -> None:
        self.who = who
        self.connection = connection
        self._run = run

    def see(self, what: str) -> None:
        self._run.seen.append(f"{self.who} {what}")

    def send(self, *messages: str | bytes) -> None:
        for message in messages:
            self.connection.send(message)

    def ask(self, message: str) -> str:
        """Send, and return the next message, which is not seen."""
        self.send(message)
        return str(self.connection.recv(LATE))

    def say(self, message: str) -> None:
        self.send(json.dumps({"message": message}))

    def receive(self, messages: int = 1) -> None:
        """See the next messages, or the end of the connection."""
        for _ in range(messages):
            began = time.monotonic()
            try:
                message = self.connection.recv(LATE)
            except TimeoutError:
                self.see("receives nothing")
                continue
            except ConnectionClosed:
                self.see(f"is closed with {self.connection.close_code} {self._reason!r}")
                return
            when = "soon" if time.monotonic() - began < SOON else "late"
            shown = message if len(message) < 200 else f"{len(message)}: {message[:9]!r}"
            self.see(f"receives {when}: {shown!r}")

    def close(self, code: int, reason: str = "") -> None:
        began = time.monotonic()
        self.connection.close(code, reason)
        when = "soon" if time.monotonic() - began < SOON else "late"
        self.see(f"has {when} closed, and is told {self.connection.close_code} {self._reason!r}")

    def vanish(self) -> None:
        if self.connection.close_code is None:  # a script has failed
            self.connection.vanish()

    @property
    def _reason(self) -> str:
        return self.connection.close_reason or ""


def groups(run: Run) -> None:
    ada, bob = run.connect("ada"), run.connect("bob")
    run.count(2)
    for number in range(4):
        ada.say(f"message {number}")
        ada.receive()
        bob.receive()
    for number in range(4, 8):
        bob.say(f"message {number}")
    ada.receive(4)
    bob.receive(4)
    bob.close(4000, "bob leaves")
    ada.receive()
    run.count(1)
    ada.close(1000)


def sync(run: Run) -> None:
    ada, bob = run.connect("ada"), run.connect("bob")
    run.count(2)
    for number in range(3):
        ada.say(f"message {number}")
        ada.receive()
        bob.receive()
    bob.close(1001)
    run.count(1)
    ada.say("alone")
    ada.receive()
    ada.close(1000)


def database(run: Run) -> None:
    ada = run.connect("ada")
    ada.receive()
    bob = run.connect("bob")
    bob.receive()
    run.count(2)
    for number in range(2):
        ada.send(json.dumps({"name": f"ada's {number}"}))
        ada.receive()
    bob.send(json.dumps({"name": "bob's"}))
    bob.receive()
    bob.close(4000, "bob leaves")
    run.count(1)
    # A server may reply to bob's Close before his disconnect() has run.
    eventually(lambda: ada.ask("{}").count("left with 4000"), 1)
    ada.send(json.dumps({"name": "last"}))
    ada.receive()
    ada.close(1000)


def blocking(run: Run) -> None:
    ada, bob = run.connect("ada"), run.connect("bob")
    run.count(2)
    ada.send("be busy", "one", "two")
    bob.send("three")
    bob.receive()
    ada.receive(3)
    bob.close(1000)
    run.count(1)
    ada.send("be busy")
    ada.close(4000)


def raising(run: Run) -> None:
    ada, bob = run.connect("ada"), run.connect("bob")
    run.count(2)
    ada.send("21")
    ada.receive()
    ada.send("forty-two")
    ada.receive()
    run.count(1)
    bob.close(4000)
    run.count(0)
    eve = run.connect("eve")
    eve.send("0")
    eve.receive()
    run.count(0)


def subprotocol(run: Run) -> None:
    ada, bob = run.connect("ada", "chat.v1", "chat.v2"), run.connect("bob", "chat.v2")
    run.count(2)
    ada.send("hello", "bye")
    ada.receive(3)
    run.count(1)
    bob.send("hello")
    bob.receive()
    bob.close(1000)
    run.connect("eve", "chat.v1")


def binary(run: Run) -> None:
    ada, bob = run.connect("ada"), run.connect("bob")
    ada.receive()
    bob.receive()
    run.count(2)
    ada.send(b"\x00\x01\x02", "text", bytes(range(256)) * 400)
    bob.send(b"\xff")
    ada.receive(3)
    bob.receive()
    ada.close(1000)
    run.count(1)
    bob.close(3000)


SCRIPTS: dict[str, Callable[[Run], None]] = {
    "groups": groups,
    "sync": sync,
    "database": database,
    "blocking": blocking,
    "raising": raising,
    "subprotocol": subprotocol,
    "binary": binary,
}


class Outcome(NamedTuple):
    """What must be the same for a consumer plain and counted."""

    seen: list[str]
    raised: list[str]  # out of the application, into the server
    logged: list[str]  # of exceptions and warnings


def play(server: Server, consumer: str, kind: str) -> Outcome:
    """Run the consumer's script, with the count exact before, in and after it."""
    run = Run(server, consumer, kind)
    known, start = len(ended(server)[1]), len(server.log())
    with run.sockets:
        run.count(0)
        with suppress(Rejected):
            SCRIPTS[consumer](run)
        run.count(0)
    eventually(lambda: ended(server)[0], 0)
    assert [count for count, _ in run.counts] == [expected for _, expected in run.counts]
    return Outcome(run.seen, sorted(ended(server)[1][known:]), logged(server, start))


def ended(server: Server) -> tuple[int, list[str]]:
    """Return how many applications are running, and what the others have raised."""
    running, raised = json.loads(server.get("/ended")[2])
    return running, ["a send after a Close" if is_late(each) else each for each in raised]


def is_late(exception: str) -> bool:
    """Return whether stock uvicorn raised it for a send after the application's own Close.

    Which of the two it is depends on whether the client has gone by then; only one is logged.
    """
    return "ClientDisconnected" in exception or "after sending 'websocket.close'" in exception


def logged(server: Server, start: int) -> list[str]:
    """Return the exceptions and warnings in the log from there on."""
    found = sorted(name for name in EXCEPTION.findall(server.log()[start:]) if not is_late(name))
    if server.kind == "stock-daphne":
        # It looks once a second what has been raised, and never at connections that are closed by
        # then: of these exceptions it may log any, or none.
        known = {name for each in ended(server)[1] for name in EXCEPTION.findall(each)}
        return [name for name in found if name not in known]
    return found


@pytest.fixture(scope="module")
def database_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with the tables, to copy from."""
    file = tmp_path_factory.mktemp("matrix") / "db.sqlite3"
    subprocess.run(
        [sys.executable, "manage.py", "migrate", "-v", "0"],
        cwd=ROOT,
        check=True,
        env={**os.environ, **SETTINGS, "MATRIX_LAYER": "none", "MATRIX_DATABASE": str(file)},
    )
    return file


@pytest.fixture(scope="module", params=LAYERS)
def servers(
    request: pytest.FixtureRequest, database_file: Path, redis_server: RedisServer
) -> Iterator[dict[str, Server]]:
    """The site with one channel layer, on each server; they start at the same time."""
    redis_server.flush()

    def start(number: int, kind: str) -> Server:
        file = shutil.copy(database_file, database_file.with_name(f"{request.param}-{kind}"))
        url = redis_server.url.removesuffix("/0") + f"/{number}"  # no server knows of another
        environment = {"MATRIX_LAYER": request.param, "MATRIX_DATABASE": str(file)}
        if request.param in ("core", "pubsub"):
            environment |= {"MATRIX_REDIS_URL": url, "ECHO_STATE_URL": url}
        return Server(kind, SITE, **SETTINGS, **environment)

    with ExitStack() as stack, ThreadPoolExecutor() as pool:
        started = {kind: pool.submit(start, number, kind) for number, kind in enumerate(SERVERS)}
        servers = {kind: stack.enter_context(each.result()) for kind, each in started.items()}
        for server in servers.values():  # Redis has just been emptied
            eventually(lambda server=server: server.get(COUNT)[0], 200)
        yield servers
        for kind, server in servers.items():
            assert not NEVER.findall(server.log()), (kind, server.log())


@pytest.mark.parametrize("kind", SERVERS)
@pytest.mark.parametrize("consumer", SCRIPTS)
def test_counted_consumer_behaves_as_plain(servers, consumer, kind):
    plain = play(servers[kind], consumer, "plain")
    counted = play(servers[kind], consumer, "counted")

    assert counted == plain
