"""Actions of the admin pages, each logged as a LogEntry and not repeated by a double click."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from hashlib import sha256
from typing import Any

from asgiref.sync import async_to_sync
from django.contrib import messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.core.cache import cache
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.translation import gettext

from echo.log import describe
from echo.names import visible

logger = logging.getLogger("echo.admin")

APP_LABEL, MODEL_NAME = "echo", "object"  # of the log entries
LAYER_TIMEOUT = 5.0  # seconds
REMEMBERED = 3600  # seconds for which the same form cannot be submitted again
MAX_TITLE = 200  # characters: LogEntry.object_repr


def run_action(
    request: HttpRequest,
    name: str,
    action: Callable[[], Awaitable[None]],
    title: str,
    details: str,
    success: str,
    member: str | None = None,
) -> bool:
    """Log the action and run it, unless the form was submitted before. Return False on failure.

    "Recent actions" shows `title`, the object's history `details`, and the page `success`.
    """
    user: Any = request.user
    if user.pk is None:  # a LogEntry needs a user
        raise PermissionDenied
    form = _form(request)
    if _is_repeated(form):
        messages.info(
            request, gettext("This form was already submitted; the action was not repeated.")
        )
        return True
    try:
        entry = LogEntry.objects.create(
            user_id=user.pk,
            content_type=_content_type(),
            object_id=name,
            object_repr=visible(title)[:MAX_TITLE],
            action_flag=CHANGE,
            change_message=visible(details),
        )
    except Exception:
        _forget(form)
        raise
    shown = format_html("<bdi>{}</bdi>", name)
    try:
        async_to_sync(asyncio.wait_for)(action(), LAYER_TIMEOUT)
    except Exception as error:  # each channel layer has its own exceptions
        _forget(form)
        logger.warning("Channel layer error for %r: %s", name, describe(error))
        entry.object_repr = (gettext("Failed: %s") % visible(title))[:MAX_TITLE]
        entry.change_message = gettext("Failed: %s") % visible(details)
        entry.save(update_fields=["object_repr", "change_message"])
        failed = gettext("Channel layer error: {name} may not have been reached.")
        messages.error(request, format_html(failed, name=shown))
        return False
    shown_member = format_html("<bdi>{}</bdi>", member)
    messages.success(request, format_html(success, name=shown, member=shown_member))
    return True


def _content_type() -> ContentType:
    """Return the content type of the log entries. "Recent actions" shows its name.

    It has no model, so `remove_stale_contenttypes` may delete it; the entries remain.
    """
    return ContentType.objects.get_or_create(app_label=APP_LABEL, model=MODEL_NAME)[0]


def _form(request: HttpRequest) -> str | None:
    """Return a cache key of the submitted form; None if it has no CSRF token.

    Reloading the page changes the CSRF token, and so the key.
    """
    if "csrfmiddlewaretoken" not in request.POST:
        return None
    form = f"{request.user.pk} {request.get_full_path()} {request.POST.urlencode()}"
    return f"echo:form:{sha256(form.encode()).hexdigest()}"


def _is_repeated(form: str | None) -> bool:
    """Return whether this form was submitted before, as by a double click."""
    if form is None:
        return False
    try:
        # A backend that ignores its errors returns False from add(), although it stores nothing.
        return not cache.add(form, 1, REMEMBERED) and cache.get(form) is not None
    except Exception as error:  # backends raise exceptions of their own
        logger.warning("Cache error, a repeated form is not recognised: %s", describe(error))
        return False


def _forget(form: str | None) -> None:
    """Allow the form to be submitted again, after its action failed."""
    if form is not None:
        with suppress(Exception):  # the form's key expires
            cache.delete(form)
