"""The state of this process in a test: in memory, or also on Redis."""

import pytest

from echo.state.memory import MemoryState
from tests.states import redis_state


@pytest.fixture(params=["memory", "redis"])
def state(request, monkeypatch, settings):
    if "limit" in request.fixturenames:  # before: a change of a setting closes the state
        settings.ECHO_MAX_CONNECTIONS = request.getfixturevalue("limit")
    if request.param == "memory":
        state = MemoryState()
        monkeypatch.setattr("echo.state._state", state)
        yield state
        return
    with redis_state(request.getfixturevalue("redis_url")) as state:
        monkeypatch.setattr("echo.state._state", state)
        yield state


@pytest.fixture
def memory(monkeypatch):
    state = MemoryState()
    monkeypatch.setattr("echo.state._state", state)
    return state
