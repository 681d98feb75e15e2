import itertools
import threading
import time
from contextlib import ExitStack

import pytest
from channels.testing import WebsocketCommunicator
from django.core.signals import request_started

from echo.consumers import EchoConsumer
from echo.counting import counted
from echo.objects import NamedObject
from echo.signals import ALL, count_changed, object_occupied
from echo.signals.sender import PERIOD, Announcer, start_sender
from echo.state import get_state
from tests.faults.site import Site
from tests.raw import CLOSE, close_payload, frame
from tests.states import known, redis_state
from tests.waiting import SECOND, eventually

DELAY = 3.0  # seconds: the default of ECHO_VACATED_DELAY


@pytest.fixture
def told():
    """What receivers are told, in order: `("occupied", {"name": "foo", "count": 1})`."""
    words = []
    with ExitStack() as stack:
        for signal, word in zip(ALL, ("occupied", "vacated", "changed"), strict=True):

            def receive(sender, signal, word=word, **arguments):
                assert sender is NamedObject
                words.append((word, arguments))

            signal.connect(receive)
            stack.callback(signal.disconnect, receive)
            stack.callback(lambda keep: None, receive)  # signals hold their receivers weakly
        yield words


def occupied(name, count):
    return ("occupied", {"name": name, "count": count})


def vacated(name):
    return ("vacated", {"name": name})


def changed(name, previous, count):
    return ("changed", {"name": name, "previous": previous, "count": count})


async def test_first_connection_is_told_as_occupied_and_as_a_change(state, told):
    await state.join("foo")

    Announcer(state).look(0)

    assert told == [occupied("foo", 1), changed("foo", 0, 1)]


async def test_nothing_is_told_of_what_has_not_changed(state, told):
    await state.join("foo")
    announcer = Announcer(state)
    announcer.look(0)
    told.clear()

    announcer.look(1)

    assert told == []


async def test_changes_between_two_looks_are_told_as_one(state, told):
    announcer = Announcer(state)
    for _ in range(5):
        await state.join("foo")
    state.leave("foo")

    announcer.look(0)

    assert told == [occupied("foo", 4), changed("foo", 0, 4)]


async def test_object_is_told_as_vacated_once_after_the_delay(state, told):
    announcer = Announcer(state)
    await state.join("foo")
    announcer.look(0)
    state.leave("foo")
    told.clear()

    for now in (10, 10 + DELAY - 0.1, 10 + DELAY, 10 + 2 * DELAY):
        announcer.look(now)

    assert told == [changed("foo", 1, 0), vacated("foo")]


async def test_page_that_is_reloaded_neither_vacates_nor_occupies(state, told):
    announcer = Announcer(state)
    await state.join("foo")
    announcer.look(0)
    told.clear()

    state.leave("foo")
    announcer.look(10)
    await state.join("foo")
    announcer.look(11)
    announcer.look(11 + 2 * DELAY)

    assert told == [changed("foo", 1, 0), changed("foo", 0, 1)]


async def test_delay_begins_anew_each_time_that_an_object_is_empty(state, told):
    announcer = Announcer(state)
    for now in (0, 2, 4):
        await state.join("foo")
        announcer.look(now)
        state.leave("foo")
        announcer.look(now + 1)
    told.clear()

    announcer.look(4 + DELAY)
    assert told == []
    announcer.look(5 + DELAY)

    assert told == [vacated("foo")]


async def test_delay_of_zero_vacates_at_the_next_look(state, told, settings):
    settings.ECHO_VACATED_DELAY = 0
    announcer = Announcer(state)
    await state.join("foo")
    announcer.look(0)
    state.leave("foo")
    told.clear()

    announcer.look(0.2)
    announcer.look(0.4)

    assert told == [changed("foo", 1, 0), vacated("foo")]


async def test_receiver_may_be_async(state):
    heard = []

    async def receive(name, **kwargs):
        heard.append(name)

    object_occupied.connect(receive)
    try:
        await state.join("foo")
        thread = threading.Thread(target=Announcer(state).look, args=[0])
        thread.start()
        thread.join()
    finally:
        object_occupied.disconnect(receive)

    assert heard == ["foo"]


async def test_receiver_that_raises_keeps_nothing_from_the_others(state, told, caplog):
    def fail(**kwargs):
        raise RuntimeError("of the site")

    count_changed.connect(fail)
    try:
        await state.join("foo")
        Announcer(state).look(0)
    finally:
        count_changed.disconnect(fail)

    assert told == [occupied("foo", 1), changed("foo", 0, 1)]
    assert "of the site" in caplog.text


def announcing():
    return sum(thread.name == "echo-signals" for thread in threading.enumerate())


def test_no_thread_runs_where_nobody_listens(state):
    start_sender(state)

    assert announcing() == 0


async def test_first_handshake_of_a_process_starts_the_thread(told, monkeypatch):
    """Even if the process never serves an HTTP request."""
    monkeypatch.setattr("echo.state._state", None)
    client = WebsocketCommunicator(counted(EchoConsumer.as_asgi()), "/foo/websocket")
    client.scope["url_route"] = {"kwargs": {"name": "foo"}}
    try:
        await client.connect()
        assert announcing() == 1

        eventually(lambda: told, [occupied("foo", 1), changed("foo", 0, 1)])
        await client.disconnect()
    finally:
        get_state().close()
    eventually(announcing, 0)


def test_request_starts_the_thread_for_receivers_that_came_later(told, state, monkeypatch):
    monkeypatch.setattr("echo.state._state", state)

    request_started.send(None)

    assert announcing() == 1
    state.close()
    eventually(announcing, 0)


async def test_one_thread_announces_until_the_state_is_closed(state, told):
    for _ in range(3):
        start_sender(state)
    assert announcing() == 1

    await state.join("foo")
    eventually(lambda: told, [occupied("foo", 1), changed("foo", 0, 1)])
    state.close()

    eventually(announcing, 0)


def test_process_that_announces_keeps_its_post_between_two_looks(state, monkeypatch):
    asked = []
    lead = state.ledger.lead
    monkeypatch.setattr(state.ledger, "lead", lambda: asked.append("lead") or lead())
    announcer = Announcer(state)

    pauses = [announcer.step() for _ in range(3)]

    assert asked == ["lead"] * 3
    assert all(0 < pause <= PERIOD for pause in pauses)


# Many processes


@pytest.fixture
def two(redis_url):
    with redis_state(redis_url) as here, redis_state(redis_url) as there:
        yield here, there


def lead(announcer):
    """Make it the one that announces: a vacant post is taken at the second look."""
    eventually(lambda: announcer.look(0), True)


async def test_change_is_told_by_one_process_wherever_it_was(two, told):
    here, there = two
    leader, other = Announcer(here), Announcer(there)
    lead(leader)
    await there.join("foo")
    known(here)

    for announcer in (other, leader, other, leader):
        announcer.look(0)

    assert told == [occupied("foo", 1), changed("foo", 0, 1)]


async def test_next_process_goes_on_where_the_first_ended_in_order(redis_url, told):
    with redis_state(redis_url) as there:
        with redis_state(redis_url) as here:
            lead(Announcer(here))
            await here.join("bar")
            await there.join("foo")
            Announcer(here).look(0)
        told.clear()
        known(there)

        announcer = Announcer(there)
        lead(announcer)
        announcer.look(1)
        announcer.look(1 + DELAY)

    assert told == [changed("bar", 1, 0), vacated("bar")]


async def test_next_process_takes_over_when_the_first_has_vanished(redis_url, told):
    with redis_state(redis_url) as there, redis_state(redis_url, lease=1.0 * SECOND) as here:
        lead(Announcer(here))
        await there.join("foo")

        lead(Announcer(there))  # `here` looks no more: its post lapses

        assert told == [occupied("foo", 1), changed("foo", 0, 1)]


async def test_slow_receivers_do_not_cost_the_process_its_post(redis_url):
    with redis_state(redis_url) as there, redis_state(redis_url, lease=1.0 * SECOND) as here:
        first, second = Announcer(here), Announcer(there)
        lead(first)
        for number in range(6):
            await there.join(f"room {number}")
        known(here)
        heard, taken, pauses = [], [], itertools.cycle([0.3, 0.8])

        def receive(name, **kwargs):
            time.sleep(next(pauses) * SECOND)  # two take longer than the lease, none does alone
            taken.append(second.look(0) or second.look(0))  # a vacant post is taken at the second
            heard.append(name)

        object_occupied.connect(receive)
        try:
            first.look(0)
        finally:
            object_occupied.disconnect(receive)

    assert len(heard) == 6
    assert not any(taken)


async def test_flush_of_redis_makes_nothing_told_twice(two, told, redis_server):
    here, there = two
    leader, other = Announcer(here), Announcer(there)
    lead(leader)
    await there.join("foo")
    eventually(lambda: leader.look(0) and told[:1], [occupied("foo", 1)])
    told.clear()

    redis_server.flush()
    assert here.ledger.lead()
    known(here)
    other.look(1)
    leader.look(1)
    here.close()
    lead(other)

    assert told == []


async def test_process_that_stood_still_takes_over_what_others_have_told(redis_url, told):
    with redis_state(redis_url) as there, redis_state(redis_url, lease=1.0 * SECOND) as here:
        first = Announcer(here)
        lead(first)
        second = Announcer(there)
        lead(second)
        await there.join("foo")
        second.look(0)
        told.clear()

        there.ledger._run("return redis.call('DEL', KEYS[1])")
        known(here)
        lead(first)

    assert told == []


@pytest.mark.slow
def test_servers_tell_each_change_once_also_when_one_is_killed(redis_url, tmp_path):
    file = tmp_path / "signals"
    file.touch()
    env = {"SIGNALS_FILE": str(file), "application": "tests.sites.signals:application"}

    def lines(word):
        return sorted(line for line in file.read_text().splitlines() if line.startswith(word))

    with Site(redis_url, **env) as site:
        here, there = site.servers
        site.open(here, "foo")
        eventually(lambda: lines("occupied"), ["occupied foo 1"])
        client = site.open(there, "bar")
        eventually(lambda: lines("occupied"), ["occupied bar 1", "occupied foo 1"])

        site.kill(here)  # that was the one that announced
        eventually(lambda: lines("vacated"), ["vacated foo"], deadline=20 * SECOND)
        client.send(frame(CLOSE, close_payload(1000)))
        eventually(lambda: lines("vacated"), ["vacated bar", "vacated foo"])

    assert lines("occupied") == ["occupied bar 1", "occupied foo 1"]
    assert lines("changed") == [
        "changed bar 0 1",
        "changed bar 1 0",
        "changed foo 0 1",
        "changed foo 1 0",
    ]


@pytest.mark.slow
def test_server_without_a_websocket_tells_of_one_that_was_killed(redis_url, tmp_path):
    file = tmp_path / "signals"
    file.touch()
    env = {"SIGNALS_FILE": str(file), "application": "tests.sites.signals:application"}

    with Site(redis_url, **env) as site:
        here, there = site.servers
        site.open(here, "foo")
        eventually(lambda: "occupied foo 1" in file.read_text(), True)
        there.count("foo")  # a request is all that it has served

        site.kill(here)
        eventually(lambda: "vacated foo" in file.read_text(), True, deadline=20 * SECOND)
