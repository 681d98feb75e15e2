"""A TCP proxy on the loopback that delivers each piece of data late, as a distant server would.

It can also lose the data of connections, as a middlebox does that has forgotten them.
"""

import asyncio
import threading
from types import TracebackType


class SlowLink:
    """`with SlowLink(port, delay=0.01) as link:` connects `link.port` to `port`."""

    def __init__(self, port: int, delay: float) -> None:
        self._target, self._delay = port, delay
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._lost = threading.Event()  # of the connections since the last `lose`

    def lose(self) -> None:
        """Deliver no more data of the open connections, and keep them open."""
        lost, self._lost = self._lost, threading.Event()
        lost.set()

    def __enter__(self) -> "SlowLink":
        self._thread.start()
        start = asyncio.start_server(self._connect, "127.0.0.1", 0)
        self._server = asyncio.run_coroutine_threadsafe(start, self._loop).result()
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _stop(self) -> None:
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lost = self._lost
        there = await asyncio.open_connection("127.0.0.1", self._target)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._forward(reader, there[1], lost))
            tasks.create_task(self._forward(there[0], writer, lost))

    async def _forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, lost: threading.Event
    ) -> None:
        def write(data: bytes) -> None:
            if not lost.is_set():
                writer.write(data)

        try:
            while data := await reader.read(65_536):
                self._loop.call_later(self._delay, write, data)
            await asyncio.sleep(self._delay)
        except OSError:
            pass
        finally:
            writer.close()
