import os

from channels.routing import ProtocolTypeRouter
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
http = get_asgi_application()

from echo.routing import as_websocket_application  # noqa: E402  (needs the apps to be loaded)

application = ProtocolTypeRouter({"http": http, "websocket": as_websocket_application(http=http)})
