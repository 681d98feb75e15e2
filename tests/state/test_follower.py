"""The changes of a state that wait until they are taken."""

import pytest

from echo.state import follower as followers
from echo.state.follower import Follower


@pytest.fixture
def wakes():
    return []


@pytest.fixture
def follower(state, wakes):
    """A follower of all names but "other", which has taken the first read."""
    follower = Follower(state, lambda: wakes.append(1), lambda name: name != "other")
    follower.take()
    return follower


def test_counts_are_read_first(state, wakes):
    assert Follower(state, lambda: wakes.append(1)).take() == (True, {}, {})


def test_last_change_of_each_name_is_taken_once(state, follower):
    for name in ("foo", "foo", "bar"):
        state.add(((name, None),))
    state.leave("bar")

    assert follower.take() == (False, {"foo": (2, 2), "bar": (4, 0)}, {})
    assert follower.take() == (False, {}, {})


def test_first_change_wakes(state, follower, wakes):
    for _ in range(2):
        state.add((("foo", None),))
        state.add((("foo", None),))
        follower.take()

    assert len(wakes) == 2


def test_change_of_another_name_does_not_wake(state, follower, wakes):
    state.add((("other", None),))

    assert (follower.take(), wakes) == ((False, {}, {}), [])


def test_failed_step_is_followed_by_a_read(state, follower, wakes):
    state.add((("foo", None),))
    follower.take()

    follower.read_again()

    assert (follower.take(), len(wakes)) == ((True, {}, {}), 2)


def test_more_changes_than_the_limit_are_read_instead(state, follower, monkeypatch):
    monkeypatch.setattr(followers, "MAX_CHANGES", 2)
    for name in ("a", "b", "c", "d"):
        state.add(((name, None),))

    assert follower.take() == (True, {"d": (4, 1)}, {})


def test_stopped_follower_gets_no_change(state, follower, wakes):
    follower.stop()

    state.add((("foo", None),))

    assert (follower.take(), wakes) == ((False, {}, {}), [])
