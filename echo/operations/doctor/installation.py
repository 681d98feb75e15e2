"""Whether an installation works, found out by using it: the checks of `echo_doctor`."""

import asyncio
import secrets
from collections.abc import Iterator
from typing import Any
from urllib.parse import urljoin

from channels.layers import InMemoryChannelLayer, get_channel_layer
from django.contrib.staticfiles import finders
from django.core.checks import WARNING, run_checks
from django.templatetags.static import static
from django.utils.translation import gettext as _

from echo.checks import check_asgi_application
from echo.exceptions import StateUnavailable
from echo.groups.subscription import new_channel
from echo.names import group_name
from echo.operations.doctor.finding import REDIS, Finding, soon, words_of
from echo.operations.doctor.probe import TIMEOUT, ProbeFailed, get
from echo.operations.doctor.site import check_site
from echo.state import get_state

FILES = tuple(
    f"echo/{name}" for name in ("usage.css", "usage.js", "live.js", "admin.css", "admin.js")
)

MESSAGES = 3  # a layer that starves a channel delivers the first one

SCRIPT, MARK = "echo/live.js", b"EventSource"  # one of them, and what it has however it is packed


def examine(url: str | None = None) -> Iterator[Finding]:
    """Yield the findings, as they come. `url` is the root or the prefix of a running site.

    Without it a temporary server is started. Nothing is left behind, neither process nor key.
    """
    name = f"echo-doctor-{secrets.token_hex(8)}"  # nobody else's object
    wrong = list(check_system())
    yield from wrong or [Finding("settings", True, _("the system checks have no complaint"))]
    yield check_static()
    if any(finding.check == "echo.E002" for finding in wrong):
        return  # nothing of ours works with a wrong setting
    yield check_state(name)
    yield check_layer(name)
    is_up = True
    for finding in check_site(name, url):
        is_up = is_up and finding.check != "server"
        yield finding
    if url is not None and is_up:  # a server of our own would have no proxy in front
        yield check_served(url)


def check_system() -> Iterator[Finding]:
    """Yield a finding for each error of the site, and each warning of ours."""
    for message in (*run_checks(), *check_asgi_application()):
        id = message.id or "settings"
        concerns_us = message.level >= WARNING and id.startswith("echo.")
        if not message.is_silenced() and (message.is_serious() or concerns_us):
            yield Finding(id, False, message.msg, message.hint or "")


def check_static() -> Finding:
    """Whether the files are there, and pages can name their addresses."""
    missing = [file for file in FILES if finders.find(file) is None]
    if missing:
        remedy = _(
            "Keep AppDirectoriesFinder in STATICFILES_FINDERS, and 'echo' in INSTALLED_APPS."
        )
        return Finding("static", False, _("%s is not found") % missing[0], remedy)
    try:
        for file in FILES:
            static(file)
    except ValueError as error:  # a storage with a manifest does not have it
        return Finding("static", False, str(error), _served())
    return Finding("static", True, _("the %d files of its pages are found") % len(FILES))


def check_served(url: str) -> Finding:
    """Whether the site at the URL, or whoever does it for the site, serves the static files."""
    try:
        address = urljoin(url, static(SCRIPT))
        status, body = get(address, {})
    except (ProbeFailed, ValueError) as error:  # the latter as in check_static
        return Finding("static files", False, str(error), _served())
    if status != 200 or MARK not in body:
        message = _("%(url)s is not the script that it should be (status %(status)d)")
        told = {"url": address, "status": status}
        return Finding("static files", False, message % told, _served())
    return Finding("static files", True, _("%s is served") % address)


def _served() -> str:
    return "Run `python manage.py collectstatic`, and have STATIC_ROOT served at STATIC_URL."


def check_state(name: str) -> Finding:
    """Join, count, leave and count, where the site keeps its counts."""
    state = get_state()
    try:
        soon(lambda: state.count(name), 0)  # waits until Redis has been met
        asyncio.run(_join(name))
        try:
            counts = [soon(lambda: state.count(name), 1)]
        finally:
            state.leave(name)
        counts.append(soon(lambda: state.count(name), 0))
    except StateUnavailable as error:
        return Finding("state", False, str(error), str(REDIS))
    if counts != [1, 0]:
        remedy = _("Is that Redis writable, and no replica?")
        return Finding("state", False, _("join and leave gave the counts %s") % counts, remedy)
    done = _("joined, counted and left in this process (ECHO_STATE_URL is memory://)")
    if state.shared:
        done = _("joined, counted and left in Redis")
    return Finding("state", True, done)


async def _join(name: str) -> None:
    state = get_state()
    await state.join(name)
    await state.settled()


def check_layer(name: str) -> Finding:
    """Send to a group, and receive in two channels at once: as objects do, and as consumers do."""
    try:
        layer: Any = get_channel_layer()
        if layer is None:
            message = _("CHANNEL_LAYERS is not set: messages stay in their process")
            return Finding("layer", None, message)
        asyncio.run(_exchange(layer, group_name(name)))
    except TimeoutError as error:
        return _broken_layer(str(error) or _("no message in %g s") % TIMEOUT)
    except Exception as error:  # each channel layer has exceptions of its own
        return _broken_layer(words_of(error))
    delivers = _("%s delivers, to all processes")
    if isinstance(layer, InMemoryChannelLayer):
        delivers = _("%s delivers, to this process only")
    return Finding("layer", True, delivers % type(layer).__name__)


def _broken_layer(message: str) -> Finding:
    remedy = _("Start what CHANNEL_LAYERS names, or correct its hosts.")
    return Finding("layer", False, message, remedy)


async def _exchange(layer: Any, group: str) -> None:
    """Send MESSAGES to a group that two channels are in: one as ours, and one as a consumer's."""
    async with asyncio.timeout(TIMEOUT):
        channels = [await new_channel(layer), await layer.new_channel()]
        try:
            for channel in channels:
                await layer.group_add(group, channel)
            async with asyncio.TaskGroup() as tasks:
                for channel in channels:
                    tasks.create_task(_receive_all(layer, channel))
                for _number in range(MESSAGES):
                    await layer.group_send(group, {"type": "echo.doctor"})
        finally:
            for channel in channels:
                await layer.group_discard(group, channel)


async def _receive_all(layer: Any, channel: str) -> None:
    for _number in range(MESSAGES):
        await layer.receive(channel)
