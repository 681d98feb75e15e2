"""`{% load echo %}{% connection_count "foo" %}`: the count of an object in a site's templates."""

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


@register.simple_tag
def connection_count(name: str, live: bool = False) -> SafeString:
    """Return how many connections the object has; a dash with a title where it is not known.

    With `live=True` the number keeps itself fresh on the page, which needs `echo.urls` in the
    site's URLs: raises ImproperlyConfigured without them. Raises InvalidName.
    """
    count = _count(check_name(name))
    unknown = gettext("The number of connections is not known at the moment.")
    title = unknown if count == DASH else ""
    # Browsers take these names for steps in the path: it would be another object's count.
    if live and name not in (".", ".."):
        return _live(name, count, title, unknown)
    return format_html('<span title="{}">{}</span>', title, count) if title else SafeString(count)


def _count(name: str) -> str:
    try:
        return str(get_state().count(name))
    except StateUnavailable:
        return DASH


def _live(name: str, count: str, title: str, unknown: str) -> SafeString:
    # The script goes with each: a part of a page that is cached must not lose it. It leaves
    # alone what is followed already.
    return format_html(
        '<output class="echo-live" data-url="{}" data-unknown="{}" data-old="{}"'
        ' data-stale-mark="{}" title="{}">{}</output><script src="{}" defer></script>',
        _address(name),
        unknown,
        gettext("This number is not fresh: the server does not answer."),
        pgettext("echo", "not fresh"),
        title,
        count,
        static("echo/live.js"),
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
