"""get_state() and its signal."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from echo.state import get_state, state_created


def test_all_threads_get_the_same_state():
    with ThreadPoolExecutor(8) as threads:
        states = set(threads.map(lambda _: get_state(), range(100)))

    assert states == {get_state()}


@pytest.fixture
def created(settings):
    """The states that `state_created` was sent for, beginning without a state."""
    settings.ECHO_LEASE_SECONDS = 4  # a change drops the state
    created = []

    def receive(sender, state, **kwargs):
        assert (sender, get_state()) == (type(state), state)
        created.append(state)

    state_created.connect(receive)
    yield created
    state_created.disconnect(receive)


def test_state_created_is_sent_once_for_each_state(created):
    states = {get_state(), get_state()}

    assert states == set(created)
    assert len(created) == 1


def test_exception_of_a_state_created_receiver_breaks_nothing(created, caplog):
    def fail(**kwargs):
        raise RuntimeError("of the site")

    state_created.connect(fail)
    try:
        assert [get_state()] == created
    finally:
        state_created.disconnect(fail)

    assert "of the site" in caplog.text
