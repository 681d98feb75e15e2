"""What asyncio can do: a protocol on uvloop that does of RFC 6455 what the load needs, unchecked.

It cannot fan out, and tells no count.
"""

import asyncio
import os
from base64 import b64encode
from hashlib import sha1
from typing import cast

import uvloop
from websockets.speedups import apply_mask

PREFIX = b"[Durable Object]: "
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3
CLOSE = 0x88


class Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.is_open = False
        self.rest = b""

    def data_received(self, data: bytes) -> None:
        if not self.is_open:
            self.accept(data)
            return
        data = self.rest + data
        position, replies = 0, []
        while (end := end_of_frame(data, position)) and end <= len(data):
            if data[position] == CLOSE:
                self.transport.write(b"\x88\x02\x03\xe8")
                self.transport.close()
                return
            mask = end_of_head(data, position) - 4
            text = apply_mask(data[mask + 4 : end], data[mask : mask + 4])
            replies.append(frame((PREFIX.decode() + text.decode()).encode()))
            position = end
        self.rest = data[position:]
        if replies:
            self.transport.write(b"".join(replies))

    def accept(self, request: bytes) -> None:
        key = request.partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r\n")[0]
        self.transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Accept: " + b64encode(sha1(key + GUID).digest()) + b"\r\n\r\n"
        )
        self.is_open = True


def end_of_head(data: bytes, start: int) -> int:
    length = data[start + 1] & 127
    return start + (6 if length < 126 else 8 if length == 126 else 14)


def end_of_frame(data: bytes, start: int) -> int:
    """Return where the frame ends, or 0 if even that is not known yet."""
    if len(data) < start + 2:
        return 0
    length, head = data[start + 1] & 127, end_of_head(data, start)
    if len(data) < head:
        return 0
    if length > 125:
        length = int.from_bytes(data[start + 2 : head - 4], "big")
    return head + length


def frame(payload: bytes) -> bytes:
    length = len(payload)
    if length < 126:
        return bytes((0x81, length)) + payload
    if length < 1 << 16:
        return b"\x81\x7e" + length.to_bytes(2, "big") + payload
    return b"\x81\x7f" + length.to_bytes(8, "big") + payload


async def main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, "127.0.0.1", int(os.environ["PORT"]), backlog=4096)
    await server.serve_forever()


uvloop.run(main())
