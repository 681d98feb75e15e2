from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from echo.management.base import named_object, require_shared_layer, told


class Command(BaseCommand):
    help = "Send a text to all connections of an object, in all processes."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name")
        parser.add_argument("text")

    def handle(self, *args: Any, **options: Any) -> None:
        one = named_object(options["name"])
        require_shared_layer()
        told(lambda: one.send(options["text"]))
