from typing import Any

from django.core.management.base import CommandParser

from echo.management.base import ObjectCommand
from echo.objects import NamedObject


class Command(ObjectCommand):
    help = "Close all connections of an object, in all processes."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--code", type=int, default=1000, help="1000, or 3000 to 4999")
        parser.add_argument("--reason", default="", help="at most 123 bytes")

    def act(self, target: NamedObject, options: dict[str, Any]) -> None:
        target.close(options["code"], options["reason"])
