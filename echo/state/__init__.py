"""This process's one state object, which knows how many connections each object has."""

import logging
import os
from threading import Lock
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.dispatch import Signal, receiver

from echo.conf import conf, require_no_problem
from echo.state.base import State
from echo.state.memory import MemoryState
from echo.state.unavailable import UnavailableState

logger = logging.getLogger(__name__)

# Sent with `sender=` the class and `state=`, when a process has created its state.
state_created = Signal()

_state: State | None = None
_lock = Lock()


def get_state() -> State:
    """Return the state object of this process, made on first use from ECHO_STATE_URL.

    May be called from any thread. Where the settings of the state cannot be used, that is logged,
    and all counts are unknown. Raises ImproperlyConfigured if another setting is wrong.
    """
    global _state
    if (state := _state) is None:
        with _lock:
            if _state is not None:
                return _state
            state = _state = _make_state()
        # Without the lock, so that receivers may call get_state().
        state_created.send_robust(type(state), state=state)
    return state


def _make_state() -> State:
    try:
        url, lease, heartbeat = (
            conf.ECHO_STATE_URL,
            conf.ECHO_LEASE_SECONDS,
            conf.ECHO_HEARTBEAT_SECONDS,
        )
    except ImproperlyConfigured as error:  # the site runs on
        logger.error("Connections are not affected, counts are unknown: %s", error)
        return UnavailableState(str(error))
    require_no_problem()
    if url.startswith("memory:"):
        return MemoryState()
    # The package redis is an extra: who counts in memory needs none.
    from echo.state.redis.state import RedisState

    return RedisState(url, lease, heartbeat)


@receiver(setting_changed)
def _drop(*, setting: str, **kwargs: Any) -> None:
    global _state
    if setting.startswith("ECHO_") and _state is not None:
        _state.close()
        _state = None


def _forget() -> None:
    """A forked child has no connections yet, and shares no thread or socket with its parent."""
    global _state, _lock
    _state, _lock = None, Lock()


os.register_at_fork(after_in_child=_forget)
