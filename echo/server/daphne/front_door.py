"""The front door of plain endpoints: reads the first bytes of each connection.

A plain WebSocket handshake, whole and in a strict syntax, becomes a `DaphneConnection` at once. All
other connections go to Twisted together with the bytes that were read, so that there is one
implementation of everything unusual. The front door reads a socket once: what it does not
understand then, such as the first half of a request, it never will, so the limits of `http` on
headers hold for all connections.
"""

import asyncio
import logging
import re
import socket
from typing import Any, NamedTuple

from twisted.internet import tcp, unix

from echo.server import handshake
from echo.server.daphne.connection import DaphneConnection
from echo.server.daphne.http import forwarding_problem, host_and_port, websocket_scope

logger = logging.getLogger(__name__)

MAX_SIZE = 16_384  # bytes of a handshake, as in Twisted's HTTPChannel

# A stricter syntax than RFC 9112, §3 and §5. Names have no underscore: those are not for scopes.
_HANDSHAKE = re.compile(
    rb"GET (/[!-~]*) HTTP/1\.1\r\n((?:[-!#$%&'*+.^`|~0-9A-Za-z]+:[\t -~]*\r\n){1,100})\r\n"
)
# With these, more than the handshake is to be read or sent, or the scope is another one.
_UNUSUAL = {b"content-length", b"transfer-encoding", b"expect", b"daphne-root-path"}


class Handshake(NamedTuple):
    """A plain handshake."""

    uri: bytes
    headers: handshake.Headers
    size: int  # bytes


def parse(data: bytes) -> Handshake | None:
    """Return the handshake at the start of the data, or None if Twisted must parse the data."""
    found = _HANDSHAKE.match(data)
    if found is None:
        return None
    headers = []
    for line in found[2].split(b"\r\n")[:-1]:
        name, _, value = line.partition(b":")
        headers.append((name.lower(), value.strip(b" \t")))
    fields = dict(headers)
    is_plain = (
        len(fields) == len(headers)  # each header once
        and fields.get(b"upgrade", b"").lower() == b"websocket"
        and _UNUSUAL.isdisjoint(fields)
    )
    return Handshake(found[1], headers, found.end()) if is_plain else None


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
    if type(port) in (tcp.Port, unix.Port) and port.factory is server.http_factory:
        door = FrontDoor(server, port.factory, port.transport)
        port.factory, port.transport = door, lambda *accepted: accepted


class FrontDoor:
    """Replaces the factory of a Twisted port. The port still accepts the connections."""

    def __init__(self, server: Any, factory: Any, transport: Any) -> None:
        self.server = server
        self.factory = factory  # of the channel, for connections that Twisted handles
        self.transport = transport  # class of the same
        self.doStop = factory.doStop

    def buildProtocol(self, address: Any) -> "Visitor":
        return Visitor(self, address)


class Visitor:
    """An accepted connection from which nothing has been read."""

    def __init__(self, door: FrontDoor, address: Any) -> None:
        self._door = door
        self._address = address
        self._timer: asyncio.TimerHandle | None = None

    def makeConnection(self, accepted: tuple[Any, ...]) -> None:
        """Called by the port, with the arguments for the class of its transports."""
        self._socket, _, *self._arguments = accepted
        self._socket.setblocking(False)
        self._read()

    def _read(self) -> None:
        try:
            data = self._socket.recv(MAX_SIZE)
        except BlockingIOError:
            self._wait()
            return
        except OSError:  # the client has reset the connection
            data = b""
        if self._timer is not None:
            self._timer.cancel()
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
        server = self._door.server
        found = None if server.stopping else parse(data)
        if not data:
            self._socket.close()
        elif found is None or forwarding_problem(server, found.headers):
            self._to_twisted(None, self._socket, data)
        else:
            self._start(found, data)

    def _wait(self) -> None:
        if self._timer is None:
            loop = asyncio.get_running_loop()
            loop.add_reader(self._socket.fileno(), self._read)
            self._timer = loop.call_later(self._door.factory.timeOut, self._time_out)

    def _time_out(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._socket.close()

    def _start(self, found: Handshake, data: bytes) -> None:
        server = self._door.server
        client = host_and_port(self._address)
        address = client and local_address(self._socket)
        scope = websocket_scope(server, found.uri, "1.1", found.headers, client, address)
        connection = DaphneConnection(server)
        early = data[found.size :]

        def to_twisted(duplicate: socket.socket, early: bytes) -> None:
            self._to_twisted(connection, duplicate, data[: found.size] + early)

        connection.start_on(self._socket, scope, early, to_twisted)

    def _to_twisted(
        self, connection: DaphneConnection | None, connected: socket.socket, data: bytes
    ) -> None:
        channel = self._door.factory.buildProtocol(self._address)
        channel.handshake = connection
        transport = self._door.transport(connected, channel, *self._arguments)
        channel.makeConnection(transport)
        try:
            channel.dataReceived(data)
        except Exception:
            logger.exception("Error in the request of %r", self._address)
            transport.abortConnection()
