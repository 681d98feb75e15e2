"""The state of this process: the number of connections of each object."""

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

# Sent when a process has created its state, with the arguments `sender` (its class) and `state`.
state_created = Signal()

_state: State | None = None
_lock = Lock()


def get_state() -> State:
    """Return the state of this process, created on first use from ECHO_STATE_URL.

    Thread-safe. If a setting of the state is invalid, logs the error, and all counts are unknown.
    Raises ImproperlyConfigured if another setting is invalid.
    """
    global _state
    if (state := _state) is None:
        with _lock:
            if _state is not None:
                return _state
            state = _state = _create_state()
        # Without the lock, so that receivers may call get_state().
        state_created.send_robust(type(state), state=state)
    return state


def _create_state() -> State:
    try:
        url, lease, heartbeat = (
            conf.ECHO_STATE_URL,
            conf.ECHO_LEASE_SECONDS,
            conf.ECHO_HEARTBEAT_SECONDS,
        )
    except ImproperlyConfigured as error:  # the site must work without counts
        logger.error("Counts are unknown, connections are not affected: %s", error)
        return UnavailableState(str(error))
    require_no_problem()
    if url.startswith("memory:"):
        return MemoryState()
    # Imported here, because sites that count in memory need not install redis.
    from echo.state.redis.state import RedisState

    return RedisState(url, lease, heartbeat)


@receiver(setting_changed)
def _close_on_change(*, setting: str, **kwargs: Any) -> None:
    global _state
    if setting.startswith("ECHO_") and _state is not None:
        _state.close()
        _state = None


def _drop_after_fork() -> None:
    """Drop the state in a forked child, which has no connections yet, and no threads."""
    global _state, _lock
    _state, _lock = None, Lock()


os.register_at_fork(after_in_child=_drop_after_fork)
