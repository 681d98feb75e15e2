from django.urls import path, re_path

from echo import live, views

app_name = "echo"

urlpatterns = [
    path("", views.usage, name="usage"),
    path("websocket", views.websocket, name="websocket"),
    path("getCurrentConnections", views.connections, name="connections"),
    path("<str:name>/websocket", views.websocket, name="websocket"),
    path("<str:name>/getCurrentConnections", views.connections, name="connections"),
    path("live", live.total, name="live_total"),
    path("connections/live", live.count, name="live"),
    path("<str:name>/connections/live", live.count, name="live"),
    # As the original: every other path tells how to use it.
    re_path("", views.usage),
]
