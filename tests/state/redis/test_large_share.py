"""A share of many names is divided into small hashes, which Redis stores compactly."""

import asyncio
from threading import Event

import pytest

from echo.state.redis.reservations import Reservations
from tests.states import counts_or_unknown, known, names_in_share, share
from tests.waiting import eventually

NAMES = [f"name-{number}" for number in range(1500)]


async def join_all(state, names):
    await asyncio.gather(*map(state.join, names))
    await state.settled()


def buckets(client, state):
    return client.keys(f"{share(state)}/*")


async def test_each_name_is_in_one_hash_and_all_hashes_are_compact(steady, client):
    here, there = steady

    for first in range(0, len(NAMES), 100):
        await join_all(here, NAMES[first : first + 100])
    await join_all(there, NAMES[:200])

    assert known(there) == dict.fromkeys(NAMES[:200], 2) | dict.fromkeys(NAMES[200:], 1)
    assert names_in_share(client, here) == {name.encode() for name in NAMES}
    assert len(buckets(client, here)) > 10
    assert buckets(client, there) == []
    encodings = {client.object("encoding", key) for key in buckets(client, here)}
    assert encodings <= {b"listpack", b"ziplist"}


async def test_process_that_exits_leaves_no_bucket(redis_url, steady, client):
    here, there = steady
    await join_all(here, NAMES)
    assert buckets(client, here) != []

    here.close()

    assert known(there) == {}
    eventually(lambda: client.keys(f"{share(here)}*"), [])


@pytest.mark.parametrize("finds_it", ["write", "check"])
async def test_evicted_bucket_is_written_again(steady, client, finds_it):
    """A Redis with `maxmemory-policy allkeys-lru` may drop any key."""
    here, there = steady
    await join_all(here, NAMES)
    bucket = buckets(client, here)[0]
    name = next(name for name in client.hkeys(bucket) if not name.startswith(b"/")).decode()

    client.delete(bucket)
    if finds_it == "write":
        await here.join(name)
    else:
        there.check()
        assert counts_or_unknown(there) == dict.fromkeys(NAMES, 1)
        await here.join("another")
    here.leave("another" if finds_it == "check" else name)

    assert known(there) == dict.fromkeys(NAMES, 1)
    assert names_in_share(client, here) == {name.encode() for name in NAMES}


async def test_share_may_grow_by_very_many_reservations_at_once(steady, client, monkeypatch):
    """After an outage, for example: Lua cannot handle as many names in one call of Redis."""
    here, there = steady
    is_known, reserve = Event(), Reservations._reserve

    def reserve_when_known(self, groups):
        return reserve(self, groups) if is_known.is_set() else None

    monkeypatch.setattr(Reservations, "_reserve", reserve_when_known)
    names = [f"name-{number}" for number in range(16_000)]
    joins = asyncio.gather(*(here.join_all(((name, 1),)) for name in names))
    await asyncio.sleep(0.5)
    is_known.set()

    assert set(await joins) == {None}
    await here.settled()
    assert known(there) == dict.fromkeys(names, 1)
    assert len(buckets(client, here)) > len(names) / 128
