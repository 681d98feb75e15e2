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
        self._run, state._publisher.steps._run = state._publisher.steps._run, self._run_or_give_up

    def _run_or_give_up(self, *step, **named):
        if not self._wanted(*step, **named):
            return self._run(*step, **named)
        self.steps.append((step, named))
        if self._at_once:
            self._run(*step, **named)
        raise redis.TimeoutError("given up")

    def end(self):
        self._wanted = lambda *step, **named: False
        eventually(lambda: self._state._health.is_outage, False)

    def arrive(self):
        return [self._run(*step, **named) for step, named in self.steps]


class Repeated:
    """Runs each step twice, as the client of a cluster does if the first reply is lost."""

    def __init__(self, state):
        self.results = []
        self._run, state._publisher.steps._run = state._publisher.steps._run, self._run_twice

    def _run_twice(self, *step, **named):
        self.results.append([self._run(*step, **named), self._run(*step, **named)])
        return self.results[-1][-1]


def is_write(script, *rest, **named):
    return script == scripts.WRITE


def is_whole_write(script, *rest, begin=0, **named):
    return script == scripts.WRITE and begin


def is_reservation(script, *rest, **named):
    return script == scripts.RESERVE


@pytest.mark.parametrize("wanted", [is_write, is_whole_write])
async def test_write_after_its_retry_changes_nothing(two, client, wanted):
    here, there = two
    given_up = GivenUp(here, wanted)
    client.delete(share(here))  # the next write is of the whole share
    await here.join("foo")
    eventually(lambda: here._health.is_outage, True)
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

    assert set(results) == {scripts.STALE}
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
