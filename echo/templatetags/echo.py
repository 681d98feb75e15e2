"""`{% load echo %}{% connection_count "foo" %}`: the count of an object in a template."""

from typing import Any

from django import template
from django.core.exceptions import ImproperlyConfigured
from django.templatetags.static import static
from django.urls import NoReverseMatch, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext, pgettext

from echo.exceptions import StateUnavailable
from echo.names import check_name
from echo.responses import UNKNOWN_COUNT
from echo.state import get_state

register = template.Library()


@register.simple_tag(takes_context=True)
def connection_count(context: template.Context, name: str, live: bool = False) -> SafeString:
    """Return the number of connections of the object, or a dash with a title if it is unknown.

    With `live=True` a script keeps the number up to date. This needs `echo.urls` in the URLconf,
    else ImproperlyConfigured is raised. The script has the nonce of the page's
    Content-Security-Policy, if there is one. If the script does not run, the number is marked as
    not up to date. Raises InvalidName.
    """
    check_name(name)
    try:
        count, title = str(get_state().count(name)), ""
    except StateUnavailable:
        count, title = "—", str(UNKNOWN_COUNT)
    # Browsers resolve "." and ".." in a path: the URL would lead to another object.
    if live and name not in (".", ".."):
        return _live(name, count, title, nonce_attribute(context))
    return format_html('<span title="{}">{}</span>', title, count) if title else SafeString(count)


@register.simple_tag(takes_context=True)
def nonce_attribute(context: template.Context) -> SafeString:
    """Return ` nonce="…"` for an element of a page whose Content-Security-Policy has a nonce.

    The nonce is from Django 6.0 (its context processor `csp`) or from django-csp. Reading the nonce
    adds it to the policy.
    """
    nonce: Any = context.get("csp_nonce")
    if nonce is None:  # Django's lazy nonce is false until it is read
        request = getattr(context, "request", None) or context.get("request")
        nonce = getattr(request, "csp_nonce", None)
    return SafeString("") if nonce is None else format_html(' nonce="{}"', str(nonce))


def _live(name: str, count: str, title: str, nonce: SafeString) -> SafeString:
    # Each element includes the script, so that cached fragments work. The script skips elements
    # that another copy of it already updates. A cached fragment may have an outdated nonce: then
    # browsers block the script, and the mark "not up to date", which it would remove, stays
    # visible.
    mark = pgettext("echo", "not up to date")
    return format_html(
        '<link rel="stylesheet" href="{}"{}>'
        '<output class="echo-live" data-url="{}" data-unknown="{}" data-old="{}"'
        ' data-stale-mark="{}" title="{}">{}'
        '<span class="echo-unscripted" title="{}"> ({})</span></output>'
        '<script src="{}" defer{}></script>',
        static("echo/live.css"),
        nonce,
        _live_path(name),
        UNKNOWN_COUNT,
        gettext("This number is not up to date: the server does not respond."),
        mark,
        title,
        count,
        gettext("This number is not up to date: its script did not run."),
        mark,
        static("echo/live.js"),
        nonce,
    )


def _live_path(name: str) -> str:
    """Return the path of the event stream. Raises ImproperlyConfigured without echo.urls."""
    try:
        return reverse("echo:live", kwargs={"name": name})
    except NoReverseMatch as error:
        raise ImproperlyConfigured(
            "{% connection_count live=True %} needs echo.urls in the URLconf: "
            "path('connections/', include('echo.urls'))."
        ) from error
