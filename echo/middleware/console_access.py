"""Access to the console of the usage page."""

from typing import Any

from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, WebSocketScope
from django.utils.translation import gettext as _

from echo.denial import deny
from echo.permissions import LIST, ahas_permission


class ConsoleAccess:
    """ASGI middleware that denies the handshakes of clients without the permission "list".

    A user of the console can join any object and receives what the site sends to it.
    """

    required_action = LIST  # for the usage page and the doctor

    def __init__(self, application: Any) -> None:
        self.application = application
        self.counted_by = application.counted_by  # for the system check

    async def __call__(
        self, scope: WebSocketScope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        if await ahas_permission(scope, None, LIST):
            await self.application(scope, receive, send)
            return
        await deny(
            scope,
            send,
            "permission",
            'the console requires the permission "%s"',
            LIST,
            status=403,
            text=_("You may not use the console."),
            code=4403,
            receive=receive,
        )
