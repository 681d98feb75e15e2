import json
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from django.core.management.base import BaseCommand, CommandError, CommandParser

from echo.exceptions import StateUnavailable
from echo.management.base import named_object
from echo.members import list_data
from echo.names import visible
from echo.objects import connected_objects
from echo.operations.polling import poll
from echo.state import get_state

TIMEOUT = 3.0  # seconds to wait for the counts after a start of Redis


Known = TypeVar("Known")


class Command(BaseCommand):
    help = "Show the number of connections of each connected object, or of the named objects."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("names", nargs="*", metavar="name", help="objects; by default all")
        parser.add_argument("--prefix", default="", help="only names that begin with the prefix")
        parser.add_argument(
            "--members", action="store_true", help="also show the members of each object"
        )
        parser.add_argument(
            "--json",
            action="store_true",
            help='print {"name": count}; with --members, {"name": {name, connections, members}}',
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if not get_state().shared:
            raise CommandError(
                "ECHO_STATE_URL is memory://: the counts are in the memory of the server, which no "
                "other process can read. Set ECHO_STATE_URL to a Redis, here and for the server."
            )
        names = [named_object(name).name for name in options["names"]]
        counts = _known(lambda: _counts(names, options["prefix"]))
        lists = _known(lambda: _lists(counts)) if options["members"] else None
        with _quiet_if_pipe_is_closed():
            if options["json"]:
                self.stdout.write(json.dumps(counts if lists is None else lists))
            else:
                self._show(counts, lists or {})

    def _show(self, counts: dict[str, int], lists: dict[str, dict[str, Any]]) -> None:
        for name, count in counts.items():
            listed = lists.get(name, {"connections": count, "members": []})
            self.stdout.write(f"{listed['connections']:>8}  {name}")
            for member in listed["members"]:
                key = visible(member["key"])
                info = visible(json.dumps(member["info"], ensure_ascii=False))
                self.stdout.write(f"{member['connections']:>16}  {member['since']}  {key}  {info}")
        if not counts:
            self.stderr.write("No object has a connection now.")


def _counts(names: list[str], prefix: str) -> dict[str, int]:
    if names:
        return {name: get_state().count(name) for name in names}
    return connected_objects(prefix)


def _lists(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return connections and members of the objects, as `GET …/<name>/members` does, uncut."""
    return {name: list_data(name, get_state().members(name), None) for name in names}


def _known(read: Callable[[], Known]) -> Known:
    """Return the result, waiting a moment if Redis has just been started."""
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
