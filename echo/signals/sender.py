"""Sends the signals: compares each changed count with the one last recorded in the ledger."""

import logging
import time
from collections.abc import Iterator, Mapping
from threading import Condition, Thread
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

STEP_INTERVAL = 0.2  # seconds; changes in between are combined
COPY_INTERVAL = 0.02  # seconds between two steps of a process that is not the leader
LEADER_INTERVAL = 0.5  # seconds between checks whether this process has become the leader
RETRY_INTERVAL = 0.5  # seconds between attempts to read unknown counts
MAX_CHANGES = 100_000  # names that wait for the next step

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
    try:
        while not state.closed.is_set():
            try:
                is_leader = sender.step()
                interval = STEP_INTERVAL if is_leader or sender.must_read else COPY_INTERVAL
            except StateUnavailable:
                interval = RETRY_INTERVAL
            except Exception:
                logger.exception("Signals could not be sent, retrying.")
                interval = RETRY_INTERVAL
            if not state.closed.wait(interval):
                sender.wait_for_work()
    finally:
        sender.stop()


class SignalSender:
    """Sends the signals of a state while this process is the leader.

    In the other processes it does the same, but sends nothing, so that the ledger is up to date in
    a process that becomes the leader. Not thread-safe.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._leads = False
        # name -> time.monotonic() from which the object counts as vacated
        self._vacated_at: dict[str, float] = {}
        # Set in the threads that make changes.
        self._changed = Condition()
        self._changes: dict[str, tuple[int, int]] = {}  # numbers of the changes, and counts
        self.must_read = True  # any count may have changed
        self._number = 0  # of the last change in the counts that were read
        self.stop = state.listen(self._on_change)

    def _on_change(self, number: int, changes: Mapping[str, int] | None) -> None:
        with self._changed:
            if changes is None:
                self.must_read = True
            else:
                self._changes |= {name: (number, count) for name, count in changes.items()}
                if len(self._changes) > MAX_CHANGES:  # receivers are slow: read them instead
                    self._changes.clear()
                    self.must_read = True
            self._changed.notify()

    def wait_for_work(self) -> None:
        """Return at the next change, or when an object may be vacated or the leader replaced."""
        until = min(self._vacated_at.values(), default=time.monotonic() + LEADER_INTERVAL)
        timeout = min(max(until - time.monotonic(), 0), LEADER_INTERVAL)
        with self._changed:
            self._changed.wait_for(lambda: self.must_read or self._changes, timeout=timeout)

    def step(self, now: float | None = None) -> bool:
        """Send signals for all changes; return False if another process is the leader.

        The changes are recorded first, so that no signal is sent twice if this process is killed.
        """
        led, self._leads = self._leads, self._state.ledger.lead()
        with self._changed:
            taken, self._changes = self._changes, {}
            must_read, self.must_read = self.must_read, False
        is_recorded = False
        try:
            changes: dict[str, int] = {}
            if must_read or (self._leads and not led):
                self._number, counts = self._state.snapshot()
                changes = dict.fromkeys(self._state.ledger.recorded, 0) | counts
            changes |= {name: count for name, (n, count) in taken.items() if n > self._number}
            now = time.monotonic() if now is None else now  # a read may take seconds
            records: dict[str, int | None] = {}
            events: list[Event] = []
            for name, count, events_of_name in self._compare(changes, now):
                records[name] = count
                events += events_of_name
            ledger = self._state.ledger
            record = ledger.record if self._leads else ledger.copy
            is_recorded = not records or record(records)
        finally:
            if not is_recorded:
                self.must_read = True
        if self._leads and is_recorded:
            for signal, params in events:
                _send(signal, params)
        return self._leads

    def _compare(
        self, changes: Mapping[str, int], now: float
    ) -> Iterator[tuple[str, int | None, list[Event]]]:
        """Yield the names whose record changes, their counts and events; None: vacated."""
        recorded = self._state.ledger.recorded
        for name, count in changes.items():
            previous = recorded.get(name)
            if not count and previous is not None:
                self._vacated_at.setdefault(name, now + conf.ECHO_VACATED_DELAY)
            if count:
                self._vacated_at.pop(name, None)
            if count == (previous or 0):
                continue
            params = {"name": name, "count": count, "previous": previous or 0}
            events: list[Event] = [(count_changed, params)]
            if previous is None:
                events.insert(0, (object_occupied, {"name": name, "count": count}))
            yield name, count, events
        for name in [name for name, at in self._vacated_at.items() if now >= at]:
            del self._vacated_at[name]
            yield name, None, [(object_vacated, {"name": name})]


def _send(signal: Signal, params: dict[str, Any]) -> None:
    """Send the signal to all receivers; Django logs their exceptions."""
    close_old_connections()
    try:
        signal.send_robust(NamedObject, **params)
    finally:
        close_old_connections()
