import os

from channels.routing import ProtocolTypeRouter
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
django = get_asgi_application()

# These need the apps to be loaded.
from echo.middleware.count_first import CountFirst  # noqa: E402
from echo.routing import as_websocket_application  # noqa: E402

application = ProtocolTypeRouter(
    {"http": CountFirst(django), "websocket": as_websocket_application(http=django)}
)
