"""The checks of `echo_doctor`. Each tests a part of the installation by using it."""

import asyncio
import secrets
from collections.abc import Iterator, Mapping
from threading import Event
from typing import Any
from urllib.parse import urljoin

from channels.layers import get_channel_layer
from django.contrib.staticfiles import finders
from django.core.checks import WARNING, run_checks
from django.templatetags.static import static

from echo.checks import check_asgi_application
from echo.exceptions import StateUnavailable
from echo.groups.layer import reaches_other_processes
from echo.groups.subscription import new_channel
from echo.log import describe
from echo.names import group_name
from echo.operations.doctor.finding import REDIS, Finding, settled
from echo.operations.doctor.probe import TIMEOUT, ProbeFailed, get
from echo.operations.doctor.site import check_site
from echo.operations.polling import poll
from echo.state import get_state

FILES = tuple(
    f"echo/{name}" for name in ("usage.css", "usage.js", "live.js", "admin.css", "admin.js")
)
COLLECT = "Run `python manage.py collectstatic`, and have STATIC_ROOT served at STATIC_URL."

MAX_TOTALS = 5  # that are shown
WRITERS = (
    "Let only echo write the keys that begin with {echo}:, and set maxmemory-policy to noeviction."
)
CHANGE_TIMEOUT = 0.2  # seconds
FEED = (
    "Let the user of ECHO_STATE_URL subscribe to the channels &{echo}:*. "
    "A proxy in front of Redis must pass SUBSCRIBE."
)

MESSAGES = 3  # more than one: a layer that starves a channel still delivers the first

SCRIPT, MARK = "echo/live.js", b"EventSource"  # one of FILES, and a word that minifiers keep


def examine(url: str | None = None, user: str | None = None) -> Iterator[Finding]:
    """Yield the findings one by one. `url` is the root of a running site, or that of `echo.urls`.

    If there is no `url`, a temporary server is started. `user` is the name of a user for whom a
    login is tried. The checks leave no process and no key of
    Redis behind.
    """
    name = f"echo-doctor-{secrets.token_hex(8)}"  # an object without other connections
    problems = list(check_system())
    yield from problems or [Finding("settings", True, "the system checks found no problem")]
    yield check_static()
    if any(finding.check == "echo.E002" for finding in problems):
        return  # the app does not work with an invalid setting
    state = check_state(name)
    yield state
    if state.ok and get_state().shared:
        yield check_totals()
        yield check_changes(name)
    yield check_layer(name)
    is_up = True
    for finding in check_site(name, url, user):
        is_up = is_up and finding.check != "server"
        yield finding
    if url is not None and is_up:  # a temporary server has no proxy in front
        yield check_served(url)


def check_system() -> Iterator[Finding]:
    """Yield a finding for each error of any system check, and each warning of this app's."""
    for message in (*run_checks(), *check_asgi_application()):
        id = message.id or "settings"
        is_our_warning = message.level >= WARNING and id.startswith("echo.")
        if not message.is_silenced() and (message.is_serious() or is_our_warning):
            yield Finding(id, False, message.msg, message.hint or "")


def check_static() -> Finding:
    """Check that the static files exist, and that the storage has URLs for them."""
    missing = [file for file in FILES if finders.find(file) is None]
    if missing:
        remedy = "Keep AppDirectoriesFinder in STATICFILES_FINDERS, and 'echo' in INSTALLED_APPS."
        return Finding("static", False, f"{missing[0]} is not found", remedy)
    try:
        for file in FILES:
            static(file)
    except ValueError as error:  # raised by a manifest storage without an entry for the file
        return Finding("static", False, str(error), COLLECT)
    return Finding("static", True, f"the {len(FILES)} static files are found")


def check_served(url: str) -> Finding:
    """Check that the site at the URL serves the static files."""
    try:
        address = urljoin(url, static(SCRIPT))
        status, body = get(address, {})
    except (ProbeFailed, ValueError) as error:  # ValueError as in check_static
        return Finding("static files", False, str(error), COLLECT)
    if status != 200 or MARK not in body:
        message = f"{address} is not the expected script (status {status})"
        return Finding("static files", False, message, COLLECT)
    return Finding("static files", True, f"{address} is served")


def check_state(name: str) -> Finding:
    """Join, count, leave and count again, in the site's state."""
    state = get_state()
    try:
        settled(lambda: state.count(name), 0)  # waits for the first connection to Redis
        asyncio.run(_join(name))
        try:
            counts = [settled(lambda: state.count(name), 1)]
        finally:
            state.leave(name)
        counts.append(settled(lambda: state.count(name), 0))
    except StateUnavailable as error:
        return Finding("state", False, str(error), REDIS)
    if counts != [1, 0]:
        remedy = "The Redis must be writable, not a replica."
        return Finding("state", False, f"the counts after join and leave were {counts}", remedy)
    place = "Redis" if state.shared else "this process (ECHO_STATE_URL is memory://)"
    return Finding("state", True, f"joined, counted and left in {place}")


def check_totals() -> Finding:
    """Compare the totals on Redis with the counts of the processes, and repair them."""
    try:
        wrong = get_state().check()
    except StateUnavailable as error:
        return Finding("totals", False, str(error), REDIS)
    if wrong:
        shown = ", ".join(wrong[:MAX_TOTALS]) + (", …" if len(wrong) > MAX_TOTALS else "")
        message = f"{len(wrong)} totals on Redis were wrong and are repaired: {shown}"
        return Finding("totals", False, message, WRITERS)
    return Finding("totals", True, "all totals on Redis are the sums of the processes' counts")


def check_changes(name: str) -> Finding:
    """Check that the feed delivers a change of this process."""
    state, has_arrived = get_state(), Event()

    def on_change(number: int, counts: Mapping[str, int] | None, members: object) -> None:
        if counts and name in counts:
            has_arrived.set()

    def change() -> bool:
        asyncio.run(_join(name))
        try:
            return has_arrived.wait(CHANGE_TIMEOUT)
        finally:
            state.leave(name)

    stop_listening = state.listen(on_change)
    try:
        # A change is missed if it comes before the subscription, so repeat it.
        if poll(change, bool, TIMEOUT):
            return Finding("changes", True, "the change feed delivers a change of this process")
    except StateUnavailable as error:
        return Finding("changes", False, str(error), REDIS)
    finally:
        stop_listening()
    message = f"the change feed has delivered no change in {TIMEOUT:g} s"
    return Finding("changes", False, message, FEED)


async def _join(name: str) -> None:
    state = get_state()
    await state.join(name)
    await state.settled()


def check_layer(name: str) -> Finding:
    """Send to a group of two channels, one as used by this app and one as used by consumers."""
    try:
        layer: Any = get_channel_layer()
        if layer is None:
            message = "CHANNEL_LAYERS is not set: messages stay in their process"
            return Finding("layer", None, message)
        asyncio.run(_exchange(layer, group_name(name)))
    except Exception as error:  # each channel layer has its own exceptions
        is_silent = isinstance(error, TimeoutError) and not str(error)
        message = f"no message in {TIMEOUT:g} s" if is_silent else describe(error)
        remedy = "Start the servers that CHANNEL_LAYERS names, or correct its hosts."
        return Finding("layer", False, message, remedy)
    reach = "all processes" if reaches_other_processes() else "this process only"
    return Finding("layer", True, f"{type(layer).__name__} delivers, to {reach}")


async def _exchange(layer: Any, group: str) -> None:
    """Send MESSAGES to a group, and receive them in both channels at once."""
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
