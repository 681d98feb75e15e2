import json
import logging
from datetime import UTC, datetime

import pytest
import redis

from echo.members import Member
from echo.signals import member_joined, member_left
from echo.signals.sender import SignalSender
from echo.state.redis import scripts
from tests.faults.site import Site
from tests.raw import CLOSE, close_payload, frame
from tests.signals.senders import lead, receiving, step_both
from tests.states import known, linked_state, redis_state, step
from tests.waiting import SECOND, eventually

DELAY = 3.0  # seconds: the default of ECHO_VACATED_DELAY
ADA, BOB = ("7", '{"name":"Ada"}'), ("8", '{"name":"Bob"}')


@pytest.fixture
def sent():
    """The signals of members, in order: `("joined", {"name": "foo", "member": Member(...)})`."""
    with receiving("joined", "left") as signals:
        yield signals


def facts(signals):
    """Return each signal without the time: `("joined", "foo", "7", {"name": "Ada"}, 1)`."""
    return [
        (word, each["name"], member.key, member.info, member.connections)
        for word, each in signals
        for member in [each["member"]]
    ]


def joined(name, new, connections=1):
    return ("joined", name, new[0], json.loads(new[1]), connections)


def left(name, new):
    return ("left", name, new[0], json.loads(new[1]), 0)


async def test_first_connection_of_a_member_sends_joined_at_once(state, sent):
    await state.join("foo", member=ADA)

    SignalSender(state).step(0)

    assert facts(sent) == [joined("foo", ADA)]


async def test_connection_without_a_member_sends_neither(state, sent):
    sender = SignalSender(state)
    await state.join("foo")
    sender.step(0)
    state.leave("foo")
    sender.step(1)
    sender.step(1 + DELAY)

    assert sent == []


async def test_further_tabs_send_nothing_until_the_last_is_closed(state, sent):
    sender = SignalSender(state)
    for now in range(3):
        await state.join("foo", member=ADA)
        sender.step(now)
    for now in range(3, 5):
        state.leave("foo", ADA[0])
        sender.step(now)
    sender.step(4 + DELAY)
    assert facts(sent) == [joined("foo", ADA)]

    state.leave("foo", ADA[0])
    sender.step(20)
    sender.step(20 + DELAY)

    assert facts(sent) == [joined("foo", ADA), left("foo", ADA)]


async def test_left_is_sent_once_after_the_delay(state, sent):
    sender = SignalSender(state)
    await state.join("foo", member=ADA)
    await state.join("foo", member=BOB)
    sender.step(0)
    state.leave("foo", ADA[0])
    sent.clear()

    for now in (10, 10 + DELAY - 0.1):
        sender.step(now)
        assert sent == []
    for now in (10 + DELAY, 10 + 3 * DELAY):
        sender.step(now)
        assert facts(sent) == [left("foo", ADA)]


async def test_page_that_is_reloaded_neither_leaves_nor_joins(state, sent):
    sender = SignalSender(state)
    await state.join("foo", member=ADA)
    sender.step(0)
    state.leave("foo", ADA[0])
    sender.step(1)
    await state.join("foo", member=ADA)
    sender.step(2)
    sender.step(2 + 2 * DELAY)

    assert facts(sent) == [joined("foo", ADA)]


async def test_left_has_the_last_info_and_the_time_of_joining(state, sent):
    sender = SignalSender(state)
    await state.join("foo", member=ADA)
    sender.step(0)
    state.leave("foo", ADA[0])
    sender.step(1)
    renamed = (ADA[0], '{"name":"Ada Lovelace"}')
    await state.join("foo", member=renamed)
    sender.step(2)
    state.leave("foo", ADA[0])
    sender.step(3)
    sender.step(3 + DELAY)

    assert facts(sent) == [joined("foo", ADA), left("foo", renamed)]
    since, then = (each["member"].since for _, each in sent)
    assert since == then
    assert 0 <= (datetime.now(UTC) - since).total_seconds() < 10 * SECOND


async def test_member_of_two_objects_joins_and_leaves_each(state, sent):
    sender = SignalSender(state)
    await state.join("foo", member=ADA)
    await state.join("bar", member=ADA)
    sender.step(0)
    state.leave("foo", ADA[0])
    sender.step(1)
    sender.step(1 + DELAY)

    assert facts(sent) == [joined("foo", ADA), joined("bar", ADA), left("foo", ADA)]


async def test_object_is_occupied_before_and_vacated_after_its_members(state):
    with receiving("occupied", "vacated", "joined", "left") as sent:
        sender = SignalSender(state)
        await state.join("foo", member=ADA)
        sender.step(0)
        state.leave("foo", ADA[0])
        sender.step(1)
        sender.step(1 + DELAY)

    assert [word for word, _ in sent] == ["occupied", "joined", "left", "vacated"]


async def test_members_are_not_read_while_their_signals_have_no_receivers(state, monkeypatch):
    def read(*args):
        raise AssertionError("members were read")

    monkeypatch.setattr(state, "members", read)
    monkeypatch.setattr(state, "members_of", read)
    with receiving("occupied", "vacated", "changed") as sent:
        await state.join("foo", member=ADA)
        sender = SignalSender(state)
        sender.step(0)
        await state.join("foo", member=BOB)
        sender.step(1)

    assert len(sent) == 3
    assert state.ledger.recorded == {"foo": 2}


async def test_receivers_that_are_connected_later_receive_who_is_here(state):
    sender = SignalSender(state)
    await state.join("foo", member=ADA)
    sender.step(0)
    with receiving("joined", "left") as sent:
        sender.step(1)
        assert facts(sent) == [joined("foo", ADA)]

    sender.step(2)
    sender.step(2 + DELAY)

    assert state.ledger.recorded == {"foo": 1}  # personal data is not kept without receivers


async def test_receiver_that_raises_stops_no_other_and_leaks_no_member(state, sent, caplog):
    def fail(**kwargs):
        raise RuntimeError("of the site")

    for signal in (member_joined, member_left):
        signal.connect(fail)
    try:
        sender = SignalSender(state)
        await state.join("foo", member=ADA)
        sender.step(0)
        state.leave("foo", ADA[0])
        sender.step(1)
        sender.step(1 + DELAY)
    finally:
        for signal in (member_joined, member_left):
            signal.disconnect(fail)

    assert facts(sent) == [joined("foo", ADA), left("foo", ADA)]
    failures = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(failures) == 2
    assert "Ada" not in caplog.text


async def test_member_is_the_public_class(state, sent):
    await state.join("foo", member=ADA)

    SignalSender(state).step(0)

    assert isinstance(sent[0][1]["member"], Member)


# Many processes


async def test_tabs_in_two_processes_are_one_member(two, sent):
    await two.here.join("foo", member=ADA)
    await two.there.join("foo", member=ADA)
    eventually(lambda: step_both(two) and [word for word, _ in sent], ["joined"])

    two.there.leave("foo", ADA[0])
    known(two.there)  # written
    for now in (1, 1 + 2 * DELAY):
        step_both(two, now)
    assert len(sent) == 1

    two.here.leave("foo", ADA[0])
    known(two.here)
    eventually(lambda: step_both(two, 20) and two.here.member("foo", ADA[0]), None)
    eventually(lambda: step_both(two, 20 + DELAY) and facts(sent)[1:], [left("foo", ADA)])


async def test_next_leader_continues_where_the_first_stopped(two, sent):
    await two.here.join("foo", member=ADA)
    await two.there.join("foo", member=BOB)
    eventually(lambda: step_both(two) and len(sent), 2)
    sent.clear()

    two.here.close()
    lead(two.other)
    eventually(lambda: step(two.other, 1) and two.there.member("foo", ADA[0]), None)
    eventually(lambda: step(two.other, 1 + DELAY) and facts(sent), [left("foo", ADA)])
    step(two.other, 1 + 3 * DELAY)

    assert facts(sent) == [left("foo", ADA)]


async def test_next_leader_takes_over_when_the_first_has_vanished(two, sent, link):
    await two.here.join("foo", member=ADA)
    eventually(lambda: step_both(two) and len(sent), 1)
    sent.clear()
    link.refuse()
    await two.there.join("foo", member=BOB)

    lead(two.other)  # when the lease of `here` has ended

    eventually(lambda: step(two.other, 1) and facts(sent), [joined("foo", BOB)])
    eventually(lambda: step(two.other, 2 + DELAY) and facts(sent)[1:], [left("foo", ADA)])


async def test_flush_of_redis_sends_nothing_twice(two, sent, redis_server):
    await two.here.join("foo", member=ADA)
    await two.there.join("foo", member=BOB)
    eventually(lambda: step_both(two) and len(sent), 2)
    sent.clear()

    redis_server.flush()
    known(two.here)
    lead(two.leader)
    for now in (1, 1 + 2 * DELAY):
        step_both(two, now)

    assert sent == []


async def test_flush_while_the_leader_is_dead_sends_nothing_twice_and_loses_nothing(
    two, sent, link, redis_server
):
    await two.here.join("bar", member=ADA)
    await two.there.join("foo", member=BOB)
    eventually(lambda: step_both(two) and len(sent), 2)
    eventually(lambda: step(two.other) is False and len(two.there.ledger.recorded), 4)
    sent.clear()

    link.refuse()
    redis_server.flush()
    lead(two.other)
    eventually(lambda: step(two.other, 1) and two.there.member("bar", ADA[0]), None)
    eventually(lambda: step(two.other, 1 + DELAY) and facts(sent), [left("bar", ADA)])
    step(two.other, 1 + 3 * DELAY)

    assert facts(sent) == [left("bar", ADA)]


async def test_start_reads_the_members_of_all_objects_in_parts(redis_url, sent, monkeypatch):
    monkeypatch.setattr("echo.state.redis.state.MEMBERS_PART_SIZE", 10)
    with redis_state(redis_url) as here, redis_state(redis_url) as there:
        for number in range(25):
            await here.join("large", member=(f"{number}", "{}"))
            await there.join(f"small {number}", member=ADA)
            await there.join(f"empty {number}")

        members = here.members_of(here.counts())

        expected = {f"large/{number}" for number in range(25)}
        assert set(members) == expected | {f"small {number}/7" for number in range(25)}
        assert {presence.connections for presence in members.values()} == {1}


async def test_members_of_dead_processes_are_left_out(redis_url):
    with redis_state(redis_url) as here, linked_state(redis_url) as (there, there_link):
        await here.join("foo", member=ADA)
        await there.join("foo", member=ADA)
        await there.join("foo", member=BOB)
        there_link.refuse()
        with redis.Redis.from_url(redis_url) as client:
            client.zadd(scripts.PROCESSES, {there.id: 1})  # its lease has ended

            members = here.members_of(["foo"])

        assert {entry: each.connections for entry, each in members.items()} == {"foo/7": 1}


async def test_infos_lie_in_the_ledger_until_the_member_has_left(two, sent, redis_url):
    await two.here.join("foo", member=ADA)
    eventually(lambda: step_both(two) and len(sent), 1)
    with redis.Redis.from_url(redis_url) as client:
        assert client.hget(scripts.LEDGER, "foo/7").decode().endswith(ADA[1])

        two.here.leave("foo", ADA[0])
        known(two.here)
        eventually(lambda: step_both(two, 1) and two.here.member("foo", ADA[0]), None)
        eventually(lambda: step_both(two, 2 + DELAY) and len(sent), 2)

        assert client.hkeys(scripts.LEDGER) == [b"/epoch"]


async def test_ledger_expires_unless_its_leader_renews_it(two, sent, redis_url, monkeypatch):
    await two.here.join("foo", member=ADA)
    eventually(lambda: step_both(two) and len(sent), 1)
    monkeypatch.setattr("echo.state.redis.share.RENEWAL_INTERVAL", 0)
    with redis.Redis.from_url(redis_url) as client:
        client.expire(scripts.LEDGER, 100)
        eventually(lambda: client.ttl(scripts.LEDGER) > 100, True)
        two.here.close()
        eventually(lambda: client.exists(scripts.LEADER), 0)
        client.expire(scripts.LEDGER, 100)
        client.expire(scripts.TOTALS, 100)
        eventually(lambda: client.ttl(scripts.TOTALS) > 100, True)

        assert client.ttl(scripts.LEDGER) <= 100


@pytest.mark.slow
def test_servers_send_each_member_once_even_if_one_is_killed(redis_url, tmp_path):
    file = tmp_path / "signals"
    file.touch()
    env = {"SIGNALS_FILE": str(file), "application": "tests.sites.member_signals:application"}

    def lines(word):
        return sorted(line for line in file.read_text().splitlines() if line.startswith(word))

    with Site(redis_url, **env) as site:
        here, there = site.servers
        site.open(here, "foo", "ada")
        eventually(lambda: lines("joined"), ["joined foo ada"])
        tabs = [site.open(there, "foo", "bob") for _ in range(2)]
        eventually(lambda: lines("joined"), ["joined foo ada", "joined foo bob"])

        site.kill(here)  # the leader
        eventually(lambda: lines("left"), ["left foo ada"], deadline=20 * SECOND)
        for client in tabs:
            client.send(frame(CLOSE, close_payload(1000)))
        eventually(lambda: lines("left"), ["left foo ada", "left foo bob"])

    assert lines("joined") == ["joined foo ada", "joined foo bob"]
