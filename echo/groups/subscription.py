"""Keeps the channel layer's idea of this process's groups right, while the layer comes and goes.

The layer may fail, hang or restart: connections never notice. It is tried again with
growing delays, and told of every group anew.
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

JOIN_TIMEOUT = 0.25  # seconds that a handshake waits for the layer at the most
CALL_TIMEOUT = 5.0  # seconds until a call to the layer counts as failed
FIRST_RETRY = 0.1  # seconds, doubled at each failure
LAST_RETRY = 5.0  # seconds
# Layers forget a membership a day after it began (their `group_expiry`), so it is renewed.
RENEWAL = 3600.0  # seconds
AT_ONCE = 100  # calls to the layer


class Membership:
    """This process's memberships in the groups of the layer, on one event loop.

    `wanted` is a live view of the names that have connections here. What is told to the
    layer is decided by who is there at that moment, never by who came or went: so the order
    in which connections come and go cannot confuse it.
    """

    def __init__(self, wanted: Set[str], deliver: Callable[[str, dict[str, Any]], None]) -> None:
        self._wanted = wanted
        self._deliver = deliver
        # True: the layer has it. False: it may have it. Absent: it has it not.
        self._told: dict[str, bool] = {}
        self._changed: dict[str, asyncio.Future[None]] = {}
        self._wake = asyncio.Event()
        self._failures = 0
        self._task: asyncio.Task[None] | None = None

    async def update(self, name: str) -> None:
        """Return when the layer knows of the group, or after JOIN_TIMEOUT, or if it is down."""
        if self._told.get(name) and name not in self._changed:
            return
        known = self._change(name)
        if self._task is None or self._task.done():
            self._task = asyncio.ensure_future(self._run())
        if not self._failures:
            await asyncio.wait([known], timeout=JOIN_TIMEOUT)

    def forget(self, name: str) -> None:
        """Have the layer told, in its own time, that nobody is left."""
        if name in self._told:
            self._change(name)

    def _change(self, name: str) -> "asyncio.Future[None]":
        if name not in self._changed:
            self._changed[name] = asyncio.get_running_loop().create_future()
        self._wake.set()
        return self._changed[name]

    async def _run(self) -> None:
        layer: Any = get_channel_layer()
        channel = await self._until_it_works(self._new_channel, layer)
        # One channel for good, and the receiving goes on while a call fails: a channel that
        # is given up stays in its groups, for a day on some layers.
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._until_it_works(self._receive, layer, channel))
            tasks.create_task(self._until_it_works(self._keep, layer, channel))

    async def _until_it_works(self, call: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        while True:
            try:
                return await call(*arguments)
            except Exception as error:
                if _is_cancelled():  # some layers answer that with an exception of their own
                    raise asyncio.CancelledError from error
                self._failed(error)
            delay = min(LAST_RETRY, FIRST_RETRY * 2 ** min(self._failures, 10))
            await asyncio.sleep(delay * random.uniform(0.5, 1))

    async def _new_channel(self, layer: Any) -> str:
        async with asyncio.timeout(CALL_TIMEOUT):
            return await new_channel(layer)

    async def _receive(self, layer: Any, channel: str) -> None:
        while not _is_cancelled():  # some layers lose a cancellation
            message = await layer.receive(channel)
            if message["type"] == "echo.event":
                self._deliver(message["name"], message["event"])

    async def _keep(self, layer: Any, channel: str) -> None:
        if self._failures:
            # Some layers join and leave without a word to their server.
            async with asyncio.timeout(CALL_TIMEOUT):
                await layer.send(channel, {"type": "echo.probe"})
        self._doubt()
        while True:
            while names := list(self._changed)[:AT_ONCE]:
                async with asyncio.timeout(CALL_TIMEOUT):
                    calls = [self._tell(layer, channel, name) for name in names]
                    results = await asyncio.gather(*calls, return_exceptions=True)
                for result in results:
                    if result is not None:
                        raise result
            self._succeeded()
            self._wake.clear()
            try:
                async with asyncio.timeout(RENEWAL):
                    await self._wake.wait()
            except TimeoutError:
                self._doubt()

    async def _tell(self, layer: Any, channel: str, name: str) -> None:
        known = self._changed.get(name)
        wanted = name in self._wanted
        if wanted and not self._told.get(name):
            self._told[name] = False
            await layer.group_add(group_name(name), channel)
        elif not wanted and name in self._told:
            self._told[name] = False
            await layer.group_discard(group_name(name), channel)
        if known is None or self._changed.get(name) is not known:
            return  # the layer has failed meanwhile: nothing is certain
        if wanted:
            self._told[name] = True
        else:
            self._told.pop(name, None)
        if wanted == (name in self._wanted):  # not changed again meanwhile
            self._changed.pop(name).set_result(None)

    def _doubt(self) -> None:
        """Have the layer told of every name anew."""
        self._told = dict.fromkeys(self._told, False)
        for name in {*self._told, *self._wanted}:
            self._change(name)

    def _failed(self, error: Exception) -> None:
        if not self._failures:
            logger.warning("Channel layer error, retrying: %s", describe(error))
        self._failures += 1
        for waiting in self._changed.values():
            waiting.set_result(None)
        self._changed.clear()
        self._doubt()

    def _succeeded(self) -> None:
        if self._failures:
            logger.warning("The channel layer works again.")
        self._failures = 0


async def new_channel(layer: Any) -> str:
    """Return a new channel of this process, with the prefix that the layer gives to consumers.

    channels_redis' core layer has one receive lock for all channels of a process, and the task that
    holds it reads the messages of its own prefix only. With another prefix here, the messages of
    consumers would wait until this task gives the lock back. A prefix of our own can return when
    https://github.com/django/channels_redis/pull/165 is released.
    """
    return str(await layer.new_channel())


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
