"""Metrics, health and the log line of each end."""

import asyncio
import logging
import os
import sys

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from echo import counting
from echo.counting import counted
from echo.operations import metrics
from echo.operations.metrics import LARGEST, EchoCollector
from echo.state import get_state
from echo.state.redis import writer
from echo.stats import OTHER, REASONS, ROOM, Tally
from tests.raw import CLOSE, UPGRADE, Client, close_payload, frame
from tests.servers import Server, free_port
from tests.waiting import eventually

PROCESS = str(os.getpid())
METRICS = "/operations/metrics"
TOKEN = {"Authorization": "Bearer token"}


@pytest.fixture
def tally(monkeypatch):
    fresh = Tally()
    for module in (counting, metrics, writer):
        monkeypatch.setattr(module, "tally", fresh)
    return fresh


@pytest.fixture
def operations(settings):
    settings.ROOT_URLCONF = "tests.sites.operations_urls"
    settings.ECHO_AUTHORIZE = "tests.sites.operations_urls.authorize"


@pytest.fixture
def away(settings):
    """Counts on a Redis that is not there."""
    settings.ECHO_STATE_URL = f"redis://127.0.0.1:{free_port()}/0"


def samples(text):
    """Return the values by name and labels, without the label `process`."""
    return {
        (s.name, *(v for k, v in sorted(s.labels.items()) if k != "process")): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }


def read():
    return samples(generate_latest(EchoCollector()).decode())


async def join(*names):
    for name in names:
        assert await get_state().join(name)


async def connect(app, *events, name="foo"):
    """Run the application, counted, with the events that its server has for it."""
    arriving = [{"type": "websocket.connect"}, *events]

    async def receive():
        return arriving.pop(0) if arriving else await asyncio.Event().wait()

    async def send(event):
        pass

    scope = {"type": "websocket", "path": "/", "url_route": {"kwargs": {"name": name}}}
    await counted(app)(scope, receive, send)


async def until_disconnect(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
        pass


def closing(*before, **code):
    async def app(scope, receive, send):
        await receive()
        for event in before:
            await send({"type": event})
        await send({"type": "websocket.close", **code})

    return app


async def raising(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    raise ZeroDivisionError


async def returning(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})


def test_without_connections_all_numbers_are_zero(tally):
    assert read() == {
        ("echo_state_up",): 1,
        ("echo_connections", ""): 0,
        ("echo_joins_total",): 0,
        ("echo_connected_seconds_total",): 0,
        ("echo_outages_total",): 0,
        ("echo_refusals_total", "host"): 0,
        ("echo_refusals_total", "origin"): 0,
        ("echo_refusals_total", "name"): 0,
        ("echo_refusals_total", "permission"): 0,
        ("echo_refusals_total", "full"): 0,
        ("echo_refusals_total", "application"): 0,
    }


async def test_hostile_names_stay_labels(tally):
    names = ['"} 7\\', "a\\n", "été\u2028x", 'x"} 1 # {', "{}"]
    await join(*names)

    counts = {key[1]: value for key, value in read().items() if key[0] == "echo_connections"}

    for name in names:
        get_state().leave(name)
    assert counts == {**dict.fromkeys(names, 1), "": 0}


async def test_beyond_the_largest_objects_is_one_sum(tally):
    names = [f"n{number:03}" for number in range(LARGEST + 20)]
    await join(*names, *names[:30])

    counts = {key[1]: value for key, value in read().items() if key[0] == "echo_connections"}

    for name in (*names, *names[:30]):
        get_state().leave(name)
    assert len(counts) == LARGEST + 1
    assert counts[""] == 20
    assert sum(counts.values()) == LARGEST + 50


async def test_names_used_once_do_not_make_more_series(tally):
    for number in range(5):
        names = [f"once-{number}-{one}" for one in range(LARGEST)]
        await join(*names)
        counts = {key[1]: value for key, value in read().items() if key[0] == "echo_connections"}
        for name in names:
            get_state().leave(name)
        assert sum(counts.values()) == LARGEST
        assert all(name in ("", *(f"once-0-{one}" for one in range(LARGEST))) for name in counts)


@pytest.mark.usefixtures("away")
def test_counts_that_cannot_be_known_are_not_given(tally):
    eventually(lambda: (read(), tally.outages)[1], 1)

    found = read()

    assert found["echo_state_up",] == 0
    assert found["echo_outages_total",] == 1
    assert [key for key in found if key[0] == "echo_connections"] == []


@pytest.mark.parametrize(
    ("app", "events", "code"),
    [
        (until_disconnect, [{"type": "websocket.disconnect", "code": 1001}], 1001),
        (until_disconnect, [{"type": "websocket.disconnect"}], 1005),
        (closing("websocket.accept", code=4001), [], 4001),
        (closing("websocket.accept"), [], 1000),
        (returning, [], 1000),
    ],
    ids=["client", "client without code", "application", "without code", "return"],
)
async def test_end_is_told_by_its_code(tally, app, events, code):
    await connect(app, *events)

    assert (tally.joins, tally.closes) == (1, {code: 1})


async def test_connection_of_two_objects_is_one_connection(tally, caplog):
    caplog.set_level(logging.INFO, "echo.connections")
    inner = counted(until_disconnect, by=lambda scope: "inner")

    await connect(inner, {"type": "websocket.disconnect", "code": 1001}, name="outer")

    assert (tally.joins, tally.closes) == (1, {1001: 1})
    assert [record.object for record in caplog.records] == ["outer"]


async def test_rejection_by_the_inner_of_two_objects_is_one_rejection(tally):
    await connect(counted(until_disconnect, by=lambda scope: "a/b"), name="outer")

    assert {reason: n for reason, n in tally.refusals.items() if n} == {"application": 1}


async def test_end_by_an_exception_is_1011(tally):
    with pytest.raises(ZeroDivisionError):
        await connect(raising)

    assert tally.closes == {1011: 1}


async def test_end_by_cancellation_has_no_code(tally):
    task = asyncio.ensure_future(connect(until_disconnect))
    while not tally.joins:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert tally.closes == {"unknown": 1}


def test_codes_that_clients_make_up_share_one_number(tally):
    for code in range(3000, 3000 + ROOM + 5):
        tally.ended("foo", 1.0, code)
    tally.ended("foo", 1.0, 1011)

    assert (tally.closes[OTHER], tally.closes[1011], len(tally.closes)) == (5, 1, ROOM + 2)


async def test_refusals_are_told_by_their_reason(tally, settings):
    await connect(until_disconnect, name="\x00")
    await connect(closing())
    settings.ECHO_MAX_CONNECTIONS = 1
    await join("foo")
    await connect(returning)
    get_state().leave("foo")
    settings.ECHO_AUTHORIZE = "tests.test_access.no_secrets"
    await connect(returning, name="secret")

    assert tally.refusals == {
        "host": 0,
        "origin": 0,
        "name": 1,
        "permission": 1,
        "full": 1,
        "application": 1,
    }
    assert (tally.joins, tally.closes) == (0, {})


async def test_end_is_logged_with_its_details(caplog):
    caplog.set_level(logging.INFO, "echo.connections")

    await connect(closing("websocket.accept", code=4001), name="a\u2028b")

    (record,) = caplog.records
    assert record.getMessage() == f"'a\\u2028b' ended after {record.seconds:.3f} s with 4001"
    assert (record.object, record.code) == ("a\u2028b", 4001)
    assert 0 <= record.seconds < 10


def test_end_without_a_code_is_logged_as_such(caplog):
    caplog.set_level(logging.INFO, "echo.connections")

    Tally().ended("foo", 1.0123, None)

    (record,) = caplog.records
    assert record.getMessage() == "'foo' ended after 1.012 s with no code"
    assert record.code is None


async def test_end_is_not_logged_by_default(caplog):
    await connect(returning)

    assert caplog.records == []


def test_collector_stands_in_any_registry(tally):
    registry = CollectorRegistry()
    registry.register(EchoCollector())

    assert registry.get_sample_value("echo_joins_total", {"process": PROCESS}) == 0


def test_metrics_are_for_those_who_may_list(client, operations):
    refused = client.get(METRICS)
    answer = client.get(METRICS, headers=TOKEN)

    assert (refused.status_code, refused.content) == (403, b"You may not list the objects.")
    assert answer.status_code == 200
    assert answer["Content-Type"].startswith("text/plain; version=")
    assert ("echo_state_up",) in samples(answer.content.decode())


def test_metrics_without_their_extra_say_so(client, operations, monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)

    answer = client.get(METRICS, headers=TOKEN)

    assert (answer.status_code, answer.content.decode()) == (501, metrics.MISSING)


def test_health_of_a_process(client, operations):
    answer = client.get("/operations/health")

    assert (answer.status_code, answer.json()) == (200, {"status": "ok", "state": "process"})
    assert "no-store" in answer["Cache-Control"]


def test_site_that_asks_all_for_a_login_leaves_operations_to_themselves(
    client, operations, settings
):
    required = "django.contrib.auth.middleware.LoginRequiredMiddleware"
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, required]

    assert client.get("/operations/health").status_code == 200
    assert client.get(METRICS).status_code == 403
    assert client.get(METRICS, headers=TOKEN).status_code == 200


def test_health_with_redis(client, operations, settings, redis_url):
    settings.ECHO_STATE_URL = redis_url

    eventually(lambda: client.get("/operations/health").status_code, 200)

    assert client.get("/operations/health").json() == {"status": "ok", "state": "shared"}


@pytest.mark.usefixtures("away")
def test_health_without_redis_is_503(client, operations, caplog):
    caplog.set_level(logging.CRITICAL, "django.request")

    answer = client.get("/operations/health")

    assert answer.status_code == 503
    assert answer.json() == {"status": "unavailable", "state": "shared"}
    assert answer["Retry-After"] == "2"


@pytest.fixture(scope="module")
def server():
    with Server("daphne", DJANGO_SETTINGS_MODULE="tests.sites.operations") as server:
        yield server


def test_metrics_of_a_real_server(server):
    def found():
        return samples(server.get(METRICS, **TOKEN)[2])

    with Client.opened(server.port, "%22%7D") as client:
        during = found()
        client.send(frame(CLOSE, close_payload(4002)))
        client.closing()
    with Client(server.port) as client:
        client.ask(f"/{'x' * 129}/websocket", UPGRADE)
    for header in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}):
        with Client(server.port) as client:
            client.ask("/foo/websocket", {**UPGRADE, **header})

    assert during["echo_connections", '"}'] == 1
    assert during["echo_joins_total",] == 1
    eventually(lambda: found().get(("echo_closes_total", "4002")), 1)
    refused = {reason: found()["echo_refusals_total", reason] for reason in REASONS}
    assert refused == {**dict.fromkeys(REASONS, 0), "name": 1, "host": 1, "origin": 1}
    assert ("echo_connections", '"}') not in found()
