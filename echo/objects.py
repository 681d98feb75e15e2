"""The API for sites: count the connections of an object, send to them and close them."""

from asgiref.sync import async_to_sync

from echo.extensions import CLOSE_CODES, MAX_REASON_BYTES
from echo.groups.group import send_to_group
from echo.names import check_name
from echo.state import get_state

# The server sends these two if a client violates the protocol.
VIOLATION_CODES = {1002, 1007}


class NamedObject:
    """A name that connections share. Nothing is created or stored for it.

    Each method has an async version: `acount`, `ais_occupied`, `asend`, `aclose`.
    """

    def __init__(self, name: str) -> None:
        self.name = check_name(name)

    def count(self) -> int:
        """Return the current number of connections of the object (0 or more).

        Raises StateUnavailable if the count is unknown.
        """
        return get_state().count(self.name)

    async def acount(self) -> int:
        """Async version of `count`."""
        return await get_state().acount(self.name)

    def is_occupied(self) -> bool:
        """Return whether the object has a connection now.

        Raises StateUnavailable as `count` does.
        """
        return self.count() > 0

    async def ais_occupied(self) -> bool:
        """Async version of `is_occupied`."""
        return await self.acount() > 0

    def send(self, text: str) -> None:
        """Send the text to all connections of the object, in every process on the channel layer.

        Without CHANNEL_LAYERS, send it only to the connections of this process. The text does not
        pass through the consumers. Raises the exceptions of the channel layer.
        """
        async_to_sync(self.asend)(text)

    async def asend(self, text: str) -> None:
        """Async version of `send`."""
        if not isinstance(text, str):
            raise TypeError(f"{text!r} is not a string.")
        await send_to_group(self.name, {"type": "websocket.send", "text": text})

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close all connections of the object, in the same processes as `send`.

        The consumers receive `websocket.disconnect`. Raises ValueError if the code may not be sent,
        or if the reason is longer than 123 bytes. Stock Daphne can send only 1000 and 3000 to 4999:
        it sends other codes plus 3000, for example 4001 instead of 1001.
        """
        async_to_sync(self.aclose)(code, reason)

    async def aclose(self, code: int = 1000, reason: str = "") -> None:
        """Async version of `close`."""
        if code not in CLOSE_CODES - VIOLATION_CODES:
            raise ValueError(f"{code!r} may not be sent; use 1000, or 3000 to 4999 of your own.")
        if len(reason.encode()) > MAX_REASON_BYTES:
            raise ValueError(f"The reason {reason!r} has more than 123 bytes of UTF-8.")
        event = {"type": "websocket.close", "code": code, "reason": reason}
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
    """Async version of `connected_objects`."""
    return _sorted(await get_state().acounts(), prefix)


def _sorted(counts: dict[str, int], prefix: str) -> dict[str, int]:
    return {name: counts[name] for name in sorted(counts) if name.startswith(prefix)}
