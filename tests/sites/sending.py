"""The demo; `GET /send/<name>/<text>` sends the text to the object's connections."""

from echo.objects import get_object
from project.asgi import application as demo


async def application(scope, receive, send):
    if scope["type"] != "http" or not scope["path"].startswith("/send/"):
        await demo(scope, receive, send)
        return
    _, _, name, text = scope["path"].split("/")
    await get_object(name).asend(text)
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})
