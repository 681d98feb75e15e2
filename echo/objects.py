"""The API for a site's code: count the connections of an object, send to them and close them."""

from typing import Any

from asgiref.sync import async_to_sync

from echo.groups.group import send_to_group
from echo.names import check_name
from echo.state import get_state

CLOSE_CODES = {1000, 1001, 1003, *range(1008, 1015), *range(3000, 5000)}  # RFC 6455 §7.4


class NamedObject:
    """A name that connections share. Nothing is created or stored for it.

    Each method has an async twin: `acount`, `ais_occupied`, `asend`, `aclose`.
    """

    def __init__(self, name: str) -> None:
        self.name = check_name(name)

    def count(self) -> int:
        """Return the number of its connections now (0 or more).

        Raises StateUnavailable if the count is unknown.
        """
        return get_state().count(self.name)

    async def acount(self) -> int:
        """The async twin of `count`."""
        return await get_state().acount(self.name)

    def is_occupied(self) -> bool:
        """Return whether it has a connection now.

        Raises StateUnavailable as `count` does.
        """
        return self.count() > 0

    async def ais_occupied(self) -> bool:
        """The async twin of `is_occupied`."""
        return await self.acount() > 0

    def send(self, text: str) -> None:
        """Send the text to all its connections, in every process that the channel layer reaches.

        Without CHANNEL_LAYERS: to those in this process. The text does not pass through the
        consumers. Raises the exceptions of the channel layer.
        """
        async_to_sync(self.asend)(text)

    async def asend(self, text: str) -> None:
        """The async twin of `send`."""
        if not isinstance(text, str):
            raise TypeError(f"{text!r} is not a string.")
        await self._event({"type": "websocket.send", "text": text})

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close all its connections with the code and reason, in the processes that `send` reaches.

        The consumers receive `websocket.disconnect`. Raises ValueError for a code that may not be
        sent, or a reason over 123 bytes. Stock Daphne sends only 1000 and 3000 to 4999: its
        clients receive 4001 for 1001, and so on.
        """
        async_to_sync(self.aclose)(code, reason)

    async def aclose(self, code: int = 1000, reason: str = "") -> None:
        """The async twin of `close`."""
        if code not in CLOSE_CODES:
            raise ValueError(f"{code!r} may not be sent; use 1000, or 3000 to 4999 of your own.")
        if len(reason.encode()) > 123:
            raise ValueError(f"The reason {reason!r} has more than 123 bytes of UTF-8.")
        await self._event({"type": "websocket.close", "code": code, "reason": reason})

    async def _event(self, event: dict[str, Any]) -> None:
        await send_to_group(self.name, event)


def get_object(name: str) -> NamedObject:
    """Return the object of that name. Raises InvalidName for an invalid name."""
    return NamedObject(name)


def connected_objects(prefix: str = "") -> dict[str, int]:
    """Return the counts of all connected objects, sorted by name: `{"foo": 2}`.

    Only names that begin with `prefix` are included. Raises StateUnavailable as `count` does.
    """
    return _sorted(get_state().counts(), prefix)


async def aconnected_objects(prefix: str = "") -> dict[str, int]:
    """The async twin of `connected_objects`."""
    return _sorted(await get_state().acounts(), prefix)


def _sorted(counts: dict[str, int], prefix: str) -> dict[str, int]:
    return {name: counts[name] for name in sorted(counts) if name.startswith(prefix)}
