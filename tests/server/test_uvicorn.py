"""uvicorn's worker processes, HTTP parsers and event loops."""

from tests.raw import CLOSE, Client, close_payload, frame
from tests.servers import Server

REASON = "Durable Object is closing WebSocket"


def test_workers_serve_and_stop_in_order() -> None:
    with Server("uvicorn", options=("--workers", "2")) as server:
        clients = [Client.opened(server.port) for _ in range(8)]
        clients[0].send(frame(CLOSE, close_payload(4000)))
        assert clients[0].closing() == (4000, REASON)

        server.process.terminate()

        assert [client.closing() for client in clients[1:]] == [(1012, "Service Restart")] * 7
        for client in clients:
            client.socket.close()
        assert server.process.wait(10) == 0
        assert "Traceback" not in server.log()


def test_other_http_and_loop_implementations() -> None:
    with (
        Server("uvicorn", options=("--http", "h11", "--loop", "asyncio")) as server,
        Client.opened(server.port) as client,
    ):
        client.send_text("hello")
        assert client.text() == "[Durable Object]: hello"
        assert server.count() == 1
        client.send(frame(CLOSE, close_payload(4000)))
        assert client.closing() == (4000, REASON)
        assert server.count() == 0


def test_http_implementation_that_keeps_the_spelling_of_headers() -> None:
    options = ("--http", "tests.sites.as_spelled:HTTPProtocol")
    with Server("uvicorn", options=options) as server, Client.opened(server.port) as client:
        client.send_text("hello")
        assert client.text() == "[Durable Object]: hello"
