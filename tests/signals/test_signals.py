import threading
import time

import pytest
from channels.testing import WebsocketCommunicator

from echo.consumers import EchoConsumer
from echo.counting import counted
from echo.signals import count_changed, object_occupied
from echo.signals.sender import SignalSender, start_sender
from echo.state import get_state
from tests.faults.site import Site
from tests.raw import CLOSE, close_payload, frame
from tests.signals.senders import lead, receiving, step_both
from tests.states import LEASE, known, step
from tests.waiting import SECOND, eventually

DELAY = 3.0  # seconds: the default of ECHO_VACATED_DELAY


@pytest.fixture
def sent():
    """The signals sent, in order: `("occupied", {"name": "foo", "count": 1})`."""
    with receiving("occupied", "vacated", "changed") as signals:
        yield signals


def occupied(name, count):
    return ("occupied", {"name": name, "count": count})


def vacated(name):
    return ("vacated", {"name": name})


def changed(name, previous, count):
    return ("changed", {"name": name, "previous": previous, "count": count})


async def test_first_connection_sends_occupied_and_changed(state, sent):
    await state.join("foo")

    SignalSender(state).step(0)

    assert sent == [occupied("foo", 1), changed("foo", 0, 1)]


async def test_nothing_is_sent_without_a_change(state, sent):
    await state.join("foo")
    sender = SignalSender(state)
    sender.step(0)
    sent.clear()

    sender.step(1)

    assert sent == []


async def test_changes_between_two_polls_are_sent_as_one(state, sent):
    sender = SignalSender(state)
    for _ in range(5):
        await state.join("foo")
    state.leave("foo")

    sender.step(0)

    assert sent == [occupied("foo", 4), changed("foo", 0, 4)]


async def test_vacated_is_sent_once_after_the_delay(state, sent):
    sender = SignalSender(state)
    await state.join("foo")
    sender.step(0)
    state.leave("foo")
    sent.clear()

    for now in (10, 10 + DELAY - 0.1, 10 + DELAY, 10 + 2 * DELAY):
        sender.step(now)

    assert sent == [changed("foo", 1, 0), vacated("foo")]


async def test_page_that_is_reloaded_neither_vacates_nor_occupies(state, sent):
    sender = SignalSender(state)
    await state.join("foo")
    sender.step(0)
    sent.clear()

    state.leave("foo")
    sender.step(10)
    await state.join("foo")
    sender.step(11)
    sender.step(11 + 2 * DELAY)

    assert sent == [changed("foo", 1, 0), changed("foo", 0, 1)]


async def test_delay_starts_again_each_time_an_object_is_empty(state, sent):
    sender = SignalSender(state)
    for now in (0, 2, 4):
        await state.join("foo")
        sender.step(now)
        state.leave("foo")
        sender.step(now + 1)
    sent.clear()

    sender.step(4 + DELAY)
    assert sent == []
    sender.step(5 + DELAY)

    assert sent == [vacated("foo")]


async def test_delay_of_zero_vacates_at_the_next_poll(state, sent, settings):
    settings.ECHO_VACATED_DELAY = 0
    sender = SignalSender(state)
    await state.join("foo")
    sender.step(0)
    state.leave("foo")
    sent.clear()

    sender.step(0.2)
    sender.step(0.4)

    assert sent == [changed("foo", 1, 0), vacated("foo")]


async def test_receiver_may_be_async(state):
    received = []

    async def receive(name, **kwargs):
        received.append(name)

    object_occupied.connect(receive)
    try:
        await state.join("foo")
        thread = threading.Thread(target=SignalSender(state).step, args=[0])
        thread.start()
        thread.join()
    finally:
        object_occupied.disconnect(receive)

    assert received == ["foo"]


async def test_exception_of_a_receiver_does_not_stop_the_others(state, sent, caplog):
    def fail(**kwargs):
        raise RuntimeError("of the site")

    count_changed.connect(fail)
    try:
        await state.join("foo")
        SignalSender(state).step(0)
    finally:
        count_changed.disconnect(fail)

    assert sent == [occupied("foo", 1), changed("foo", 0, 1)]
    assert "of the site" in caplog.text


def sender_threads():
    return sum(thread.name == "echo-signals" for thread in threading.enumerate())


def test_no_thread_runs_without_receivers(state):
    start_sender(state)

    assert sender_threads() == 0


async def test_first_handshake_of_a_process_starts_the_thread(sent, settings):
    """Even if the process never serves an HTTP request."""
    settings.ECHO_LEASE_SECONDS = 4  # a change drops the state
    client = WebsocketCommunicator(counted(EchoConsumer.as_asgi()), "/foo/websocket")
    client.scope["url_route"] = {"kwargs": {"name": "foo"}}
    try:
        await client.connect()
        assert sender_threads() == 1

        eventually(lambda: sent, [occupied("foo", 1), changed("foo", 0, 1)])
        await client.disconnect()
    finally:
        get_state().close()
    eventually(sender_threads, 0)


@pytest.fixture
def earlier_state(settings):
    settings.ECHO_LEASE_SECONDS = 4  # a change drops the state
    return get_state()


def test_request_starts_the_thread_for_receivers_connected_later(earlier_state, sent):
    assert sender_threads() == 0

    start_sender()

    assert sender_threads() == 1
    earlier_state.close()
    eventually(sender_threads, 0)


async def test_one_thread_sends_until_the_state_is_closed(state, sent):
    for _ in range(3):
        start_sender(state)
    assert sender_threads() == 1

    await state.join("foo")
    eventually(lambda: sent, [occupied("foo", 1), changed("foo", 0, 1)])
    state.close()

    eventually(sender_threads, 0)


# Many processes


async def test_change_in_any_process_is_sent_by_the_leader(two, sent):
    here, there, *_ = two
    await there.join("foo")
    eventually(lambda: step_both(two) and sent, [occupied("foo", 1), changed("foo", 0, 1)])
    await here.join("foo")
    eventually(lambda: step_both(two) and sent[2:], [changed("foo", 1, 2)])


async def test_next_leader_continues_where_the_first_stopped(two, sent):
    here, there, _, other = two
    await here.join("bar")
    await there.join("foo")
    eventually(lambda: step_both(two) and len(sent), 4)
    sent.clear()

    here.close()
    lead(other)
    eventually(lambda: step(other, 1) and sent, [changed("bar", 1, 0)])
    other.step(1 + DELAY)

    assert sent == [changed("bar", 1, 0), vacated("bar")]


async def test_next_leader_does_not_repeat_what_the_first_has_just_sent(two, sent):
    here, there, leader, other = two
    await there.join("foo")
    eventually(lambda: step_both(two) and len(sent), 2)
    eventually(lambda: step(other) is False and there.ledger.recorded, {"foo": 1})
    there.leave("foo")
    eventually(lambda: step_both(two, 1) and len(sent), 3)
    eventually(lambda: step(other, 1) is False and there.ledger.recorded, {"foo": 0})
    leader.step(1 + DELAY)
    assert sent[3:] == [vacated("foo")]

    here.close()
    lead(other)
    other.step(1 + 2 * DELAY)

    assert sent[3:] == [vacated("foo")]


async def test_next_leader_takes_over_when_the_first_has_vanished(two, sent, link):
    _here, there, leader, other = two
    await there.join("foo")
    link.refuse()

    lead(other)  # when the lease of `here` has ended

    eventually(lambda: step(other) and sent, [occupied("foo", 1), changed("foo", 0, 1)])
    assert not step(leader)


async def test_slow_receivers_do_not_cost_the_leader_its_lease(two):
    _here, there, leader, other = two
    for number in range(3):
        await there.join(f"room {number}")
    received, taken = [], []

    def receive(name, **kwargs):
        time.sleep(LEASE / 2 + 0.1)  # two take longer than the lease
        taken.append(step(other))
        received.append(name)

    object_occupied.connect(receive)
    try:
        eventually(lambda: step(leader) and len(received), 3)
    finally:
        object_occupied.disconnect(receive)

    assert not any(taken)


async def test_flush_of_redis_sends_nothing_twice(two, sent, redis_server):
    here, there, leader, _ = two
    await there.join("foo")
    eventually(lambda: step_both(two) and sent, [occupied("foo", 1), changed("foo", 0, 1)])
    sent.clear()

    redis_server.flush()
    known(here)
    lead(leader)
    step_both(two)

    assert sent == []


async def test_flush_while_the_leader_is_dead_sends_nothing_twice_and_loses_nothing(
    two, sent, link, redis_server
):
    here, there, _, other = two
    await here.join("bar")
    await there.join("foo")
    eventually(lambda: step_both(two) and len(sent), 4)
    eventually(lambda: step(other) is False and len(there.ledger.recorded), 2)
    sent.clear()

    link.refuse()
    redis_server.flush()
    lead(other)
    eventually(lambda: step(other, 1) and sent, [changed("bar", 1, 0)])
    other.step(1 + DELAY)

    assert sent == [changed("bar", 1, 0), vacated("bar")]


async def test_process_that_was_cut_off_takes_over_the_ledger_of_another(two, sent, link):
    _here, there, leader, other = two
    link.refuse()
    lead(other)
    await there.join("foo")
    eventually(lambda: step(other) and sent, [occupied("foo", 1), changed("foo", 0, 1)])
    sent.clear()

    link.accept()
    there.close()
    lead(leader)
    eventually(lambda: step(leader, 1) and sent, [changed("foo", 1, 0)])


@pytest.mark.slow
def test_servers_send_each_change_once_even_if_one_is_killed(redis_url, tmp_path):
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

        site.kill(here)  # the leader
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
def test_server_without_a_websocket_sends_for_one_that_was_killed(redis_url, tmp_path):
    file = tmp_path / "signals"
    file.touch()
    env = {"SIGNALS_FILE": str(file), "application": "tests.sites.signals:application"}

    with Site(redis_url, **env) as site:
        here, there = site.servers
        site.open(here, "foo")
        eventually(lambda: "occupied foo 1" in file.read_text(), True)
        there.count("foo")  # an HTTP request only

        site.kill(here)
        eventually(lambda: "vacated foo" in file.read_text(), True, deadline=20 * SECOND)
