"""The same job with picows, on uvloop. It closes the connection after an answer to HTTP."""

import os

import picows
import uvloop

PREFIX = b"[Durable Object]: "
members: set[picows.WSTransport] = set()


class Echo(picows.WSListener):
    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        members.add(transport)

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        if frame.msg_type is picows.WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code())
            transport.disconnect()
            return
        text = frame.get_payload_as_bytes()
        if not text.startswith(b"all:"):
            transport.send(picows.WSMsgType.TEXT, PREFIX + text)
            return
        for member in members:
            member.send(picows.WSMsgType.TEXT, text)

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        members.discard(transport)


async def main() -> None:
    port = int(os.environ["PORT"])
    server = await picows.ws_create_server(lambda request: Echo(), "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


uvloop.run(main())
