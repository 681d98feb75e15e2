"""Steps that reach Redis after the process has given them up."""

import asyncio

import pytest

from echo.state.redis.reservations import RESERVE
from echo.state.redis.write_scripts import WRITE
from tests.faults.link import REPLIES, REQUESTS
from tests.states import argument, counts_or_unknown, known, linked_state, redis_state, share
from tests.waiting import eventually


def is_write(request):
    return argument(request, WRITE, "id") is not None


def is_whole_write(request):
    return argument(request, WRITE, "begin") == b"1"


def is_reservation(request):
    return argument(request, RESERVE, "id") is not None


@pytest.fixture
async def two(redis_url):
    """Two states, and the link of the first. All scripts are loaded."""
    with linked_state(redis_url) as (here, link), redis_state(redis_url) as there:
        assert await here.join("bar", limit=9)
        here.leave("bar")
        await here.settled()
        yield here, there, link


def accept(link, state):
    """Let its next attempts pass."""
    link.hold_no_more()
    eventually(lambda: state.health.is_outage, False)


@pytest.mark.parametrize("wanted", [is_write, is_whole_write])
async def test_write_after_its_retry_changes_nothing(two, client, wanted):
    here, there, link = two
    link.hold(REQUESTS, wanted)
    client.delete(share(here))  # the next write is of the whole share
    await here.join("foo")
    eventually(lambda: here.health.is_outage, True)
    here.leave("foo")
    accept(link, here)
    assert known(there) == {}

    assert link.release() > 0

    assert there.counts() == {}


async def test_reservation_after_the_next_write_changes_nothing(two):
    here, there, link = two
    link.hold(REQUESTS, is_reservation)
    assert await here.join("foo", limit=9)
    accept(link, here)
    here.leave("foo")
    await here.settled()
    assert known(there) == {}

    assert link.release() > 0

    assert there.counts() == {}


async def test_reservation_without_a_reply_is_undone_if_the_join_was_cancelled(two, client):
    here, there, link = two
    link.hold(REPLIES, is_reservation)
    join = asyncio.ensure_future(here.join("foo", limit=9))
    await asyncio.sleep(0)  # it has begun
    eventually(lambda: client.hget(share(here), "foo"), b"1")
    join.cancel()
    with pytest.raises(asyncio.CancelledError):
        await join
    accept(link, here)

    eventually(lambda: counts_or_unknown(there), {})
    assert known(here) == {}


@pytest.mark.parametrize(("limit", "wanted"), [(None, is_write), (9, is_reservation)])
async def test_repeated_step_has_the_result_of_the_first(two, client, limit, wanted):
    """The client tries again at once, if a reply is lost."""
    here, there, link = two
    requests = []

    def is_first(request):
        if wanted(request):
            requests.append(request)
        return wanted(request) and len(requests) == 1

    link.hold(REPLIES, is_first)
    client.delete(share(here))

    assert await here.join("foo", limit)

    eventually(lambda: counts_or_unknown(there), {"foo": 1})
    assert requests[0] == requests[1]
