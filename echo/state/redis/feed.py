"""The change feed: Redis publishes the new count of each object that has changed."""

import logging
from collections.abc import Callable, Mapping
from threading import Event, Lock, Thread
from typing import Any

from echo.log import describe, is_due
from echo.state.base import Listener
from echo.state.memory import NO_MEMBERS
from echo.state.redis import scripts
from echo.state.redis.client import CONNECTION_ERRORS, TIMEOUT, RedisClient
from echo.state.redis.share import Share

logger = logging.getLogger(__name__)

RETRY_INTERVAL = 0.5  # seconds between attempts to subscribe
# If the publishing thread knows of a change, and the feed has not passed it on after this time, the
# connection of the feed has been lost silently.
LOST_AFTER = 0.5  # seconds


class Feed:
    """Passes the changes on to listeners, in one thread, which runs while there are listeners.

    If changes may have been missed, the listeners are called without changes, and read the counts
    again. Thread-safe.
    """

    def __init__(self, client: RedisClient, share: Share) -> None:
        self._client = client
        self._share = share
        self._listeners: tuple[Listener, ...] = ()
        self._lock = Lock()
        self._thread: Thread | None = None
        self._closed = Event()

    def add(self, listener: Listener) -> Callable[[], None]:
        """Call the listener at each change. Return a function that removes it."""
        with self._lock:
            self._listeners = (*self._listeners, listener)
            if self._thread is None and not self._closed.is_set():
                thread = Thread(target=self._run, name="echo-feed", daemon=True)
                try:
                    thread.start()
                    self._thread = thread
                except RuntimeError:  # too many threads; the next listener tries again
                    logger.exception("The change feed cannot start.")

        def remove() -> None:
            with self._lock:
                self._listeners = tuple(each for each in self._listeners if each is not listener)

        return remove

    def notify(
        self,
        number: int = 0,
        counts: Mapping[str, int] | None = None,
        members: Mapping[str, str] = NO_MEMBERS,
    ) -> None:
        """Call all listeners; without counts, they read everything again."""
        for listener in self._listeners:
            try:
                listener(number, counts, members)
            except Exception:  # the thread goes on for the other listeners
                logger.exception("A listener of the change feed failed.")

    def close(self) -> None:
        self._closed.set()

    # In the thread of the feed

    def _has_listeners(self) -> bool:
        if self._listeners and not self._closed.is_set():
            return True
        with self._lock:
            if self._listeners and not self._closed.is_set():
                return True
            self._thread = None
            return False

    def _run(self) -> None:
        while self._has_listeners():
            try:
                with self._client.pubsub() as subscription:
                    subscription.subscribe(scripts.CHANGES)
                    self._follow(subscription)
            except Exception as error:
                self._client.drop()
                if not isinstance(error, CONNECTION_ERRORS) and is_due("feed"):
                    logger.warning("The change feed failed, retrying: %s", describe(error))
                self.notify()
                self._closed.wait(RETRY_INTERVAL)

    def _follow(self, subscription: Any) -> None:
        """Pass on changes until the last listener has been removed."""
        if subscription.get_message(timeout=TIMEOUT) is None:
            raise TimeoutError("no reply to SUBSCRIBE")
        # Changes up to `seen` have arrived, or were published before the subscription.
        seen = expected = self._share.change
        is_exact = False  # before the first message, `seen` may be too low
        last: int | None = None  # number of the last message
        self.notify()
        while self._has_listeners():
            message = subscription.get_message(timeout=LOST_AFTER)
            if message is None:
                if expected > seen and is_exact:
                    raise TimeoutError("a change has not arrived")
                if expected > seen:
                    seen, is_exact = expected, True
                    self.notify()
                expected = self._share.change
                continue
            number, *lines = message["data"].decode().split("\n")
            counts: dict[str, int] = {}
            members: dict[str, str] = {}
            for name, value in zip(lines[::2], lines[1::2], strict=True):
                if "/" in name:
                    members[name] = value
                else:
                    counts[name] = int(value)
            seen, is_exact = int(number), True
            has_gap = last is not None and seen != last + 1
            last = seen
            if lines and not has_gap:
                self.notify(seen, counts, members)
            else:
                self.notify(seen)
