"""What the commands share: they ask other processes, and say so when they cannot."""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from channels.layers import InMemoryChannelLayer, get_channel_layer
from django.core.management.base import CommandError
from django.utils.translation import gettext as _

from echo.exceptions import InvalidName, StateUnavailable
from echo.objects import NamedObject, get_object
from echo.operations.doctor.finding import words_of
from echo.state import get_state

T = TypeVar("T")

PATIENCE = 3.0  # seconds: just after a start of Redis its processes write their counts again


def require_shared_state() -> None:
    """Raise CommandError if the counts are in the memory of other processes."""
    if not get_state().shared:
        sentence = _(
            "ECHO_STATE_URL is memory://: the counts are in the memory of the server, which no "
            "other process can see. Set ECHO_STATE_URL to a Redis, here and for the server."
        )
        raise CommandError(sentence)


def require_shared_layer() -> None:
    """Raise CommandError if messages cannot leave this process."""
    try:
        layer = get_channel_layer()
    except Exception as error:  # of the backend's own kinds
        raise CommandError(_("CHANNEL_LAYERS cannot be used: %s") % words_of(error)) from error
    if layer is None or isinstance(layer, InMemoryChannelLayer):
        sentence = _(
            "CHANNEL_LAYERS has no layer that reaches other processes; this command has no "
            "connections of its own. Set it to channels_redis.pubsub.RedisPubSubChannelLayer."
        )
        raise CommandError(sentence)


def known(read: Callable[[], T]) -> T:
    """Return what is read, waiting a moment for a Redis that has just started."""
    end = time.monotonic() + PATIENCE
    with _without_warnings():
        while True:
            try:
                return read()
            except StateUnavailable as error:
                if time.monotonic() > end:
                    raise CommandError(_("The counts cannot be known now: %s") % error) from error
                time.sleep(0.1)


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Keep the state from the log, where a command says the same in its own line."""
    logger = logging.getLogger("echo.state")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def named_object(name: str) -> NamedObject:
    try:
        return get_object(name)
    except InvalidName as error:
        raise CommandError(str(error)) from error


def told(act: Callable[[], Any]) -> None:
    """Run what sends through the channel layer; its trouble is a CommandError."""
    try:
        act()
    except (ValueError, TypeError) as error:
        raise CommandError(words_of(error)) from error
    except Exception as error:  # each channel layer has exceptions of its own
        raise CommandError(_("The channel layer fails: %s") % words_of(error)) from error


@contextmanager
def until_nobody_reads() -> Iterator[None]:
    """End quietly what writes to standard output, where its reader has enough: `… | head`."""
    try:
        yield
        sys.stdout.flush()  # else Python would find out at its end
    except BrokenPipeError:
        # Python flushes once more at its end: docs.python.org/3/library/signal.html, “SIGPIPE”.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
