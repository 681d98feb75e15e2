"""The base of the commands that act on the connections of an object, in other processes."""

from typing import Any

from channels.layers import get_channel_layer
from django.core.management.base import BaseCommand, CommandError, CommandParser

from echo.exceptions import InvalidName
from echo.groups.layer import reaches_other_processes
from echo.log import describe
from echo.objects import NamedObject, get_object


class ObjectCommand(BaseCommand):
    """Runs `act` on the named object."""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name")

    def handle(self, *args: Any, **options: Any) -> None:
        target = named_object(options["name"])
        _require_shared_layer()
        try:
            self.act(target, options)
        except (ValueError, TypeError) as error:  # invalid options
            raise CommandError(describe(error)) from error
        except Exception as error:  # each channel layer has its own exceptions
            raise CommandError(f"Channel layer error: {describe(error)}") from error

    def act(self, target: NamedObject, options: dict[str, Any]) -> None:
        raise NotImplementedError


def named_object(name: str) -> NamedObject:
    """Return the object. Raises CommandError for an invalid name."""
    try:
        return get_object(name)
    except InvalidName as error:
        raise CommandError(str(error)) from error


def _require_shared_layer() -> None:
    try:
        get_channel_layer()
    except Exception as error:  # each channel layer has its own exceptions
        raise CommandError(f"CHANNEL_LAYERS cannot be used: {describe(error)}") from error
    if not reaches_other_processes():
        raise CommandError(
            "CHANNEL_LAYERS has no layer that reaches other processes, and this command has no "
            "connections. Set it to channels_redis.pubsub.RedisPubSubChannelLayer."
        )
