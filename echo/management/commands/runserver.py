"""Daphne's `runserver`, with the WebSocket transport of this app."""

from daphne.management.commands.runserver import Command as DaphneCommand

from echo.server.daphne.server import Server


class Command(DaphneCommand):  # type: ignore[misc]  # Daphne has no types
    server_cls = Server
