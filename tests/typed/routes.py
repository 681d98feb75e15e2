"""What mypy must accept of a site: checked by tests/test_types.py, never run."""

from typing import Any

from asgiref.typing import ASGI3Application
from django.urls import URLPattern, path, re_path

from echo.counting import counted
from echo.objects import Member


async def chat(scope: Any, receive: Any, send: Any) -> None: ...


def member_of(scope: Any) -> Member | None:
    return Member(7, {"name": "Ada"})


async def amember_of(scope: Any) -> Member | None:
    return None


routes: list[URLPattern] = [
    path("chat/<str:room>/", counted(chat, by="room")),
    re_path(r"^talk/(?P<room>\w+)/$", counted(chat, by="room")),
    path("cafe/<str:room>/", counted(chat, by="room", member="user")),
    path("club/<str:room>/", counted(chat, by="room", member=member_of)),
    path("bar/<str:room>/", counted(chat, by="room", auto_reply={"ping": "pong"})),
    path("pub/<str:room>/", counted(chat, by="room", member=amember_of)),
]
application: ASGI3Application = counted(chat, by=lambda scope: scope["path"])
