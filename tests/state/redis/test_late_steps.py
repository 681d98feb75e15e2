"""Steps that reach Redis after the process has given them up."""

import asyncio

import pytest
import redis

from echo.state.redis import scripts
from tests.states import counts_or_unknown, known, share
from tests.waiting import eventually


class GivenUp:
    """Gives up the writes that are `wanted`; Redis runs them at `arrive`, or at once."""

    def __init__(self, state, wanted, at_once=False):
        self.steps = []
        self._state, self._wanted, self._at_once = state, wanted, at_once
        self._run, state._writer._client.run = state._writer._client.run, self._run_or_give_up

    def _run_or_give_up(self, *step):
        if not self._wanted(*step):
            return self._run(*step)
        self.steps.append(step)
        if self._at_once:
            self._run(*step)
        raise redis.TimeoutError("given up")

    def end(self):
        self._wanted = lambda *step: False
        eventually(lambda: self._state._writer._outage, False)

    def arrive(self):
        return [self._run(*step) for step in self.steps]


class Repeated:
    """Runs each step twice, as the client of a cluster does if the first reply is lost."""

    def __init__(self, state):
        self.results = []
        self._run, state._writer._client.run = state._writer._client.run, self._run_twice

    def _run_twice(self, *step):
        self.results.append([self._run(*step), self._run(*step)])
        return self.results[-1][-1]


def is_write(script, keys, args):
    return script == scripts.WRITE


def is_whole_write(script, keys, args):
    return script == scripts.WRITE and args[6] == 1


def is_reservation(script, keys, args):
    return script == scripts.RESERVE


@pytest.mark.parametrize("wanted", [is_write, is_whole_write])
async def test_write_after_its_retry_changes_nothing(two, client, wanted):
    here, there = two
    given_up = GivenUp(here, wanted)
    client.delete(share(here))  # the next write is of the whole share
    await here.join("foo")
    eventually(lambda: here._writer._outage, True)
    here.leave("foo")
    given_up.end()
    assert known(there) == {}

    results = given_up.arrive()

    assert set(results) == {0}
    assert there.counts() == {}


async def test_reservation_after_the_next_write_changes_nothing(two):
    here, there = two
    given_up = GivenUp(here, is_reservation)
    assert await here.join("foo", limit=9)
    given_up.end()
    here.leave("foo")
    await here.settled()
    assert known(there) == {}

    results = given_up.arrive()

    assert set(results) == {scripts.MISSING}
    assert there.counts() == {}


async def test_reservation_without_a_reply_is_undone_if_the_join_was_cancelled(two):
    here, there = two
    given_up = GivenUp(here, is_reservation, at_once=True)
    join = asyncio.ensure_future(here.join("foo", limit=9))
    await asyncio.sleep(0)  # it has begun
    eventually(lambda: len(given_up.steps), 1)
    join.cancel()
    with pytest.raises(asyncio.CancelledError):
        await join
    given_up.end()

    eventually(lambda: counts_or_unknown(there), {})
    assert known(here) == {}


@pytest.mark.parametrize("limit", [None, 9])
async def test_repeated_step_has_the_result_of_the_first(two, client, limit):
    here, there = two
    repeated = Repeated(here)
    client.delete(share(here))

    assert await here.join("foo", limit)

    eventually(lambda: counts_or_unknown(there), {"foo": 1})
    assert repeated.results
    assert all(first == second for first, second in repeated.results)
