"""The routes of the demo, with members: `/foo/websocket?member=ada`.

The text "away" is added to the member's name.
"""

from urllib.parse import parse_qs

from channels.routing import ProtocolTypeRouter
from django.core.asgi import get_asgi_application
from django.urls import path

from echo.consumers import EchoConsumer
from echo.counting import counted
from echo.members import Member
from echo.objects import aset_member_info
from echo.routing import as_websocket_application, websocket_urlpatterns


def member_of(scope):
    """Return the member that the query string names."""
    [key] = parse_qs(scope["query_string"].decode()).get("member", [""])
    return Member(key, {"name": key.title()}) if key else None


class AwayConsumer(EchoConsumer):
    async def reply(self, text):
        if text == "away":
            name = f"{member_of(self.scope).key.title()} (away)"
            await aset_member_info(self.scope, {"name": name})
        return super().reply(text)


http = get_asgi_application()
routes = [
    path("<str:name>/websocket", counted(AwayConsumer.as_asgi(), by="name", member=member_of)),
    *websocket_urlpatterns,
]
application = ProtocolTypeRouter(
    {"http": http, "websocket": as_websocket_application(routes, http=http)}
)
