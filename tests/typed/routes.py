"""What mypy must accept of a site: checked by tests/test_types.py, never run."""

from typing import Any

from asgiref.typing import ASGI3Application
from django.urls import URLPattern, path, re_path

from echo.counting import counted


async def chat(scope: Any, receive: Any, send: Any) -> None: ...


routes: list[URLPattern] = [
    path("chat/<str:room>/", counted(chat, by="room")),
    re_path(r"^talk/(?P<room>\w+)/$", counted(chat, by="room")),
]
application: ASGI3Application = counted(chat, by=lambda scope: scope["path"])
