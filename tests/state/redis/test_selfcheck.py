"""The totals on Redis are compared with the sums of the shares, and repaired."""

import logging

import pytest

from echo.state.redis import scripts
from echo.stats import process_stats
from tests.states import messages, redis_state
from tests.waiting import SECOND, eventually


@pytest.fixture
def often(monkeypatch):
    monkeypatch.setattr("echo.state.redis.selfcheck.INTERVAL", 0.1 * SECOND)


@pytest.fixture
def errors(caplog):
    caplog.set_level(logging.ERROR)
    return lambda: messages(caplog)


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("total", [7, 1, 0])
async def test_wrong_total_is_repaired_logged_and_counted(redis_url, client, errors, total):
    before = process_stats.wrong_totals
    with redis_state(redis_url) as here, redis_state(redis_url) as there:
        await here.join("foo")
        await there.join("foo")
        await there.join("bar")
        if total:
            client.hset(scripts.TOTALS, "foo", total)
        else:
            client.hdel(scripts.TOTALS, "foo")

        eventually(lambda: process_stats.wrong_totals - before, 1)

        assert here.counts() == {"foo": 2, "bar": 1}
    assert errors() == [
        f"""Totals on Redis were wrong and are repaired: ["'foo': {total} instead of 2"]"""
    ]


@pytest.mark.usefixtures("often")
async def test_total_without_a_share_is_deleted(redis_url, client, errors):
    with redis_state(redis_url) as state:
        client.hset(scripts.TOTALS, "ghost", 3)

        eventually(lambda: client.hexists(scripts.TOTALS, "ghost"), False)

        assert state.counts() == {}
    assert errors() == [
        """Totals on Redis were wrong and are repaired: ["'ghost': 3 instead of 0"]"""
    ]


@pytest.mark.usefixtures("often")
async def test_followers_learn_of_a_repair(redis_url, client):
    changes = []
    with redis_state(redis_url) as state:
        state.listen(lambda number, each, members: changes.append(each))
        eventually(lambda: changes, [None])
        await state.join("foo")
        eventually(lambda: {"foo": 1} in changes, True)
        client.hset(scripts.TOTALS, "foo", 5)
        await state.join("bar")

        eventually(lambda: changes[-1:], [{"foo": 1}])


@pytest.mark.usefixtures("often")
async def test_right_totals_give_no_error(redis_url, errors):
    with redis_state(redis_url) as here, redis_state(redis_url) as there:
        for number in range(300):
            await here.join(f"name-{number % 20}")
            await there.join(f"name-{number % 30}")
            here.leave(f"name-{number % 20}")

    assert errors() == []
