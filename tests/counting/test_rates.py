"""Limits of rates: handshakes at a time, and messages per second."""

import asyncio
import time

import pytest

from echo import log
from echo.counting import counted, rates
from echo.counting.rates import get_admission
from echo.state import get_state
from echo.stats import process_stats
from tests.raw import TEXT, UPGRADE, Client, frame, request
from tests.servers import Server
from tests.waiting import DEADLINE, eventually

CONNECT = {"type": "websocket.connect"}
ACCEPT = {"type": "websocket.accept"}
DISCONNECT = {"type": "websocket.disconnect", "code": 1000}
CLOSE = {"type": "websocket.close", "code": 4000}


async def until(read, expected):
    await asyncio.to_thread(eventually, read, expected)


class Site:
    """An application whose handshakes proceed one by one: `go(number)`."""

    def __init__(self):
        self.began = []
        self.gates = {}
        self.tasks = {}
        self.sent = {}
        self.application = counted(self.serve)

    async def serve(self, scope, receive, send):
        number = scope["number"]
        await receive()
        self.began.append(number)
        event = await self.gates[number]
        if event is not None:
            await send(event)
        while (await receive())["type"] != "websocket.disconnect":
            pass

    def open(self, number, *later, **scope):
        self.gates[number] = asyncio.get_running_loop().create_future()
        events = asyncio.Queue()
        for event in (CONNECT, *later):
            events.put_nowait(event)
        self.sent[number] = []

        async def send(event):
            self.sent[number].append(event)

        scope = {
            "type": "websocket",
            "path": "/foo/",
            "number": number,
            "url_route": {"args": (), "kwargs": {"name": "foo"}},
            "extensions": {"websocket.http.response": {}},
            **scope,
        }
        self.tasks[number] = asyncio.create_task(self.application(scope, events.get, send))
        return events

    def go(self, number, event=ACCEPT):
        self.gates[number].set_result(event)

    async def end(self):
        for number, task in self.tasks.items():
            if not self.gates[number].done():
                self.gates[number].cancel()
            task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)


@pytest.fixture
async def opening(settings):
    settings.ECHO_MAX_HANDSHAKES_AT_ONCE = 2
    log._last.clear()
    site = Site()
    yield site
    await site.end()
    assert get_state().counts() == {}
    admission = get_admission()
    assert (admission._active, len(admission._waiting)) == (0, 0)


async def test_handshakes_over_the_limit_wait_in_order(opening):
    for number in range(6):
        opening.open(number)
    await until(lambda: opening.began, [0, 1])

    for number, begun in ((1, 2), (0, 3), (2, 4), (4, 5)):
        opening.go(number)
        await until(lambda begun=begun: opening.began[-1], begun)

    assert opening.began == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "event", [ACCEPT, CLOSE, {"type": "websocket.http.response.start", "status": 403}]
)
async def test_place_is_free_after_the_response(opening, event):
    for number in range(3):
        opening.open(number)
    await until(lambda: opening.began, [0, 1])

    opening.go(0, event)

    await until(lambda: opening.began, [0, 1, 2])


async def test_place_is_free_after_an_error(opening):
    for number in range(3):
        opening.open(number)
    await until(lambda: opening.began, [0, 1])

    opening.gates[0].set_exception(ZeroDivisionError())

    await until(lambda: opening.began, [0, 1, 2])
    with pytest.raises(ZeroDivisionError):
        await opening.tasks[0]


async def test_place_is_free_after_a_cancellation(opening):
    for number in range(3):
        opening.open(number)
    await until(lambda: opening.began, [0, 1])

    opening.tasks[1].cancel()

    await until(lambda: opening.began, [0, 1, 2])


async def test_place_is_free_after_a_disconnect_without_response(opening):
    for number in range(3):
        opening.open(number, DISCONNECT)
    await until(lambda: opening.began, [0, 1])

    opening.go(0, None)

    await until(lambda: opening.began, [0, 1, 2])


async def test_cancelled_handshake_gives_its_turn_to_the_next(opening):
    for number in range(5):
        opening.open(number)
    await until(lambda: opening.began, [0, 1])

    opening.tasks[2].cancel()  # while it waits
    await asyncio.sleep(0)
    opening.go(0)
    await until(lambda: opening.began, [0, 1, 3])
    opening.go(1)
    opening.tasks[4].cancel()  # maybe just when it is its turn

    await until(lambda: opening.tasks[4].done(), True)


async def test_handshake_that_is_cancelled_in_the_moment_of_its_turn_leaves_no_place(opening):
    for number in range(4):
        opening.open(number)
    await until(lambda: opening.began, [0, 1])

    get_admission().leave()  # it is the turn of 2, whose task has not run yet
    opening.tasks[2].cancel()
    await until(lambda: opening.began, [0, 1, 3])
    get_admission()._active += 1  # for the call above


async def test_handshake_that_waits_too_long_is_denied(opening, monkeypatch, caplog):
    monkeypatch.setattr(rates, "ADMISSION_TIMEOUT", 0.05)
    before = process_stats.rejections["busy"]
    for number in range(4):
        opening.open(number)

    await until(lambda: [len(opening.sent[number]) for number in (2, 3)], [2, 2])

    start, body = opening.sent[2]
    assert start["status"] == 503
    assert (b"retry-after", b"5") in start["headers"]
    assert body["body"] == b"The server is busy."
    assert process_stats.rejections["busy"] == before + 2
    assert "ECHO_MAX_HANDSHAKES_AT_ONCE" in caplog.text
    assert opening.began == [0, 1]
    opening.go(0)
    opening.open(4)
    await until(lambda: opening.began, [0, 1, 4])


async def test_server_without_denial_responses_closes_with_4503(opening, monkeypatch):
    monkeypatch.setattr(rates, "ADMISSION_TIMEOUT", 0.05)
    for number in range(3):
        opening.open(number, extensions={})

    await until(lambda: len(opening.sent[2]), 2)

    assert [event["type"] for event in opening.sent[2]] == ["websocket.accept", "websocket.close"]
    assert opening.sent[2][1]["code"] == 4503


async def test_open_connections_take_no_place(opening):
    for number in range(5):
        opening.open(number)
        opening.go(number)

    await until(lambda: get_state().count("foo"), 5)


async def test_thousands_of_handshakes_leave_nothing(opening):
    """Some are cancelled, some raise, and the others are accepted or closed."""
    for number in range(2000):
        opening.open(number, DISCONNECT)
        gate = opening.gates[number]
        if number % 5 == 0:
            gate.set_exception(ZeroDivisionError())
        else:
            gate.set_result(ACCEPT if number % 2 else CLOSE)
    for number in range(0, 2000, 7):
        opening.tasks[number].cancel()

    async with asyncio.timeout(DEADLINE):
        await asyncio.gather(*opening.tasks.values(), return_exceptions=True)

    assert opening.began == [number for number in range(2000) if number % 7]


async def test_without_limits_the_application_gets_what_the_server_gives():
    given = []

    async def application(scope, receive, send):
        given.append((receive, scope["extensions"]))
        await receive()

    async def receive():
        return CONNECT

    extensions = {"echo.reply": None, "echo.on_end": lambda callback: None}
    route = {"args": (), "kwargs": {"name": "foo"}}
    scope = {"type": "websocket", "path": "/", "url_route": route, "extensions": extensions}
    await counted(application)(scope, receive, None)

    assert given == [(receive, extensions)]


LIMIT = 20
ENVIRONMENT = {"DJANGO_SETTINGS_MODULE": "tests.sites.rates"}


@pytest.fixture(scope="module", params=["daphne", "uvicorn", "stock-daphne", "stock-uvicorn"])
def server(request):
    with Server(request.param, MAX_MESSAGES=str(LIMIT), **ENVIRONMENT) as server:
        yield server
        assert "Traceback" not in server.log()


def reason_of(server):
    return "" if server.kind == "stock-daphne" else f"More than {LIMIT} messages per second"


def closing_code(server):
    return 4008 if server.kind == "stock-daphne" else 1008


def test_one_message_too_many_in_a_second_closes_the_connection(server):
    with Client.opened(server.port) as client:
        client.send(b"".join(frame(TEXT, b"%d" % number) for number in range(LIMIT + 10)))

        replies = [client.text() for _ in range(LIMIT)]
        assert replies == [f"[Durable Object]: {number}" for number in range(LIMIT)]
        assert client.closing() == (closing_code(server), reason_of(server))
    eventually(server.count, 0)


def test_as_many_messages_as_the_limit_are_no_problem(server):
    with Client.opened(server.port) as client:
        for _second in range(3):
            began = time.monotonic()
            client.send(b"".join(frame(TEXT, b"hello") for _ in range(LIMIT)))
            assert [client.text() for _ in range(LIMIT)] == ["[Durable Object]: hello"] * LIMIT
            time.sleep(max(began + 1.1 - time.monotonic(), 0))

        assert server.count() == 1
    eventually(server.count, 0)


def test_count_is_exact_while_clients_are_closed(server):
    clients = [Client.opened(server.port) for _ in range(10)]
    for client in clients[:5]:
        client.send(b"".join(frame(TEXT, b"hello") for _ in range(3 * LIMIT)))
    for client in clients[:5]:
        for _ in range(LIMIT):
            client.text()
        client.closing()

    assert server.count() == 5
    for client in clients:
        client.socket.close()
    eventually(server.count, 0)


@pytest.mark.parametrize("kind", ["daphne", "uvicorn", "stock-daphne", "stock-uvicorn"])
def test_many_handshakes_at_once_are_all_accepted_one_after_the_other(kind):
    with Server(kind, MAX_HANDSHAKES="1", **ENVIRONMENT) as server:
        clients = [Client(server.port) for _ in range(200)]
        for client in clients:
            client.send(request("/foo/websocket", UPGRADE, port=server.port))

        assert {client.answer().status_line.split()[1] for client in clients} == {"101"}
        assert server.count() == 200
        for client in clients:
            client.socket.close()
        eventually(server.count, 0)


class Clock:
    """The time of `limited_receive`, and a queue of messages, each with its time of arrival."""

    def __init__(self, monkeypatch, limit):
        self.now = 1000.0
        self.queue = []
        self.closed = []
        monkeypatch.setattr(rates, "monotonic", lambda: self.now)
        self.receive = rates.MessageRate(limit, self).limited_receive(self._receive)

    def deliver(self, event):
        self.closed.append((event["code"], event["reason"]))

    async def _receive(self):
        if not self.queue:
            return DISCONNECT
        self.now = max(self.now, self.queue.pop(0))
        return {"type": "websocket.receive", "text": "hello"}

    async def received(self, busy=0.0):
        """Receive all; the application is busy for that many seconds after each message."""
        number = 0
        while (await self.receive())["type"] == "websocket.receive":
            number += 1
            self.now += busy
        return number


@pytest.mark.parametrize("arrivals", [[0.0] * 5, [0.1 * n for n in range(50)], [0.0, 5.0] * 5])
async def test_limit_is_within_a_second(monkeypatch, arrivals):
    clock = Clock(monkeypatch, 10)
    clock.queue = [clock.now + arrival for arrival in sorted(arrivals)]

    assert await clock.received() == len(arrivals)
    assert clock.closed == []


async def test_messages_that_queue_up_while_the_application_is_busy_are_no_flood(monkeypatch):
    clock = Clock(monkeypatch, 10)
    clock.queue = [1000.0, *(1000.0 + 0.2 * number for number in range(1, 51))]
    received = [await clock.receive()]
    clock.now += 10  # the application is busy, and the other 50 messages arrive

    assert await clock.received() + len(received) == 51
    assert clock.closed == []


async def test_flood_of_a_busy_application_is_closed(monkeypatch):
    clock = Clock(monkeypatch, 10)
    clock.queue = [1000.0] * 500

    assert await clock.received(busy=0.05) < 30
    assert clock.closed == [(1008, "More than 10 messages per second")]
