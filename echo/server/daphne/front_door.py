"""The front door: reads the first bytes of each connection to a plain endpoint.

If they are a whole WebSocket handshake in a strict syntax, a `DaphneConnection` takes the socket.
Everything else goes to Twisted, together with these bytes. So only Twisted has to handle what is
unusual, and clients receive the same bytes from both. The front door receives data only once: half
a request goes to Twisted, too, and the limits of `http` on headers hold for all connections.
"""

import asyncio
import logging
import socket
import time
from typing import Any

from twisted.internet import tcp

from echo.server.daphne.connection import DaphneConnection
from echo.server.daphne.http import forwarding_problem, host_and_port, websocket_scope
from echo.server.handshake import PlainHandshake, parse

logger = logging.getLogger(__name__)

WILDCARDS = ("0.0.0.0", "::")  # on these, a port listens on all addresses


def local_address(connected: socket.socket) -> list[Any]:
    """Return host and port of a TCP socket, as Twisted does."""
    name = connected.getsockname()
    host = name[0]
    if len(name) > 2:  # IPv6: with the zone of a link-local address
        host, _ = socket.getnameinfo(name, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
    return [host, name[1]]


def install(server: Any, port: Any) -> None:
    """Put the front door before Daphne's HTTP factory, unless the endpoint wraps the factory.

    Endpoints like `ssl:`, `txsni:` and `haproxy:` do.
    """
    if isinstance(port, tcp.Port) and port.factory is server.http_factory:
        door = FrontDoor(server, port)
        port.factory, port.transport = door, lambda *accepted: accepted


class FrontDoor:
    """Replaces the factory of a Twisted port, which still accepts the connections."""

    def __init__(self, server: Any, port: Any) -> None:
        self.server = server
        self.doStop = port.factory.doStop
        # The factory of channels and the class of transports, for what Twisted handles.
        self.factory, self.transport = port.factory, port.transport
        self._address: list[Any] | None = None  # of all connections, unless it depends on them
        if port.socket.family != socket.AF_UNIX:
            # Accepted sockets inherit it. asyncio sets it only for sockets that it has opened.
            port.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            address = local_address(port.socket)
            self._address = None if address[0] in WILDCARDS else address

    def local_address(self, connected: socket.socket) -> list[Any]:
        """Return host and port of the server's side of a TCP connection."""
        return local_address(connected) if self._address is None else [*self._address]

    def buildProtocol(self, address: Any) -> "AcceptedConnection":
        return AcceptedConnection(self, address)


class AcceptedConnection:
    """A connection that the port has accepted, until its first bytes are read.

    A `DaphneConnection` keeps it until the handshake is accepted.
    """

    sock: socket.socket
    read_at: float  # time.time() when the handshake was read

    def __init__(self, door: FrontDoor, address: Any) -> None:
        self._door = door
        self._address = address
        self._timer: asyncio.TimerHandle | None = None

    def makeConnection(self, accepted: tuple[Any, ...]) -> None:
        """Called by the port, with the arguments for its class of transports."""
        self.sock, _, *self._arguments = accepted
        self.sock.setblocking(False)
        self._read()

    def _read(self) -> None:
        try:
            data = self.sock.recv(tcp.Connection.bufferSize)
        except BlockingIOError:
            self._wait()
            return
        except OSError:  # the client has reset the connection
            data = b""
        if self._timer is not None:
            self._timer.cancel()
        server = self._door.server
        found = parse(data)
        if not data:
            self._close()
        elif found is None or forwarding_problem(server, found.headers) or server.stopping:
            self._connect_to_twisted(self.sock, data)  # its reader replaces this one
        else:
            self._remove_reader()
            self._start(found, data)

    def _wait(self) -> None:
        if self._timer is None:
            loop = asyncio.get_running_loop()
            loop.add_reader(self.sock.fileno(), self._read)
            self._timer = loop.call_later(self._door.factory.timeOut, self._close)

    def _remove_reader(self) -> None:
        if self._timer is not None:
            asyncio.get_running_loop().remove_reader(self.sock.fileno())

    def _close(self) -> None:
        self._remove_reader()
        self.sock.close()

    def _start(self, found: PlainHandshake, data: bytes) -> None:
        self.read_at = time.time()
        self._head = data[: found.size]
        server = self._door.server
        client, address = host_and_port(self._address), None
        if client is not None:
            address = self._door.local_address(self.sock)
        scope = websocket_scope(server, found.uri, "1.1", found.headers, client, address)
        DaphneConnection(server, accepted=self).open(scope, early=data[found.size :])

    def resume(self, connection: DaphneConnection, duplicate: socket.socket, early: bytes) -> None:
        """Let Twisted send the response to the handshake of the connection.

        `duplicate` replaces the socket. `early` is what the client has sent after the handshake.
        """
        self._connect_to_twisted(duplicate, self._head + early, (connection, self.read_at))

    def _connect_to_twisted(
        self,
        connected: socket.socket,
        data: bytes,
        resumed: tuple[DaphneConnection, float] | None = None,
    ) -> None:
        channel = self._door.factory.buildProtocol(self._address)
        channel.resumed = resumed
        transport = self._door.transport(connected, channel, *self._arguments)
        channel.makeConnection(transport)
        try:
            channel.dataReceived(data)
        except Exception:
            logger.exception("Error in a request from %r", self._address)
            transport.abortConnection()
