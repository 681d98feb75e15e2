"""What a site calls: how many connections an object has, and a word to all of them."""

from asgiref.sync import async_to_sync

from echo.groups import send_to_group
from echo.names import check_name
from echo.state import get_state


class NamedObject:
    """An object: a name that connections share. Nothing is made or stored for it."""

    def __init__(self, name: str) -> None:
        self.name = check_name(name)

    def count(self) -> int:
        """Return how many connections it has now (0 or more)."""
        return get_state().count(self.name)

    async def acount(self) -> int:
        return await get_state().acount(self.name)

    def send(self, text: str) -> None:
        """Send the text to all its connections that the channel layer reaches.

        Without CHANNEL_LAYERS: to those in this process.
        """
        async_to_sync(self.asend)(text)

    async def asend(self, text: str) -> None:
        await send_to_group(self.name, {"type": "websocket.send", "text": text})


def get_object(name: str) -> NamedObject:
    """Return the object of that name. Raises InvalidName for a name that none can have."""
    return NamedObject(name)


def connected_objects() -> dict[str, int]:
    """Return the count of every object that has connections now: `{"foo": 2}`."""
    return get_state().counts()
