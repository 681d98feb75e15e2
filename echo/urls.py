"""The HTTP endpoints: `path("connections/", include("echo.urls"))`.

Without the usage page: `from echo.urls import endpoints` and
`path("connections/", include(endpoints))`.
"""

from django.urls import path

from echo import views
from echo.live.views import count, members, total

app_name = "echo"

endpoint_urlpatterns = [
    path("websocket", views.websocket, name="websocket"),
    path("getCurrentConnections", views.connections, name="connections"),
    path("<str:name>/websocket", views.websocket, name="websocket"),
    path("<str:name>/getCurrentConnections", views.connections, name="connections"),
    path("members", views.members, name="members"),
    path("<str:name>/members", views.members, name="members"),
    path("members/live", members, name="live_members"),
    path("<str:name>/members/live", members, name="live_members"),
    path("live", total, name="live_total"),
    path("connections/live", count, name="live"),
    path("<str:name>/connections/live", count, name="live"),
]
endpoints = (endpoint_urlpatterns, app_name)

urlpatterns = [path("", views.usage, name="usage"), *endpoint_urlpatterns]
