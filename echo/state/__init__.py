"""This process's one state object, which knows how many connections each object has."""

from threading import Lock
from typing import Any

from django.core.signals import setting_changed
from django.dispatch import receiver

from echo.conf import require_no_problem
from echo.state.memory import MemoryState

_state: MemoryState | None = None
_lock = Lock()


def get_state() -> MemoryState:
    """Return the state object of this process, made on first use from ECHO_STATE_URL.

    May be called from any thread. Raises ImproperlyConfigured if a setting is wrong.
    """
    global _state
    if _state is None:
        require_no_problem()
        with _lock:
            if _state is None:
                _state = MemoryState()
    return _state


@receiver(setting_changed)
def _forget(*, setting: str, **kwargs: Any) -> None:
    global _state
    if setting.startswith("ECHO_"):
        _state = None
