"""Senders of several processes without their threads, and receivers of what they send."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

from echo import signals
from echo.objects import NamedObject
from echo.signals.sender import SignalSender
from echo.state.base import State
from echo.state.redis.state import RedisState
from tests.states import redis_state, step
from tests.waiting import eventually

SIGNALS = {
    "occupied": signals.object_occupied,
    "vacated": signals.object_vacated,
    "changed": signals.count_changed,
    "joined": signals.member_joined,
    "left": signals.member_left,
}


@contextmanager
def receiving(*words: str) -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """Yield the list of these signals, in order: `("occupied", {"name": "foo", "count": 1})`."""
    received = []
    with ExitStack() as stack:
        for word in words:

            def receive(sender, signal, word=word, **arguments):
                assert sender is NamedObject
                received.append((word, arguments))

            SIGNALS[word].connect(receive)
            stack.callback(SIGNALS[word].disconnect, receive)
            stack.callback(lambda keep: None, receive)  # signals hold their receivers weakly
        yield received


@contextmanager
def candidate(state: State) -> Iterator[SignalSender]:
    """A sender of the state, without its thread."""
    assert state.ledger.acquire()
    sender = SignalSender(state)
    yield sender
    sender.stop()


def lead(sender: SignalSender) -> None:
    """Make it the leader: a process becomes the leader at its next heartbeat without one."""
    eventually(lambda: step(sender), True)


class Two(NamedTuple):
    """The states of two processes, and their senders: the first is the leader."""

    here: RedisState
    there: RedisState
    leader: SignalSender
    other: SignalSender


@contextmanager
def two_processes(url: str, other_url: str) -> Iterator[Two]:
    with redis_state(url) as here, redis_state(other_url) as there, candidate(here) as leader:
        lead(leader)
        with candidate(there) as other:
            yield Two(here, there, leader, other)


def step_both(two: Two, now: float = 0) -> tuple[bool | None, bool | None]:
    return step(two.other, now), step(two.leader, now)
