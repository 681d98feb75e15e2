"""Keeps this process subscribed to its groups across channel-layer outages.

The channel layer may fail, hang or restart; connections are not affected. Failed calls are retried
with increasing delays, and after an outage all groups are added again.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Set
from typing import Any

from channels.layers import get_channel_layer

from echo.log import describe
from echo.names import group_name

logger = logging.getLogger(__name__)

JOIN_TIMEOUT = 0.25  # seconds that a handshake waits for state and channel layer together
CALL_TIMEOUT = 5.0  # seconds until a call to the layer counts as failed
FIRST_RETRY_INTERVAL = 0.1  # seconds, doubled at each failure
MAX_RETRY_INTERVAL = 5.0  # seconds
# Layers drop a channel from a group a day after it was added (their `group_expiry`).
RENEWAL_INTERVAL = 3600.0  # seconds
BATCH_SIZE = 100  # concurrent calls to the layer


class ChannelLayerSubscription:
    """The groups of the channel layer that one channel of this event loop belongs to.

    `names` is a live view of the objects that have connections here. Each call to the layer adds
    the group if its name is in the view at that moment, and discards it otherwise. So joins and
    leaves in quick succession cannot cause a wrong subscription.
    """

    def __init__(self, names: Set[str], deliver: Callable[[str, dict[str, Any]], None]) -> None:
        self._names = names
        self._deliver = deliver
        # True: the layer has added the group. False: it may have. Absent: it has not.
        self._added: dict[str, bool] = {}
        self._pending: dict[str, asyncio.Future[None]] = {}
        self._has_pending = asyncio.Event()
        self._failures = 0
        self._task: asyncio.Task[None] | None = None

    def add(self, name: str) -> "asyncio.Future[None] | None":
        """Add the group in the background, and return a future that is done when it is added.

        Returns None if there is nothing to wait for: the group is added, or the layer is down.
        """
        if self._added.get(name) and name not in self._pending:
            return None
        pending = self._update(name)
        if self._task is None or self._task.done():
            self._task = asyncio.ensure_future(self._run())
        return None if self._failures else pending

    def discard(self, name: str) -> None:
        """Discard the group in the background, unless its name has connections again by then."""
        if name in self._added:
            self._update(name)

    def _update(self, name: str) -> "asyncio.Future[None]":
        if name not in self._pending:
            self._pending[name] = asyncio.get_running_loop().create_future()
        self._has_pending.set()
        return self._pending[name]

    async def _run(self) -> None:
        layer: Any = get_channel_layer()
        channel = await self._retry(self._new_channel, layer)
        # Use the channel until the loop ends, and keep receiving while other calls fail: an
        # abandoned channel would stay in its groups, on some layers for a day.
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._retry(self._receive, layer, channel))
            tasks.create_task(self._retry(self._maintain, layer, channel))

    async def _retry(self, call: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        """Call the function until it succeeds, and return its result."""
        while True:
            try:
                return await call(*arguments)
            except Exception as error:
                if _is_cancelled():  # some layers replace CancelledError by their own exception
                    raise asyncio.CancelledError from error
                self._set_failed(error)
            delay = min(MAX_RETRY_INTERVAL, FIRST_RETRY_INTERVAL * 2 ** min(self._failures, 10))
            await asyncio.sleep(delay * random.uniform(0.5, 1))

    async def _new_channel(self, layer: Any) -> str:
        async with asyncio.timeout(CALL_TIMEOUT):
            return await new_channel(layer)

    async def _receive(self, layer: Any, channel: str) -> None:
        while not _is_cancelled():  # some layers swallow CancelledError
            message = await layer.receive(channel)
            if message["type"] == "echo.event":
                self._deliver(message["name"], message["event"])

    async def _maintain(self, layer: Any, channel: str) -> None:
        """Add and discard groups whenever names change."""
        if self._failures:
            # Test the server with a message: on some layers, group_add and group_discard do not
            # contact it.
            async with asyncio.timeout(CALL_TIMEOUT):
                await layer.send(channel, {"type": "echo.probe"})
        self._add_all_again()
        while True:
            while names := list(self._pending)[:BATCH_SIZE]:
                async with asyncio.timeout(CALL_TIMEOUT):
                    calls = [self._add_or_discard(layer, channel, name) for name in names]
                    results = await asyncio.gather(*calls, return_exceptions=True)
                for result in results:
                    if result is not None:
                        raise result
            self._set_working()
            self._has_pending.clear()
            try:
                async with asyncio.timeout(RENEWAL_INTERVAL):
                    await self._has_pending.wait()
            except TimeoutError:
                self._add_all_again()

    async def _add_or_discard(self, layer: Any, channel: str, name: str) -> None:
        pending = self._pending.get(name)
        is_wanted = name in self._names
        if is_wanted and not self._added.get(name):
            self._added[name] = False
            await layer.group_add(group_name(name), channel)
        elif not is_wanted and name in self._added:
            self._added[name] = False
            await layer.group_discard(group_name(name), channel)
        if pending is None or self._pending.get(name) is not pending:
            return  # the layer has failed in the meantime
        if is_wanted:
            self._added[name] = True
        else:
            self._added.pop(name, None)
        if is_wanted == (name in self._names):  # else names changed during the call
            self._pending.pop(name).set_result(None)

    def _add_all_again(self) -> None:
        self._added = dict.fromkeys(self._added, False)
        for name in {*self._added, *self._names}:
            self._update(name)

    def _set_failed(self, error: Exception) -> None:
        if not self._failures:
            logger.warning("Channel layer error, retrying: %s", describe(error))
        self._failures += 1
        for pending in self._pending.values():
            pending.set_result(None)
        self._pending.clear()
        self._add_all_again()

    def _set_working(self) -> None:
        if self._failures:
            logger.warning("The channel layer works again.")
        self._failures = 0


async def new_channel(layer: Any) -> str:
    """Return a new channel of this process, with the same prefix as the channels of consumers.

    In channels_redis' core layer, all channels of a process share one receive lock, and the task
    that holds it reads only messages of its own prefix. With a different prefix here, messages to
    consumers would wait until this task releases the lock. A separate prefix is possible when
    https://github.com/django/channels_redis/pull/165 is released.
    """
    return str(await layer.new_channel())


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
