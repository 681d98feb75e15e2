import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from echo.exceptions import StateUnavailable
from echo.management.base import named_object
from echo.objects import connected_objects
from echo.operations.polling import poll
from echo.state import get_state

TIMEOUT = 3.0  # seconds to wait for the counts after a start of Redis


class Command(BaseCommand):
    help = "Show the number of connections of each connected object, or of the named objects."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("names", nargs="*", metavar="name", help="objects; by default all")
        parser.add_argument("--prefix", default="", help="only names that begin with the prefix")
        parser.add_argument("--json", action="store_true", help='print {"name": count}')

    def handle(self, *args: Any, **options: Any) -> None:
        if not get_state().shared:
            raise CommandError(
                "ECHO_STATE_URL is memory://: the counts are in the memory of the server, which no "
                "other process can read. Set ECHO_STATE_URL to a Redis, here and for the server."
            )
        if options["names"]:
            objects = [named_object(name) for name in options["names"]]
            counts = _known(lambda: {each.name: each.count() for each in objects})
        else:
            counts = _known(lambda: connected_objects(options["prefix"]))
        with _quiet_if_pipe_is_closed():
            self._show(counts, options["json"])

    def _show(self, counts: dict[str, int], as_json: bool) -> None:
        if as_json:
            self.stdout.write(json.dumps(counts))
            return
        for name, count in counts.items():
            self.stdout.write(f"{count:>8}  {name}")
        if not counts:
            self.stderr.write("No object has a connection now.")


def _known(read: Callable[[], dict[str, int]]) -> dict[str, int]:
    """Return the counts, waiting a moment if Redis has just been started."""
    logger = logging.getLogger("echo.state")
    level = logger.level
    logger.setLevel(logging.ERROR)  # the CommandError has the same text as the warning
    try:
        return poll(read, lambda counts: True, TIMEOUT, interval=0.1)
    except StateUnavailable as error:
        raise CommandError(f"The counts are unknown at the moment: {error}") from error
    finally:
        logger.setLevel(level)


@contextmanager
def _quiet_if_pipe_is_closed() -> Iterator[None]:
    """Exit without an error if the reader of standard output has exited, as in `… | head`."""
    try:
        yield
        sys.stdout.flush()  # Python would flush at exit, and print a BrokenPipeError
    except BrokenPipeError:
        # Python flushes again at exit: docs.python.org/3/library/signal.html, “SIGPIPE”.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
