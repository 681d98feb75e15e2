"""Metrics, health and the log line of each closed connection."""

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
from echo.operations.metrics import MAX_OBJECTS, EchoCollector
from echo.state import get_state
from echo.state.redis import publisher
from echo.stats import MAX_CODES, OTHER, REASONS, Stats
from tests.raw import CLOSE, UPGRADE, Client, close_payload, frame
from tests.servers import Server, free_port
from tests.waiting import eventually

PROCESS = str(os.getpid())
METRICS = "/operations/metrics"
TOKEN = {"Authorization": "Bearer token"}


@pytest.fixture
def stats(monkeypatch):
    fresh = Stats()
    for module in (counting, metrics, publisher):
        monkeypatch.setattr(module, "process_stats", fresh)
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


def test_without_connections_all_numbers_are_zero(stats):
    assert read() == {
        ("echo_state_up",): 1,
        ("echo_connections", ""): 0,
        ("echo_open_connections",): 0,
        ("echo_draining",): 0,
        ("echo_joins_total",): 0,
        ("echo_connected_seconds_total",): 0,
        ("echo_outages_total",): 0,
        ("echo_wrong_totals_total",): 0,
        ("echo_rejections_total", "host"): 0,
        ("echo_rejections_total", "origin"): 0,
        ("echo_rejections_total", "name"): 0,
        ("echo_rejections_total", "permission"): 0,
        ("echo_rejections_total", "full"): 0,
        ("echo_rejections_total", "busy"): 0,
        ("echo_rejections_total", "application"): 0,
    }


async def test_hostile_names_stay_labels(stats):
    names = ['"} 7\\', "a\\n", "été\u2028x", 'x"} 1 # {', "{}"]
    await join(*names)

    counts = {key[1]: value for key, value in read().items() if key[0] == "echo_connections"}

    for name in names:
        get_state().leave(name)
    assert counts == {**dict.fromkeys(names, 1), "": 0}


async def test_beyond_the_largest_objects_is_one_sum(stats):
    names = [f"n{number:03}" for number in range(MAX_OBJECTS + 20)]
    await join(*names, *names[:30])

    counts = {key[1]: value for key, value in read().items() if key[0] == "echo_connections"}

    for name in (*names, *names[:30]):
        get_state().leave(name)
    assert len(counts) == MAX_OBJECTS + 1
    assert counts[""] == 20
    assert sum(counts.values()) == MAX_OBJECTS + 50


async def test_names_used_once_do_not_make_more_series(stats):
    for number in range(5):
        names = [f"once-{number}-{one}" for one in range(MAX_OBJECTS)]
        await join(*names)
        counts = {key[1]: value for key, value in read().items() if key[0] == "echo_connections"}
        for name in names:
            get_state().leave(name)
        assert sum(counts.values()) == MAX_OBJECTS
        assert all(
            name in ("", *(f"once-0-{one}" for one in range(MAX_OBJECTS))) for name in counts
        )


async def test_members_are_counted_by_object_and_without_their_keys(stats):
    joined = [("foo", "ada"), ("foo", "ada"), ("foo", "bob"), ("bar", "ada"), ("baz", None)]
    for name, key in joined:
        await get_state().join(name, member=key and (key, '{"name":"Ada"}'))

    text = generate_latest(EchoCollector()).decode()

    for name, key in joined:
        get_state().leave(name, key)
    members = {key: value for key, value in samples(text).items() if key[0] == "echo_members"}
    assert members == {("echo_members", "foo"): 2, ("echo_members", "bar"): 1}
    assert "ada" not in text.lower() and "bob" not in text


@pytest.mark.usefixtures("away")
def test_counts_that_cannot_be_known_are_not_given(stats):
    eventually(lambda: (read(), stats.outages)[1], 1)

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
async def test_close_is_counted_by_its_code(stats, app, events, code):
    await connect(app, *events)

    assert (stats.joins, stats.closes) == (1, {code: 1})


async def test_connection_of_two_objects_is_one_connection(stats, caplog):
    caplog.set_level(logging.INFO, "echo.connections")
    inner = counted(until_disconnect, by=lambda scope: "inner")

    await connect(inner, {"type": "websocket.disconnect", "code": 1001}, name="outer")

    assert (stats.joins, stats.closes) == (1, {1001: 1})
    assert [record.object for record in caplog.records] == ["outer"]


async def test_rejection_by_the_inner_of_two_objects_is_one_rejection(stats):
    await connect(counted(until_disconnect, by=lambda scope: "a/b"), name="outer")

    assert {reason: n for reason, n in stats.rejections.items() if n} == {"application": 1}


async def test_end_by_an_exception_is_1011(stats):
    with pytest.raises(ZeroDivisionError):
        await connect(raising)

    assert stats.closes == {1011: 1}


async def test_end_by_cancellation_has_no_code(stats):
    task = asyncio.ensure_future(connect(until_disconnect))
    while not stats.joins:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert stats.closes == {"unknown": 1}


def test_codes_that_clients_make_up_share_one_number(stats):
    for code in range(3000, 3000 + MAX_CODES + 5):
        stats.record_close("foo", 1.0, code)
    stats.record_close("foo", 1.0, 1011)

    assert (stats.closes[OTHER], stats.closes[1011], len(stats.closes)) == (
        5,
        1,
        MAX_CODES + 2,
    )


async def test_rejections_are_counted_by_their_reason(stats, settings):
    await connect(until_disconnect, name="\x00")
    await connect(closing())
    settings.ECHO_MAX_CONNECTIONS = 1
    await join("foo")
    await connect(returning)
    get_state().leave("foo")
    settings.ECHO_AUTHORIZE = "tests.middleware.test_access.no_secrets"
    await connect(returning, name="secret")

    assert stats.rejections == {
        "host": 0,
        "origin": 0,
        "name": 1,
        "permission": 1,
        "full": 1,
        "busy": 0,
        "application": 1,
    }
    assert (stats.joins, stats.closes) == (0, {})


async def test_end_is_logged_with_its_details(caplog):
    caplog.set_level(logging.INFO, "echo.connections")

    await connect(closing("websocket.accept", code=4001), name="a\u2028b")

    (record,) = caplog.records
    assert (
        record.getMessage()
        == f"Connection to 'a\\u2028b' closed after {record.seconds:.3f} s with code 4001"
    )
    assert (record.object, record.code) == ("a\u2028b", 4001)
    assert 0 <= record.seconds < 10


def test_end_without_a_code_is_logged_as_such(caplog):
    caplog.set_level(logging.INFO, "echo.connections")

    Stats().record_close("foo", 1.0123, None)

    (record,) = caplog.records
    assert record.getMessage() == "Connection to 'foo' closed after 1.012 s with no code"
    assert record.code is None


async def test_end_is_not_logged_by_default(caplog):
    await connect(returning)

    assert caplog.records == []


def test_collector_stands_in_any_registry(stats):
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
    rejected = {reason: found()["echo_rejections_total", reason] for reason in REASONS}
    assert rejected == {**dict.fromkeys(REASONS, 0), "name": 1, "host": 1, "origin": 1}
    assert ("echo_connections", '"}') not in found()
