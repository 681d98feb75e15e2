"""Sends the signals: compares each change with what was last recorded in the ledger."""

import logging
import time
from collections.abc import Mapping
from math import inf
from threading import Event, Thread
from typing import Any

from django.db import close_old_connections
from django.dispatch import Signal

from echo.conf import conf
from echo.exceptions import StateUnavailable
from echo.log import is_due
from echo.members import Presence, parse_presence, split_entry
from echo.objects import NamedObject
from echo.signals import (
    ALL,
    OF_MEMBERS,
    count_changed,
    member_joined,
    member_left,
    object_occupied,
    object_vacated,
)
from echo.state import get_state
from echo.state.base import EXTRA, State
from echo.state.follower import Follower, is_object
from echo.state.ledger import Recorded

logger = logging.getLogger(__name__)

STEP_INTERVAL = 0.2  # seconds; changes in between are combined
COPY_INTERVAL = 0.02  # seconds between two steps of a process that is not the leader
LEADER_INTERVAL = 0.5  # seconds between checks whether this process has become the leader

Calls = list[tuple[Signal, dict[str, Any]]]  # signals to send, and their arguments


def start_sender(state: State | None = None, **kwargs: Any) -> None:
    """Start the sender thread of the state if any signal has receivers.

    A receiver of the signal `state_created`, and of Django's `request_started`: receivers may be
    connected after the state was created. Processes that serve only HTTP also send signals, because
    the processes that count connections may have been killed.
    """
    if any(signal.receivers for signal in ALL):
        state = get_state() if state is None else state
        if state.ledger.acquire():
            Thread(target=_run, args=[state], name="echo-signals", daemon=True).start()


def _run(state: State) -> None:
    sender = SignalSender(state)
    while not state.closed.is_set():
        try:
            interval = STEP_INTERVAL if sender.step() else COPY_INTERVAL
        except Exception as error:
            interval = STEP_INTERVAL
            if not isinstance(error, StateUnavailable) and is_due("signals"):
                logger.exception("Signals could not be sent, retrying.")
        if not state.closed.wait(interval):
            sender.wait_for_work()
    sender.stop()


class SignalSender:
    """Sends the signals of a state while this process is the leader.

    In the other processes it does the same, but sends nothing, so that the ledger is up to date in
    a process that becomes the leader. Not thread-safe.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._leads = False
        # Name or entry name -> time.monotonic() from which the object counts as vacated, or the
        # member as left
        self._gone_at: dict[str, float] = {}
        self._number = 0  # of the last change in the counts that were read
        self._with_members = False  # whether the signals of members have receivers
        self._wake = Event()
        self._follower = Follower(state, self._wake.set, self._follows)
        self.stop = self._follower.stop

    def _follows(self, name: str) -> bool:
        return is_object(name) or (self._with_members and "/" in name)

    def wait_for_work(self) -> None:
        """Return at the next change, or when an object may be vacated or the leader replaced."""
        until = min(self._gone_at.values(), default=inf)
        self._wake.wait(min(until - time.monotonic(), LEADER_INTERVAL))

    def step(self, now: float | None = None) -> bool:
        """Send signals for all changes; return False if another process is the leader.

        While the signals of members have no receivers, members are neither followed nor read. The
        changes are recorded first, so that no signal is sent twice if this process is killed.
        Raises StateUnavailable if the counts are unknown, or if no process is the leader.
        """
        ledger = self._state.ledger
        led, self._leads = self._leads, ledger.lead()
        self._wake.clear()
        followed, self._with_members = self._with_members, any(s.receivers for s in OF_MEMBERS)
        must_read, changes, members = self._follower.take()
        try:
            values: dict[str, Recorded] = {}  # 0: vacated, or left
            if must_read or (self._leads and not led) or followed != self._with_members:
                self._number, counts = self._state.snapshot()
                counts.pop(EXTRA, None)
                present = self._state.members_of(counts) if self._with_members else {}
                values = {**dict.fromkeys(ledger.recorded, 0), **counts, **present}
            values |= {name: count for name, (n, count) in changes.items() if n > self._number}
            for entry, (n, text) in members.items():
                if n > self._number:
                    values[entry] = parse_presence(text) or 0
            now = time.monotonic() if now is None else now  # a read may take seconds
            records, signals = self._compare(values, now)
            record = ledger.record if self._leads else ledger.copy
            if records and not record(records):
                raise StateUnavailable("The process that sends the signals is being replaced.")
        except BaseException:
            self._follower.read_again()
            raise
        if self._leads:
            for signal, params in signals:
                close_old_connections()
                signal.send_robust(NamedObject, **params)  # logs the exceptions of receivers
                close_old_connections()
        return self._leads

    def _compare(
        self, values: Mapping[str, Recorded], now: float
    ) -> tuple[dict[str, Recorded | None], Calls]:
        """Return what to record (None: vacated, or left) and the signals to send."""
        recorded = self._state.ledger.recorded
        records: dict[str, Recorded | None] = {}
        signals: Calls = []
        for name, value in values.items():
            previous = recorded.get(name)
            if value:
                self._gone_at.pop(name, None)
            elif previous is not None:
                self._gone_at.setdefault(name, now + conf.ECHO_VACATED_DELAY)
            if isinstance(value, Presence):
                if not isinstance(previous, Presence):
                    records[name] = value
                    signals.append((member_joined, _arguments(name, value)))
                elif value.info != previous.info:
                    records[name] = value._replace(since=previous.since)
            elif "/" not in name and value != (previous or 0):
                records[name] = value
                if previous is None:
                    signals.append((object_occupied, {"name": name, "count": value}))
                params = {"name": name, "count": value, "previous": previous or 0}
                signals.append((count_changed, params))
        due = [name for name, at in self._gone_at.items() if now >= at]
        for name in sorted(due, key=lambda name: "/" not in name):  # members before their object
            del self._gone_at[name]
            previous = recorded.get(name)
            if previous is None:  # the leader before this process has sent the signal
                continue
            records[name] = None
            if isinstance(previous, Presence):
                left = previous._replace(connections=0)
                signals.append((member_left, _arguments(name, left)))
            else:
                signals.append((object_vacated, {"name": name}))
        return records, signals


def _arguments(entry: str, presence: Presence) -> dict[str, Any]:
    name, key = split_entry(entry)
    return {"name": name, "member": presence.member(key)}
