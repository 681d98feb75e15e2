"""Steps that reach Redis late: the process has given them up."""

import asyncio

import pytest
import redis

from echo.state.redis import scripts
from tests.states import known, share, told
from tests.waiting import eventually


class GivenUp:
    """Gives up the writing steps that are `wanted`; Redis gets them from `arrive`, or at once."""

    def __init__(self, state, wanted, at_once=False):
        self.steps = []
        self._state, self._wanted, self._at_once = state, wanted, at_once
        self._run, state._writer._redis.run = state._writer._redis.run, self._run_or_give_up

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
    """Makes each step twice, as the client of a cluster does if the first answer is lost."""

    def __init__(self, state):
        self.answers = []
        self._run, state._writer._redis.run = state._writer._redis.run, self._run_twice

    def _run_twice(self, *step):
        self.answers.append([self._run(*step), self._run(*step)])
        return self.answers[-1][-1]


def is_write(script, keys, args):
    return script == scripts.WRITE


def is_whole_write(script, keys, args):
    return script == scripts.WRITE and args[6] == 1


def is_reservation(script, keys, args):
    return script == scripts.RESERVE


@pytest.mark.parametrize("wanted", [is_write, is_whole_write])
async def test_write_that_comes_after_its_retry_changes_nothing(two, client, wanted):
    here, there = two
    given_up = GivenUp(here, wanted)
    client.delete(share(here))  # the next write is of the whole share
    await here.join("foo")
    eventually(lambda: here._writer._outage, True)
    here.leave("foo")
    given_up.end()
    assert known(there) == {}

    answers = given_up.arrive()

    assert set(answers) == {0}
    assert there.counts() == {}


async def test_reservation_that_comes_after_the_next_write_changes_nothing(two):
    here, there = two
    given_up = GivenUp(here, is_reservation)
    assert await here.join("foo", limit=9)
    given_up.end()
    here.leave("foo")
    await here.settled()
    assert known(there) == {}

    answers = given_up.arrive()

    assert set(answers) == {scripts.MISSING}
    assert there.counts() == {}


async def test_reservation_without_an_answer_for_one_who_has_left_is_taken_back(two):
    here, there = two
    given_up = GivenUp(here, is_reservation, at_once=True)
    join = asyncio.ensure_future(here.join("foo", limit=9))
    await asyncio.sleep(0)  # it has begun
    eventually(lambda: len(given_up.steps), 1)
    join.cancel()
    with pytest.raises(asyncio.CancelledError):
        await join
    given_up.end()

    assert known(there) == known(here) == {}


@pytest.mark.parametrize("limit", [None, 9])
async def test_step_that_is_repeated_has_the_answer_of_the_first(two, client, limit):
    here, there = two
    repeated = Repeated(here)
    client.delete(share(here))

    assert await here.join("foo", limit)

    eventually(lambda: told(there), {"foo": 1})
    assert repeated.answers
    assert all(first == second for first, second in repeated.answers)
