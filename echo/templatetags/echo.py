"""`{% load echo %}`: the count of an object, and its members, in a template.

`{% connection_count "foo" %}` and `{% member_list "foo" %}`.
"""

from typing import Any

from django import template
from django.core.exceptions import ImproperlyConfigured
from django.templatetags.static import static
from django.urls import NoReverseMatch, reverse
from django.utils.formats import number_format
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext, pgettext

from echo.conf import conf
from echo.exceptions import StateUnavailable
from echo.members import first_members, member_name
from echo.names import check_name
from echo.permissions import MEMBERS, has_permission
from echo.responses import UNKNOWN_COUNT
from echo.state import get_state

register = template.Library()
register.filter(member_name)


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
    if live and not _is_step(name):
        return _live(name, count, title, nonce_attribute(context))
    return format_html('<span title="{}">{}</span>', title, count) if title else SafeString(count)


@register.simple_tag(takes_context=True)
def member_list(context: template.Context, name: str, live: bool = False) -> SafeString:
    """Return the members of the object as a list, by `echo/member_list.html`.

    At most ECHO_MAX_MEMBERS_SHOWN of them, and the number of the others. With `live=True` a script
    keeps the list up to date, as for `connection_count`. Returns "" if the request does not have
    the permission "members". Raises ImproperlyConfigured if the context has no request, and
    InvalidName.
    """
    check_name(name)
    request = getattr(context, "request", None) or context.get("request")
    if request is None:
        raise ImproperlyConfigured(
            "{% member_list %} needs the request to check its permission: render the template with "
            "it, and the context processor django.template.context_processors.request."
        )
    if not has_permission(request, name, MEMBERS):
        return SafeString("")
    is_live = live and not _is_step(name)
    listed: dict[str, Any] = {
        "name": name,
        "live": is_live,
        "live_url": _path("live_members", name, "member_list") if is_live else "",
        **_members(name),
        "request": request,
        "csp_nonce": context.get("csp_nonce"),
    }
    rendering: Any = context.template
    list_template = rendering.engine.get_template("echo/member_list.html")
    return SafeString(list_template.render(context.new(listed)))


def _members(name: str) -> dict[str, Any]:
    """Return the members to show, None if they are unknown, and the others as number and text."""
    try:
        members = get_state().members(name).members
    except StateUnavailable:
        return {"members": None, "more": 0, "others": ""}
    shown = first_members(members, conf.ECHO_MAX_MEMBERS_SHOWN)
    listed = [presence.member(key) for key, presence in shown.items()]
    more = len(members) - len(listed)
    grouped = number_format(more, use_l10n=True, force_grouping=True)  # 4,811
    others = pgettext("echo", "and {count} more").format(count=grouped) if more else ""
    return {"members": listed, "more": more, "others": others}


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
        _path("live", name, "connection_count"),
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


def _is_step(name: str) -> bool:
    """Return whether browsers would resolve the name in a path: the URL leads to another object."""
    return name in (".", "..")


def _path(view: str, name: str, tag: str) -> str:
    """Return the path of the event stream. Raises ImproperlyConfigured without echo.urls."""
    try:
        return reverse(f"echo:{view}", kwargs={"name": name})
    except NoReverseMatch as error:
        raise ImproperlyConfigured(
            f"{{% {tag} live=True %}} needs echo.urls in the URLconf: "
            "path('connections/', include('echo.urls'))."
        ) from error
