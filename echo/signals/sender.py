"""Sends the signals: compares the counts with those that were told last, again and again."""

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

PERIOD = 0.2  # seconds between two looks
# A look may take a tenth of the time at the most, of this process and of Redis.
REST = 9  # times as long as the look took
# While receivers are called the post is kept: renewed so soon that no call begins on an old lease.
KEEP = 0.05  # seconds

Told = tuple[Signal, dict[str, Any]]


def start_sender(state: State, **kwargs: Any) -> None:
    """Start the sender thread of the state if any signal has receivers.

    Receives `state_created`.
    """
    if _has_receivers() and state.ledger.acquire():
        Thread(target=_run, args=[state], name="echo-signals", daemon=True).start()


def start_sender_on_request(**kwargs: Any) -> None:
    """As `start_sender`, for receivers that were connected after the state was created.

    Receives Django's `request_started`. A process that serves only HTTP sends signals as well: the
    processes that count connections may have been killed.
    """
    if _has_receivers():
        start_sender(get_state())


def _has_receivers() -> bool:
    return any(signal.receivers for signal in ALL)


def _run(state: State) -> None:
    announcer = Announcer(state)
    with suppress(StateUnavailable):  # the first read may wait for others: no work to rest from
        state.count(conf.ECHO_DEFAULT_OBJECT)
    pause = 0.0
    while not state.closed.wait(pause):
        try:
            pause = min(announcer.step(), state.ledger.renew_interval)
        except StateUnavailable:
            pause = state.ledger.renew_interval
        except Exception:
            logger.exception("The changes of the counts could not be told; they will be.")
            pause = state.ledger.renew_interval


class Announcer:
    """What is to be told of a state. For one thread."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._vacating: dict[str, float] = {}  # name -> time.monotonic() when it is told
        self._next_look = 0.0  # time.monotonic()

    def step(self) -> float:
        """Look if it is time, and keep the post; return the seconds until the next look is due."""
        now = time.monotonic()
        if now < self._next_look and self._state.ledger.lead():
            return self._next_look - now
        if not self.look(now):
            return inf
        took = time.monotonic() - now
        self._next_look = now + took + max(PERIOD, REST * took)
        return self._next_look - time.monotonic()

    def look(self, now: float) -> bool:
        """Tell what has changed, or return False if that is for another process to do.

        What is told is noted first: it is told once, even if this process ends meanwhile.
        """
        kept = time.monotonic()
        if not self._state.ledger.lead():
            self._vacating.clear()
            return False
        changes: dict[str, int | None] = {}
        told: list[Told] = []
        for name, count, events in self._changes(self._state.counts(), now):
            changes[name] = count
            told += events
        if changes and not self._state.ledger.record(changes):
            return False
        for signal, arguments in told:
            if time.monotonic() - kept > KEEP:
                kept = time.monotonic()
                with suppress(StateUnavailable):  # what is noted is told all the same
                    self._state.ledger.lead()
            _send(signal, arguments)
        return True

    def _changes(
        self, counts: dict[str, int], now: float
    ) -> Iterator[tuple[str, int | None, list[Told]]]:
        known = self._state.ledger.recorded
        for name, count in counts.items():
            before = known.get(name)
            if before != count:
                self._vacating.pop(name, None)
                changed = {"name": name, "count": count, "previous": before or 0}
                events: list[Told] = [(count_changed, changed)]
                if before is None:
                    events.insert(0, (object_occupied, {"name": name, "count": count}))
                yield name, count, events
        for name in known.keys() - counts.keys():
            due = self._vacating.setdefault(name, now + conf.ECHO_VACATED_DELAY)
            if before := known[name]:
                yield name, 0, [(count_changed, {"name": name, "count": 0, "previous": before})]
            elif now >= due:
                del self._vacating[name]
                yield name, None, [(object_vacated, {"name": name})]


def _send(signal: Signal, arguments: dict[str, Any]) -> None:
    """Send to all receivers; what they raise is logged by Django, and nobody else's business."""
    close_old_connections()
    try:
        signal.send_robust(NamedObject, **arguments)
    finally:
        close_old_connections()
