"""An HTTP implementation for uvicorn that does not change the names of headers."""

from h11 import Request
from uvicorn.protocols.http.h11_impl import H11Protocol


class HTTPProtocol(H11Protocol):
    def handle_websocket_upgrade(self, event: Request) -> None:
        self.headers = event.headers.raw_items()
        super().handle_websocket_upgrade(event)
