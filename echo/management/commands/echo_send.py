from typing import Any

from django.core.management.base import CommandParser

from echo.management.base import ObjectCommand
from echo.objects import NamedObject


class Command(ObjectCommand):
    help = "Send a text to all connections of an object, in all processes."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("text")

    def act(self, target: NamedObject, options: dict[str, Any]) -> None:
        target.send(options["text"])
