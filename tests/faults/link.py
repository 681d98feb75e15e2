"""A TCP proxy on the loopback with the faults of a network: delays, losses, resets, failovers."""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from enum import Enum

from tests.raw import drop_packets
from tests.waiting import eventually

SO_DETACH_FILTER = 27  # linux/socket.h; Python has no name for it
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with a RST
# The commands of connections on which a client waits for messages, as clients of Redis send them.
RECEIVING = (b"SUBSCRIBE", b"BZPOPMIN", b"BLPOP", b"BRPOP")

REQUESTS, REPLIES = "requests", "replies"  # the directions: to the server, to the client
CLOSED_PORT = 1  # nothing listens there


class Fault(Enum):
    """The fate of a connection's next reply."""

    LOST = 1
    RESET = 2  # and the connection with it


class Link:
    """`with Link(port, delay=0.01) as link:` forwards `link.port` to `port`. For any thread.

    `target` is the port for new connections; `delays` has the seconds that data take to the server
    and to the client.
    """

    def __init__(self, target: int, delay: float = 0.0) -> None:
        self.target = target
        self.delays = {REQUESTS: delay, REPLIES: delay}
        self._stalled: set[str] = set()
        self._hold: tuple[str, Callable[[bytes], bool]] | None = None
        self._connections: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> "Link":
        self._thread.start()
        self._run(self._start)
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        return self

    def __exit__(self, *error: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # Faults

    def stall(self, *directions: str) -> None:
        """Hold the data of these directions back until `resume`; connections stay open."""
        self._run(lambda: self._stalled.update(directions))

    def resume(self) -> None:
        self._run(self._stalled.clear)

    def cut(self) -> None:
        """Lose all packets, as a cut cable does, also those of new connections, until `mend`."""

        def cut() -> None:
            self._stalled.update((REQUESTS, REPLIES))
            for each in self._sockets():
                drop_packets(each)

        self._run(cut)

    def mend(self) -> None:
        def mend() -> None:
            self._stalled.clear()
            for each in self._sockets():
                with suppress(FileNotFoundError):  # it has no filter
                    each.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)

        self._run(mend)

    def drop(self, receiving: bool = False) -> int:
        """Forget all connections, as a middlebox does: their packets are lost for ever.

        Nobody is notified. With `receiving`, forget only those on which a client waits for
        messages. Returns the number of connections.
        """
        dropped = []

        def drop() -> None:
            for connection in self._connections:
                if connection.is_receiving or not receiving:
                    connection.is_dropped = True
                    drop_packets(connection.socket)
                    dropped.append(connection)

        self._run(drop)
        return len(dropped)

    def reset(self) -> None:
        """Reset all connections."""

        def reset() -> None:
            for connection in list(self._connections):
                connection.reset()

        self._run(reset)

    def refuse(self) -> None:
        """Reset all connections, and new ones, until `accept`."""
        self._accepted, self.target = self.target, CLOSED_PORT
        self.reset()

    def accept(self) -> None:
        self.target = self._accepted

    def hold(self, direction: str, wanted: Callable[[bytes], bool]) -> None:
        """Hold back one direction of a connection, from a wanted request on, until `release`.

        `wanted` gets each request, in the thread of the link. New connections are not affected, so
        what was held back arrives late if the client has given up and tried again.
        """
        self._hold = direction, wanted

    def hold_no_more(self) -> None:
        """Hold back no further requests; return when the client has given up the others."""
        self._hold = None
        eventually(lambda: [each for each in self._held() if not each.is_given_up], [])

    def release(self) -> int:
        """Pass on what was held back; return the number of connections, when they are over."""
        self.hold_no_more()
        held = self._held()
        self._run(lambda: [connection.held.clear() for connection in held])
        eventually(lambda: held & self._connections, set())
        return len(held)

    def arm(self, fault: Fault | None) -> None:
        """Set the fate of the next reply on each connection, except those that wait for messages.

        The server has run the request then.
        """

        def arm() -> None:
            for connection in self._connections:
                connection.next_reply = None if connection.is_receiving else fault

        self._run(arm)

    # In the thread of the link

    def _run(self, change: Callable[[], object]) -> None:
        """Make the change in the thread of the link, and let all flows see it."""

        async def run() -> None:
            result = change()
            if asyncio.iscoroutine(result):
                await result
            async with self._changed:
                self._changed.notify_all()

        asyncio.run_coroutine_threadsafe(run(), self._loop).result()

    async def _start(self) -> None:
        self._changed = asyncio.Condition()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)

    async def _stop(self) -> None:
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _held(self) -> "set[_Connection]":
        return {connection for connection in list(self._connections) if connection.held}

    def _sockets(self) -> list[socket.socket]:
        kept = [one.socket for one in self._connections if not one.is_dropped]
        return [*self._server.sockets, *kept]

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Not a coroutine for asyncio to run: it would print a traceback when cancelled.
        task = asyncio.ensure_future(self._connect(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        connection = _Connection(writer, there[1])
        self._connections.add(connection)
        try:
            async with asyncio.TaskGroup() as tasks:
                for direction, source, sink in (
                    (REQUESTS, reader, there[1]),
                    (REPLIES, there[0], writer),
                ):
                    queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
                    tasks.create_task(self._receive(connection, direction, source, queue))
                    tasks.create_task(self._send(connection, direction, queue, sink))
        finally:
            self._connections.discard(connection)
            connection.close()

    async def _receive(
        self,
        connection: "_Connection",
        direction: str,
        reader: asyncio.StreamReader,
        queue: "asyncio.Queue[tuple[float, bytes]]",
    ) -> None:
        data = b"not the end"
        while data:
            try:
                data = await reader.read(65_536)
            except OSError:
                data = b""
            if direction == REQUESTS and any(word in data for word in RECEIVING):
                connection.is_receiving = True
            if direction == REQUESTS and not data:
                connection.is_given_up = True
            elif direction == REQUESTS and self._hold and self._hold[1](data):
                connection.held.add(self._hold[0])
            queue.put_nowait((self._loop.time() + self.delays[direction], data))

    async def _send(
        self,
        connection: "_Connection",
        direction: str,
        queue: "asyncio.Queue[tuple[float, bytes]]",
        writer: asyncio.StreamWriter,
    ) -> None:
        while True:
            at, data = await queue.get()
            if (delay := at - self._loop.time()) > 0:
                await asyncio.sleep(delay)
            if self._holds(connection, direction):
                async with self._changed:
                    await self._changed.wait_for(lambda: not self._holds(connection, direction))
            if not data:
                writer.close()
                return
            if direction == REPLIES and connection.next_reply:
                fault, connection.next_reply = connection.next_reply, None
                if fault is Fault.RESET:
                    connection.reset()
                continue
            writer.write(data)

    def _holds(self, connection: "_Connection", direction: str) -> bool:
        return connection.is_dropped or direction in self._stalled | connection.held


class _Connection:
    """One connection through the link."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self._client, self._server = client, server
        self.socket: socket.socket = client.get_extra_info("socket")
        self.is_receiving = False
        self.is_dropped = False
        self.is_given_up = False  # by the client
        self.held: set[str] = set()  # directions
        self.next_reply: Fault | None = None

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.close()

    def close(self) -> None:
        self._client.transport.abort()
        self._server.transport.abort()
