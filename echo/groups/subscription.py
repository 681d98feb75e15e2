"""Keeps this process subscribed to its groups across channel-layer outages.

The channel layer may fail, hang or restart; connections are not affected. Failed calls are retried
with increasing delays, and after an outage all groups are added again.

Probes test whether messages arrive: numbered messages that this process sends to itself. Without
them, a layer waits forever on a connection that the network has lost silently, and messages to a
new group are lost until the layer has subscribed, which some layers do in the background.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Set
from contextlib import suppress
from functools import partial
from itertools import islice
from math import inf
from typing import Any

from channels.exceptions import ChannelFull
from channels.layers import get_channel_layer

from echo.groups.layer import batch_size, drop_connections, unconfirmed_groups
from echo.log import describe
from echo.names import group_name

logger = logging.getLogger(__name__)

JOIN_TIMEOUT = 0.25  # seconds that a handshake waits for state and channel layer together
CALL_TIMEOUT = 5.0  # seconds until a call to the layer counts as failed
FIRST_RETRY_INTERVAL = 0.1  # seconds, doubled at each failure
MAX_RETRY_INTERVAL = 5.0  # seconds
# Layers drop a channel from a group a day after it was added (their `group_expiry`).
RENEWAL_INTERVAL = 3600.0  # seconds
PROBE_INTERVAL = 5.0  # seconds, on average
# A probe is repeated: if Redis executes it before the SUBSCRIBE, it is lost.
PROBE_ATTEMPTS = 8  # 5 s in all
FIRST_PROBE_TIMEOUT = 0.02  # seconds, doubled at each attempt


class ChannelLayerSubscription:
    """The groups of the channel layer that one channel of this event loop belongs to.

    `names` is a live view of the objects that have connections here. Each call to the layer adds
    the group if its name is in the view at that moment, and discards it otherwise. So joins and
    leaves in quick succession cannot cause a wrong subscription.
    """

    def __init__(self, names: Set[str], deliver: Callable[..., None]) -> None:
        self._names = names
        self._deliver = deliver
        # True: the layer has added the group. False: it may have. Absent: it has not.
        self._added: dict[str, bool] = {}
        self._pending: dict[str, asyncio.Future[None]] = {}
        self._has_work = asyncio.Event()
        self._failures = 0
        self._update_began = inf  # time of the event loop
        self._next_probe = 0.0  # time of the event loop
        self._probe_number = 0
        self._probe_arrived = asyncio.Event()
        self._is_silent = False  # the layer takes messages and does not deliver them
        self._task: asyncio.Task[None] | None = None

    @property
    def is_failing(self) -> bool:
        """Whether the layer is retried, so that messages do not reach this process."""
        return self._failures > 0

    def add(self, name: str) -> "asyncio.Future[None] | None":
        """Add the group in the background, and return a future: when it is done, messages arrive.

        Returns None if there is nothing to wait for: the group is added, or the layer is down or
        has not responded for JOIN_TIMEOUT.
        """
        if self._added.get(name) and name not in self._pending:
            return None
        pending = self._update(name)
        if self._task is None or self._task.done():
            self._task = asyncio.ensure_future(self._run())
        silence = asyncio.get_running_loop().time() - self._update_began
        return None if self._failures or silence > JOIN_TIMEOUT else pending

    def discard(self, name: str) -> None:
        """Discard the group in the background, unless its name has connections again by then."""
        if name in self._added:
            self._update(name)

    def _update(self, name: str) -> "asyncio.Future[None]":
        if name not in self._pending:
            self._pending[name] = asyncio.get_running_loop().create_future()
        self._has_work.set()
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
                self._deliver(
                    message["name"], message["event"], message.get("key"), message.get("exclude")
                )
            # Probes of other processes in the group have another channel.
            elif message == self._probe_message(channel):
                self._probe_arrived.set()

    async def _maintain(self, layer: Any, channel: str) -> None:
        """Add and discard groups whenever names change, and send probes."""
        now = asyncio.get_running_loop().time
        if self._failures:
            async with asyncio.timeout(CALL_TIMEOUT):
                await drop_connections(layer, in_use=self._is_silent)
            self._is_silent = False
        else:
            self._next_probe = now() + PROBE_INTERVAL
        size = batch_size(layer)
        next_renewal = now() + RENEWAL_INTERVAL
        while True:
            if now() >= self._next_probe:
                if self._names or self._failures:
                    await self._probe(partial(layer.send, channel), channel)
                self._next_probe = now() + PROBE_INTERVAL * random.uniform(0.8, 1.2)
            if now() >= next_renewal:
                self._add_all_again()
                next_renewal = now() + RENEWAL_INTERVAL
            if names := list(islice(self._pending, size)):
                self._update_began = now()
                try:
                    await self._update_groups(layer, channel, names)
                finally:
                    self._update_began = inf
                continue
            self._set_working()
            self._has_work.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(min(self._next_probe, next_renewal)):
                    await self._has_work.wait()

    async def _probe(self, send: Callable[[dict[str, Any]], Awaitable[None]], channel: str) -> None:
        """Send a probe until it arrives. Raises TimeoutError if none does."""
        self._probe_number += 1
        self._probe_arrived.clear()
        for attempt in range(PROBE_ATTEMPTS):
            with suppress(ChannelFull):
                async with asyncio.timeout(CALL_TIMEOUT):
                    await send(self._probe_message(channel))
            with suppress(TimeoutError):
                async with asyncio.timeout(FIRST_PROBE_TIMEOUT * 2**attempt):
                    await self._probe_arrived.wait()
                    return
        self._is_silent = True
        raise TimeoutError("this process does not receive its own messages")

    def _probe_message(self, channel: str) -> dict[str, Any]:
        return {"type": "echo.probe", "channel": channel, "number": self._probe_number}

    async def _update_groups(self, layer: Any, channel: str, names: list[str]) -> None:
        """Add or discard the groups, and return when messages to the new ones arrive."""
        pending = {name: self._pending[name] for name in names}
        wanted = {name for name in names if name in self._names}
        new = [group_name(name) for name in names if name in wanted and name not in self._added]
        async with asyncio.timeout(CALL_TIMEOUT):
            calls = [self._add_or_discard(layer, channel, name, name in wanted) for name in names]
            results = await asyncio.gather(*calls, return_exceptions=True)
        for result in results:
            if result is not None:
                raise result
        for group in unconfirmed_groups(layer, new):
            await self._probe(partial(layer.group_send, group), channel)
        for name, future in pending.items():
            if self._pending.get(name) is not future:
                continue  # the layer has failed in the meantime
            if name in wanted:
                self._added[name] = True
            else:
                self._added.pop(name, None)
            if (name in wanted) == (name in self._names):  # else names changed during the calls
                self._pending.pop(name).set_result(None)

    async def _add_or_discard(self, layer: Any, channel: str, name: str, is_wanted: bool) -> None:
        if is_wanted and not self._added.get(name):
            self._added[name] = False
            await layer.group_add(group_name(name), channel)
        elif not is_wanted and name in self._added:
            self._added[name] = False
            await layer.group_discard(group_name(name), channel)

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
        self._next_probe = 0.0
        self._has_work.set()

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
