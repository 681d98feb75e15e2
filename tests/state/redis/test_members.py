"""Members in the shares of several processes."""

import asyncio
import logging
import random
import time
from contextlib import ExitStack, suppress
from threading import Event, Thread

import pytest

from echo.exceptions import StateUnavailable
from echo.state.redis import scripts
from echo.state.redis import state as redis_states
from echo.state.redis.reservations import RESERVE
from echo.state.redis.share import BATCH_SIZE
from echo.state.redis.write_scripts import WRITE
from tests.states import LEASE, SLACK, known, linked_state, messages, redis_state, share
from tests.waiting import DEADLINE, SECOND, eventually

MANY = 2 * BATCH_SIZE + BATCH_SIZE // 2


def connections(found):
    return sum(presence.connections for presence in found.members.values())


def listed(state, name="foo"):
    """Return the number of connections of each member."""
    return {key: each.connections for key, each in state.members(name).members.items()}


def listed_or_unknown(state):
    try:
        return listed(state)
    except StateUnavailable:
        return "unknown"


def change(state, names, *changes):
    """Make the changes in one round of the publishing thread."""
    for each in changes:
        each()
    state._publisher.mark(*names)
    eventually(state._publisher.queue.has_unwritten, False)


def add_many(state, first=0, count=MANY):
    """Join with many members, in one round."""
    keys = [f"key-{number}" for number in range(first, first + count)]
    joins = [lambda key=key: state._local.add((("foo", None),), (key, "{}")) for key in keys]
    change(state, ["foo", *(f"foo/{key}" for key in keys)], *joins)
    return keys


async def test_tabs_in_several_processes_are_one_member(redis_url):
    with ExitStack() as stack:
        states = [stack.enter_context(redis_state(redis_url)) for _ in range(3)]
        for number, state in enumerate(states):
            for tab in range(number + 1):
                await state.join("foo", member=("ada", f'{{"tab":"{number} {tab}"}}'))
        first = states[0].local_member("foo", "ada")

        for state in states:
            presence = state.member("foo", "ada")
            assert (presence.connections, presence.info) == (6, '{"tab":"2 2"}')
            assert presence.since == first.since
            assert state.members("foo").members == {"ada": presence}
            assert state.member_count("foo") == 1

        states[0].leave("foo", "ada")
        await states[0].settled()
        assert [listed(state) for state in states] == [{"ada": 5}] * 3
        assert states[1].member("foo", "ada").since == first.since


async def test_member_is_in_each_list_after_the_join_and_in_none_after_the_leave(two):
    here, there = two
    wrong = 0
    for number in range(500):
        state, other = random.Random(number).sample([here, there], 2)
        limit = None if number % 2 else 100
        await state.join("foo", limit, (f"key-{number}", "{}"))
        wrong += listed(other) != {f"key-{number}": 1} or listed(state) != {f"key-{number}": 1}
        state.leave("foo", f"key-{number}")
        await state.settled()
        wrong += bool(listed(other) or listed(state))

    assert wrong == 0


async def test_members_of_a_killed_process_are_gone_with_its_lease(redis_url):
    with redis_state(redis_url) as there, linked_state(redis_url) as (here, link):
        await here.join("foo", member=("ada", "{}"))
        await there.join("foo", member=("ada", "{}"))
        await here.join("foo", member=("bob", "{}"))
        link.refuse()

        eventually(lambda: listed_or_unknown(there), {"ada": 1}, LEASE + SLACK)

        assert there.member_count("foo") == 1
        assert there.member("foo", "bob") is None


async def test_members_of_a_process_that_exits_are_gone_at_once(redis_url, client):
    with redis_state(redis_url) as there:
        with redis_state(redis_url) as here:
            await here.join("foo", member=("ada", "{}"))
            assert listed(there) == {"ada": 1}

        assert listed(there) == {}
        assert client.keys(scripts.MEMBERS_OF + "*") == []


async def test_lists_are_right_or_unknown_after_a_loss(two, client):
    here, there = two
    await here.join("foo", member=("ada", '{"n":1}'))
    await there.join("foo", member=("bob", "{}"))
    wrong = []
    for _ in range(20):
        client.flushall()
        end = time.monotonic() + 0.1 * SECOND
        while time.monotonic() < end:
            for state in (here, there):
                found = listed_or_unknown(state)
                if found not in ("unknown", {"ada": 1, "bob": 1}):
                    wrong.append(found)

    assert wrong == []
    known(here)
    assert here.member("foo", "ada").info == '{"n":1}'
    assert here.members("foo") == there.members("foo")


async def test_whole_share_with_many_members_is_written_in_parts(two, client):
    here, there = two
    add_many(here)
    await there.join("foo")
    client.flushall()
    known(here)
    known(there)

    found = there.members("foo")

    assert (found.connections, len(found.members), connections(found)) == (MANY + 1, MANY, MANY)
    assert here.check() == []


async def test_members_in_several_steps_never_have_more_connections_than_the_object(steady):
    """Redis derives the count in those steps that lack it."""
    here, there = steady
    await here.join("foo")
    steps, run = [], here._publisher.steps.run

    def run_and_read(script, *rest, **named):
        result = run(script, *rest, **named)
        if script == WRITE and rest:
            found = there.members("foo")
            steps.append((found.connections, len(found.members), connections(found)))
        return result

    here._publisher.steps.run = run_and_read
    keys = add_many(here)
    sizes = [BATCH_SIZE, 2 * BATCH_SIZE, MANY]
    assert steps == [(size + 1, size, size) for size in sizes]

    steps.clear()
    leaves = [lambda key=key: here._local.leave("foo", key) for key in keys]
    change(here, ["foo", *(f"foo/{key}" for key in keys)], *leaves)
    assert steps == [(MANY - size + 1, MANY - size, MANY - size) for size in sizes]
    assert here.check() == []


async def test_many_members_that_join_within_a_limit_are_counted_once(steady):
    """Redis has their connections since the reservation, and gets them in several steps."""
    here, there = steady
    joins, seen, run = 2 * BATCH_SIZE, [], here._publisher.steps.run

    def run_and_read(script, *rest, **named):
        result = run(script, *rest, **named)
        with suppress(StateUnavailable):
            found = there.members("foo")
            seen.append((len(rest), found.connections, connections(found)))
        time.sleep(0.02)  # so that more names than fit in one step wait for the next round
        return result

    here._publisher.steps.run = run_and_read
    keys = [f"key-{number}" for number in range(joins)]
    granted = await asyncio.gather(*(here.join("foo", MANY, (key, "{}")) for key in keys))
    assert all(granted)
    for key in keys[1:]:
        here.leave("foo", key)
    await asyncio.gather(here.join("foo", MANY, ("ada", "{}")), here.settled())

    assert max(size for size, *_ in seen) >= BATCH_SIZE
    assert max(count for _, count, _ in seen) == joins
    assert [each for each in seen if each[1] < each[2]] == []
    assert (there.count("foo"), listed(there)) == (2, {"key-0": 1, "ada": 1})
    assert here.check() == []


async def test_more_members_than_fit_in_one_step_are_read_in_parts(steady, monkeypatch):
    here, there = steady
    monkeypatch.setattr(redis_states, "MAX_MEMBERS_AT_ONCE", 100)
    monkeypatch.setattr(redis_states, "MEMBERS_PART_SIZE", 50)
    keys = add_many(here)

    found = there.members("foo")

    assert (found.connections, {*found.members}) == (MANY, {*keys})
    assert there.member_count("foo") == MANY


async def test_set_info_reaches_other_processes_whatever_their_clocks(two, monkeypatch):
    here, there = two
    await here.join("foo", member=("ada", "{}"))
    monkeypatch.setattr("echo.state.memory._now", lambda: 4_000_000_000_000_000)  # 2096
    await there.join("foo", member=("ada", '{"n":1}'))
    monkeypatch.undo()

    here.set_info("foo", "ada", '{"n":2}', here.member("foo", "ada").changed)
    await here.settled()

    assert there.member("foo", "ada").info == here.member("foo", "ada").info == '{"n":2}'


async def test_feed_has_members_and_counts_of_the_same_change(two):
    here, there = two
    calls = []
    there.listen(lambda number, counts, members: calls.append((counts, dict(members))))
    eventually(lambda: calls[:1], [(None, {})])
    await here.join("foo", member=("ada", "{}"))
    first = here.member("foo", "ada")
    await there.join("foo", member=("ada", '{"n":1}'))
    both = here.member("foo", "ada")
    here.leave("foo", "ada")
    await here.settled()
    there.leave("foo", "ada")
    await there.settled()

    expected = [
        ({"foo": 1}, {"foo/ada": str(first)}),
        ({"foo": 2}, {"foo/ada": str(both)}),
        ({"foo": 1}, {"foo/ada": str(both._replace(connections=1))}),
        ({"foo": 0}, {"foo/ada": "0"}),
    ]
    eventually(lambda: calls[1:], expected)


async def test_renewal_keeps_the_keys_of_members_that_never_change(two, client):
    here, _ = two
    await here.join("foo", member=("ada", "{}"))
    await here.join("bar", member=("bob", "{}"))
    await here.join("baz")
    hashes = [scripts.MEMBERS_OF + name for name in ("foo", "bar")]
    changes = []
    here.listen(lambda number, counts, members: changes.append(members))
    eventually(lambda: changes[:1], [{}])
    for key in hashes:
        client.expire(key, 100)

    here._publisher.share._renewed = time.monotonic() - 4000

    eventually(lambda: all(client.ttl(key) > scripts.MAX_AGE for key in hashes), True)
    await here.settled()
    assert changes == [{}]
    assert here.check() == []
    assert client.ttl(share(here)) > scripts.MAX_AGE


@pytest.mark.parametrize("wrong", ["7 1 1 {}", "lost", "ghost"])
async def test_self_check_repairs_members_and_logs_no_key(two, client, caplog, wrong):
    caplog.set_level(logging.ERROR)
    here, there = two
    await here.join("foo", member=("secret", '{"n":1}'))
    await there.join("foo", member=("secret", '{"n":1}'))
    hash_of_foo = scripts.MEMBERS_OF + "foo"
    if wrong == "lost":
        client.delete(hash_of_foo)
    else:
        value = wrong if wrong != "ghost" else "3 1 1 {}"
        client.hset(hash_of_foo, "ghost" if wrong == "ghost" else "secret", value)

    found = here.check()

    total, right = {"lost": (0, 2), "ghost": (3, 0)}.get(wrong, (7, 2))
    assert found == [f"a member of 'foo': {total} instead of {right}"]
    assert here.check() == []
    assert listed(there) == {"secret": 2}
    assert not any("secret" in message or "ghost" in message for message in messages(caplog))


async def test_cancelled_limited_join_is_undone_while_its_member_is_written(two):
    """Redis has granted the connection; the caller gives up before Redis has the member."""
    here, there = two
    joining = []
    run = here._publisher.steps.run

    def run_and_cancel(script, *rest, **named):
        if script == WRITE and "foo/ada" in rest:
            joining[0].get_loop().call_soon_threadsafe(joining[0].cancel)
            time.sleep(0.05)
        return run(script, *rest, **named)

    here._publisher.steps.run = run_and_cancel
    joining.append(asyncio.ensure_future(here.join("foo", 10, ("ada", "{}"))))
    with pytest.raises(asyncio.CancelledError):
        await joining[0]
    await here.settled()

    assert (there.count("foo"), listed(there)) == (0, {})
    assert here._local.members("foo").members == {}


async def test_member_of_a_limited_join_is_written_however_late_the_grant(two, monkeypatch):
    """The join is decided just when its caller stops to wait for that."""
    here, there = two
    publisher = here._publisher
    decide, abandon = publisher.queue.decide, publisher.queue.abandon
    decided = Event()
    held = Event()

    def decide_later(waiter, join):
        held.wait(DEADLINE)
        result = decide(waiter, join)
        decided.set()
        return result

    def abandon_after_decision(waiter):
        held.set()
        decided.wait(DEADLINE)
        return abandon(waiter)

    async def publish(waiter, *names, change=None):  # returns without the decision
        publisher.mark(*names, change=change, waiter=waiter)

    monkeypatch.setattr(publisher.queue, "decide", decide_later)
    monkeypatch.setattr(publisher.queue, "abandon", abandon_after_decision)
    monkeypatch.setattr(publisher, "publish", publish)

    assert await here.join("foo", 10, ("ada", "{}"))

    eventually(lambda: listed(there), {"ada": 1})


@pytest.mark.parametrize("limit", [None, 1000])
def test_members_never_have_more_connections_than_the_object(two, limit):
    here, there = two
    stopped = Event()

    async def come_and_go(seed):
        chance = random.Random(seed)
        while not stopped.is_set():
            key = f"key-{chance.randrange(20)}"
            await here.join("foo", limit, member=(key, "{}"))
            await asyncio.sleep(chance.choice([0, 0, 0.001]))
            here.leave("foo", key)

    async def churn():
        await asyncio.gather(*map(come_and_go, range(20)))

    thread = Thread(target=asyncio.run, args=(churn(),))
    thread.start()
    try:
        end = time.monotonic() + 3 * SECOND
        wrong = []
        while time.monotonic() < end:
            found = there.members("foo")
            if connections(found) > found.connections:
                wrong.append((connections(found), found.connections))
    finally:
        stopped.set()
        thread.join()
    assert wrong == []
    assert here.members("foo").members == {}


async def test_leave_while_values_are_read_is_written_whole_or_later(two, monkeypatch):
    """Else the count would lack a connection that its member still has."""
    here, there = two
    await here.join("foo", member=("ada", "{}"))
    values, run = here._local.values, here._publisher.steps.run
    leaving = Thread(target=here.leave, args=("foo", "ada"))
    seen = []

    def values_during_leave(names=None):
        if names and "foo/bob" in names and leaving.ident is None:
            leaving.start()
            leaving.join(0.1 * SECOND)
        return values(names)

    def run_and_read(script, *rest, **named):
        result = run(script, *rest, **named)
        if "foo/bob" in rest:
            seen.append(there.members("foo"))
        return result

    monkeypatch.setattr(here._local, "values", values_during_leave)
    monkeypatch.setattr(here._publisher.steps, "run", run_and_read)
    await here.join("foo", member=("bob", "{}"))
    leaving.join()
    await here.settled()

    assert [(connections(found), found.connections) for found in seen] == [(2, 2)]
    assert list(there.members("foo").members) == ["bob"]


async def test_since_stays_while_the_member_has_a_connection(two):
    here, there = two
    await here.join("foo", member=("ada", "{}"))
    since = there.member("foo", "ada").since

    await there.join("foo", member=("ada", "{}"))
    here.leave("foo", "ada")
    await here.settled()

    assert [state.member("foo", "ada").since for state in two] == [since, since]


async def test_connection_that_is_rejected_at_the_limit_is_in_no_list(two):
    here, there = two
    assert await here.join("foo", 1, ("ada", "{}"))

    assert not await there.join("foo", 1, ("bob", "{}"))

    assert [listed(state) for state in two] == [{"ada": 1}] * 2


async def test_without_redis_there_is_no_list_and_an_info_is_written_later(redis_url):
    with linked_state(redis_url) as (state, link):
        await state.join("foo", member=("ada", "{}"))
        link.refuse()
        eventually(lambda: listed_or_unknown(state), "unknown")
        with pytest.raises(StateUnavailable):
            state.member_count("foo")

        assert state.set_info("foo", "ada", '{"away":true}')
        link.accept()

        eventually(lambda: listed_or_unknown(state), {"ada": 1})
        assert state.member("foo", "ada").info == '{"away":true}'


def add_members(state, members):
    """Join with these members of these objects, in one round."""
    joins = [
        lambda pair=pair: state._local.add(((pair[0], None),), (pair[1], "{}")) for pair in members
    ]
    change(state, {each for name, key in members for each in (name, f"{name}/{key}")}, *joins)


async def test_self_check_of_many_objects_takes_few_slices(two, client, monkeypatch):
    here, there = two
    many = [(f"name-{number}", key) for number in range(1200) for key in ("a", "b")]
    add_members(here, [*many, *(("large", f"key-{number}") for number in range(3000))])
    add_members(there, many)
    client.hset(scripts.MEMBERS_OF + "name-7", "ghost", "1 1 1 {}")
    client.hset(scripts.MEMBERS_OF + "large", "ghost", "1 1 1 {}")
    steps = []
    run = here._reads.run
    monkeypatch.setattr(
        here._reads, "run", lambda *args, **named: steps.append(1) or run(*args, **named)
    )

    found = here.check()

    assert sorted(found) == [
        f"a member of {name!r}: 1 instead of 0" for name in ("large", "name-7")
    ]
    assert len(steps) < 30
    assert here.check() == []


@pytest.mark.parametrize("leaver", [0, 1])
async def test_process_goes_on_writing_after_the_members_of_an_object_were_evicted(
    two, client, leaver
):
    """Its leaves would make the number of connections negative."""
    here, there = two
    for state in two:
        await state.join("foo", member=("ada", "{}"))
        await state.join("foo", member=("bob", "{}"))
    client.delete(scripts.MEMBERS_OF + "foo")

    two[leaver].leave("foo", "ada")
    await two[leaver].settled()
    await two[leaver].join("foo", member=("eve", "{}"))

    assert here.count("foo") == there.count("foo") == 4
    assert here.check() != []
    assert listed(here) == listed(there) == {"ada": 1, "bob": 2, "eve": 1}
    assert here.check() == []


async def test_reservation_counts_the_members_that_have_just_left(two):
    """Their leaves are not written yet: they are still in the list."""
    here, there = two
    for key in ("ada", "bob"):
        await here.join("foo", member=(key, "{}"))
    seen, run = [], here._publisher.steps.run

    def leave_and_run(script, *rest, **named):
        if script != RESERVE or seen:
            return run(script, *rest, **named)
        here.leave("foo", "ada")
        here.leave("foo", "bob")
        result = run(script, *rest, **{**named, "count": here._local.count("foo")})
        seen.append(there.members("foo"))
        return result

    here._publisher.steps.run = leave_and_run
    assert await here.join("foo", 10)

    await here.settled()

    assert [(connections(found), found.connections) for found in seen] == [(2, 3)]
    assert (there.count("foo"), listed(there)) == (1, {})
