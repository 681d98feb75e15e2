from channels.routing import ProtocolTypeRouter, URLRouter
from channels_broadcast.routing import websocket_urlpatterns

# Without AuthMiddleware: the tests put the user into the scope themselves.
application = ProtocolTypeRouter({"websocket": URLRouter(websocket_urlpatterns)})
