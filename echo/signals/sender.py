"""Sends the signals: polls the counts and compares them with those last recorded in the ledger."""

import logging
import time
from collections.abc import Iterator
from contextlib import suppress
from math import inf
from threading import Thread
from typing import Any

from django.db import close_old_connections
from django.dispatch import Signal

from echo.conf import conf
from echo.exceptions import StateUnavailable
from echo.objects import NamedObject
from echo.signals import ALL, count_changed, object_occupied, object_vacated
from echo.state import get_state
from echo.state.base import State

logger = logging.getLogger(__name__)

POLL_INTERVAL = 0.2  # seconds
# Each pause is at least this many times as long as the poll before it: polls take at most a tenth
# of the time of this process and of Redis.
PAUSE_FACTOR = 9
# Before sending each signal, the leader renews its lease if the last renewal is older than this.
RENEW_INTERVAL = 0.05  # seconds

Event = tuple[Signal, dict[str, Any]]


def start_sender(state: State, **kwargs: Any) -> None:
    """Start the sender thread of the state if any signal has receivers.

    A receiver of the signal `state_created`.
    """
    if _has_receivers() and state.ledger.acquire():
        Thread(target=_run, args=[state], name="echo-signals", daemon=True).start()


def start_sender_on_request(**kwargs: Any) -> None:
    """Call `start_sender`, for receivers that were connected after the state was created.

    A receiver of Django's signal `request_started`. Processes that serve only HTTP also send
    signals, because the processes that count connections may have been killed.
    """
    if _has_receivers():
        start_sender(get_state())


def _has_receivers() -> bool:
    return any(signal.receivers for signal in ALL)


def _run(state: State) -> None:
    sender = SignalSender(state)
    # Read once before the first poll: the first read of a process may wait for other processes, and
    # the pause after a slow poll is long.
    with suppress(StateUnavailable):
        state.count(conf.ECHO_DEFAULT_OBJECT)
    pause = 0.0
    while not state.closed.wait(pause):
        try:
            pause = min(sender.step(), state.ledger.renew_interval)
        except StateUnavailable:
            pause = state.ledger.renew_interval
        except Exception:
            logger.exception("Signals could not be sent, retrying.")
            pause = state.ledger.renew_interval


class SignalSender:
    """Sends the signals of a state while this process is the leader. Not thread-safe."""

    def __init__(self, state: State) -> None:
        self._state = state
        # name -> time.monotonic() from which the object counts as vacated
        self._vacated_at: dict[str, float] = {}
        self._next_poll = 0.0  # time.monotonic()

    def step(self) -> float:
        """Poll if a poll is due, else renew the lease. Return the seconds until the next poll."""
        now = time.monotonic()
        if now < self._next_poll and self._state.ledger.lead():
            return self._next_poll - now
        if not self.poll(now):
            return inf
        took = time.monotonic() - now
        self._next_poll = now + took + max(POLL_INTERVAL, PAUSE_FACTOR * took)
        return self._next_poll - time.monotonic()

    def poll(self, now: float) -> bool:
        """Send signals for all changes; return False if another process is the leader.

        The changes are recorded first, so that no signal is sent twice if this process is killed.
        """
        renewed = time.monotonic()
        if not self._state.ledger.lead():
            self._vacated_at.clear()
            return False
        changes: dict[str, int | None] = {}
        events: list[Event] = []
        for name, count, events_of_name in self._changes(self._state.counts(), now):
            changes[name] = count
            events += events_of_name
        if changes and not self._state.ledger.record(changes):
            return False
        for signal, params in events:
            if time.monotonic() - renewed > RENEW_INTERVAL:
                renewed = time.monotonic()
                with suppress(StateUnavailable):  # send recorded changes in any case
                    self._state.ledger.lead()
            _send(signal, params)
        return True

    def _changes(
        self, counts: dict[str, int], now: float
    ) -> Iterator[tuple[str, int | None, list[Event]]]:
        recorded = self._state.ledger.recorded
        for name, count in counts.items():
            previous = recorded.get(name)
            if previous != count:
                self._vacated_at.pop(name, None)
                params = {"name": name, "count": count, "previous": previous or 0}
                events: list[Event] = [(count_changed, params)]
                if previous is None:
                    events.insert(0, (object_occupied, {"name": name, "count": count}))
                yield name, count, events
        for name in recorded.keys() - counts.keys():
            vacated_at = self._vacated_at.setdefault(name, now + conf.ECHO_VACATED_DELAY)
            if previous := recorded[name]:
                params = {"name": name, "count": 0, "previous": previous}
                yield name, 0, [(count_changed, params)]
            elif now >= vacated_at:
                del self._vacated_at[name]
                yield name, None, [(object_vacated, {"name": name})]


def _send(signal: Signal, params: dict[str, Any]) -> None:
    """Send the signal to all receivers; Django logs their exceptions."""
    close_old_connections()
    try:
        signal.send_robust(NamedObject, **params)
    finally:
        close_old_connections()
