import asyncio
from contextlib import asynccontextmanager

from channels.testing import WebsocketCommunicator


class Communicator(WebsocketCommunicator):
    """Where nothing comes in time, the application goes on: Channels' own would cancel it."""

    async def receive_output(self, timeout=1):
        if self.future.done():
            self.future.result()  # raises what it raised
        async with asyncio.timeout(timeout):
            return await self.output_queue.get()

    async def receive_many_json_from(self, timeout=1):
        messages = []
        while True:
            try:
                messages.append(await self.receive_json_from(timeout))
            except TimeoutError:
                return messages


@asynccontextmanager
async def connected_communicator(consumer, path="/testws/"):
    communicator = Communicator(consumer, path)
    is_connected, _ = await communicator.connect()
    assert is_connected
    try:
        yield communicator
    finally:
        if not communicator.future.done():
            await communicator.disconnect()
