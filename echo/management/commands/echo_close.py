from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from echo.management.base import named_object, require_shared_layer, told


class Command(BaseCommand):
    help = "Close all connections of an object, in all processes."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name")
        parser.add_argument("--code", type=int, default=1000, help="1000, or 3000 to 4999")
        parser.add_argument("--reason", default="", help="at most 123 bytes")

    def handle(self, *args: Any, **options: Any) -> None:
        one = named_object(options["name"])
        require_shared_layer()
        told(lambda: one.close(options["code"], options["reason"]))
