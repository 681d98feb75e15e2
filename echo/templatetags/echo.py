"""`{% load echo %}{% connection_count "foo" %}`: the count of an object in a site's templates."""

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
from echo.state import get_state

register = template.Library()

DASH = "—"


@register.simple_tag(takes_context=True)
def connection_count(context: template.Context, name: str, live: bool = False) -> SafeString:
    """Return how many connections the object has; a dash with a title where it is not known.

    With `live=True` the number keeps itself fresh on the page, which needs `echo.urls` in the
    site's URLs: raises ImproperlyConfigured without them. Its script has the nonce of the page's
    policy, if there is one; a number whose script does not run says so. Raises InvalidName.
    """
    count = _count(check_name(name))
    unknown = gettext("The number of connections is not known at the moment.")
    title = unknown if count == DASH else ""
    # Browsers take these names for steps in the path: it would be another object's count.
    if live and name not in (".", ".."):
        return _live(name, count, title, unknown, nonce_attribute(context))
    return format_html('<span title="{}">{}</span>', title, count) if title else SafeString(count)


@register.simple_tag(takes_context=True)
def nonce_attribute(context: template.Context) -> SafeString:
    """Return ` nonce="…"` for an element of a page whose Content-Security-Policy has a nonce.

    The nonce is Django's (6.0), by its context processor `csp`, or django-csp's. To read it puts
    it into the policy.
    """
    nonce: Any = context.get("csp_nonce")
    if nonce is None:  # not: if it is false, which Django's is until it is read
        request = getattr(context, "request", None) or context.get("request")
        nonce = getattr(request, "csp_nonce", None)
    return SafeString("") if nonce is None else format_html(' nonce="{}"', str(nonce))


def _count(name: str) -> str:
    try:
        return str(get_state().count(name))
    except StateUnavailable:
        return DASH


def _live(name: str, count: str, title: str, unknown: str, nonce: SafeString) -> SafeString:
    # The script goes with each: a part of a page that is cached must not lose it. It leaves
    # alone what is followed already. In such a part the nonce is an old one: browsers block the
    # script then, as they do where a policy forbids it, and what it would remove stays to be seen.
    mark = pgettext("echo", "not fresh")
    return format_html(
        '<link rel="stylesheet" href="{}"{}>'
        '<output class="echo-live" data-url="{}" data-unknown="{}" data-old="{}"'
        ' data-stale-mark="{}" title="{}">{}'
        '<span class="echo-unscripted" title="{}"> ({})</span></output>'
        '<script src="{}" defer{}></script>',
        static("echo/live.css"),
        nonce,
        _address(name),
        unknown,
        gettext("This number is not fresh: the server does not answer."),
        mark,
        title,
        count,
        gettext("This number is not fresh: the script that keeps it so did not run."),
        mark,
        static("echo/live.js"),
        nonce,
    )


def _address(name: str) -> str:
    """Return the path of the object's stream. Raises ImproperlyConfigured without echo.urls."""
    try:
        return reverse("echo:live", kwargs={"name": name})
    except NoReverseMatch as error:
        sentence = gettext(
            "{% connection_count live=True %} needs echo.urls in the URLconf: "
            "path('connections/', include('echo.urls'))."
        )
        raise ImproperlyConfigured(sentence) from error
