"""`{% load echo %}{% connection_count "foo" %}`: the count of an object in a site's templates."""

from django import template
from django.template import Context
from django.templatetags.static import static
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext

from echo.exceptions import StateUnavailable
from echo.names import check_name
from echo.state import get_state

register = template.Library()

DASH = "—"


@register.simple_tag(takes_context=True)
def connection_count(context: Context, name: str, live: bool = False) -> SafeString:
    """Return how many connections the object has; a dash with a title where it is not known.

    With `live=True` the number keeps itself fresh on the page, which needs `echo.urls` in the
    site's URLs. Raises InvalidName.
    """
    count = _count(check_name(name))
    unknown = gettext("The number of connections is not known at the moment.")
    title = unknown if count == DASH else ""
    # Browsers take these names for steps in the path: it would be another object's count.
    if live and name not in (".", ".."):
        return _live(context, name, count, title, unknown)
    return format_html('<span title="{}">{}</span>', title, count) if title else SafeString(count)


def _count(name: str) -> str:
    try:
        return str(get_state().count(name))
    except StateUnavailable:
        return DASH


def _live(context: Context, name: str, count: str, title: str, unknown: str) -> SafeString:
    return format_html(
        '<output class="echo-live" data-url="{}" data-unknown="{}" data-old="{}" title="{}">{}'
        "</output>{}",
        reverse("echo:live", kwargs={"name": name}),
        unknown,
        gettext("This number is not fresh: the server does not answer."),
        title,
        count,
        _script(context),
    )


def _script(context: Context) -> SafeString:
    """Return the script element, the first time on a page."""
    page: dict[str, object] = context.render_context.dicts[0]  # type: ignore[assignment]  # shared with all templates that it includes
    if "echo_live" in page:
        return SafeString("")
    page["echo_live"] = True
    return format_html('<script src="{}" defer></script>', static("echo/live.js"))
