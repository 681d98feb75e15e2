"""Admin pages: the connected objects and their members, with forms to send and to close.

They need no table, migration or permission in the database. Each action is logged as a LogEntry;
the first one creates the content type of these entries. Users need access to the admin and
permission from ECHO_AUTHORIZE. To register with an AdminSite other than the default:
`site.register([ConnectedObject], ConnectedObjectAdmin)`.
"""

from contextlib import suppress
from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db.models.options import Options
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import NoReverseMatch, URLPattern, path, reverse
from django.utils.http import urlencode
from django.utils.text import Truncator
from django.utils.translation import gettext, pgettext, pgettext_lazy

from echo.admin.actions import APP_LABEL, MODEL_NAME, run_action
from echo.admin.members import member_context, read_members, rows_of
from echo.exceptions import InvalidName, StateUnavailable
from echo.forms import CloseForm, SendForm
from echo.groups.layer import reaches_other_processes
from echo.members import check_key
from echo.names import check_name
from echo.objects import get_object
from echo.permissions import CLOSE, COUNT, LIST, MEMBERS, SEND, has_permission
from echo.state import get_state
from echo.state.base import total_of
from echo.views import connected_or_none

PER_PAGE = 100  # objects
MEMBERS_PER_PAGE = 20  # the forms follow below them


class ConnectedObject:
    """A stand-in for a model, with the only attribute that the admin's registry needs: `_meta`.

    A real model, even an unmanaged one, would create permissions in the database.
    """

    _meta: Any = Options(None, APP_LABEL)


ConnectedObject._meta.object_name = "Object"
ConnectedObject._meta.model_name = MODEL_NAME
ConnectedObject._meta.verbose_name = pgettext_lazy("echo", "object")
ConnectedObject._meta.verbose_name_plural = pgettext_lazy("echo", "objects")


class ConnectedObjectAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # Django has no generic
    """Four pages: the list of objects, one object, one of its members, a confirmation of closing.

    The object's name is in the query string, since a name like `..` cannot be a path segment. The
    same holds for the member's key.
    """

    def check(self, **kwargs: Any) -> list[Any]:
        return []  # the options of ModelAdmin are not used

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.admin_site.has_permission(request) and has_permission(request, None, LIST)

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    has_change_permission = has_delete_permission = has_add_permission

    def get_urls(self) -> list[URLPattern]:
        wrap = self.admin_site.admin_view
        return [
            path("", wrap(self.objects_view), name="echo_object_changelist"),
            path("object/", wrap(self.object_view), name="echo_object_change"),
            path("member/", wrap(self.member_view), name="echo_object_member"),
            path("close/", wrap(self.close_view), name="echo_object_close"),
        ]

    def objects_view(self, request: HttpRequest) -> HttpResponse:
        """List the connected objects, by number of connections or by name."""
        self._require(request, None, LIST)
        prefix = request.GET.get("prefix", "")
        by_name = request.GET.get("sort") == "name"
        connected = connected_or_none(prefix)
        objects = connected or []
        if not by_name:
            # The sort is stable: objects with equal counts stay sorted by name.
            objects.sort(key=lambda item: -item[1])
        paginator = Paginator(objects, PER_PAGE)
        page = paginator.get_page(request.GET.get("page"))
        context = {
            "title": gettext("Objects connected now"),
            "page": page,
            "numbers": paginator.get_elided_page_range(page.number),
            "connections": _total(objects, prefix),
            "prefix": prefix,
            "by_name": by_name,
            "known": connected is not None,
            "query": request.GET,
            "live_url": _live_url("echo:live_total"),
        }
        return self._render(request, "objects", context)

    def object_view(self, request: HttpRequest) -> HttpResponse:
        """Show one object: its count, its members and the forms; a POST sends a text."""
        name = self._name(request)
        form = SendForm(request.POST if request.method == "POST" else None)
        if request.method == "POST":
            self._require(request, name, SEND)
            if form.is_valid():
                text = form.cleaned_data["text"]
                is_done = run_action(
                    request,
                    name,
                    lambda: get_object(name).asend(text),
                    gettext("%s: text sent") % name,
                    gettext("Sent “%s”.") % Truncator(text).chars(200),
                    gettext("The text was sent to the connections of {name}."),
                )
                if is_done:
                    return self._back(name)
                # After an error, show the form again with the submitted text.
        return self._object_page(request, name, form, CloseForm())

    def member_view(self, request: HttpRequest) -> HttpResponse:
        """Show one member: its info, its connections and the form that closes them."""
        name, key = self._name(request), self._key(request)
        if key is None:
            raise Http404
        return self._member_page(request, name, key, CloseForm())

    def close_view(self, request: HttpRequest) -> HttpResponse:
        """Show the confirmation page; a POST to the same URL closes the connections.

        They are those of one member if the query string has one, else all of the object.
        """
        name, key = self._name(request), self._key(request)
        self._require(request, name, CLOSE)
        form = CloseForm(request.GET)
        if not form.is_valid():
            if key is not None:
                return self._member_page(request, name, key, form)
            return self._object_page(request, name, SendForm(), form)
        code, reason = form.cleaned_data["code"], form.cleaned_data["reason"]
        if request.method == "POST":
            closed = {"name": name, "member": key, "code": code, "reason": reason}
            if key is None:
                title = gettext("%(name)s: closed with %(code)d")
                details = gettext("Closed with code %(code)d, reason “%(reason)s”.")
                success = gettext("All connections of {name} are being closed.")
            else:
                title = gettext("%(name)s: member %(member)s closed with %(code)d")
                details = gettext(
                    "Closed member %(member)s with code %(code)d, reason “%(reason)s”."
                )
                success = gettext("All connections of {member} to {name} are being closed.")
            run_action(
                request,
                name,
                lambda: get_object(name).aclose(code, reason, member=key),
                title % closed,
                details % closed,
                success,
                key,
            )
            return self._back(name)
        context = {
            "title": gettext("Are you sure?"),
            "name": name,
            **({"count": self._count(request, name)} if key is None else member_context(name, key)),
            "code": code,
            "reason": reason,
        }
        return self._render(request, "close", context)

    def _object_page(
        self, request: HttpRequest, name: str, send_form: SendForm, close_form: CloseForm
    ) -> HttpResponse:
        may_count = has_permission(request, name, COUNT)
        may_members = has_permission(request, name, MEMBERS)
        present = read_members(name) if may_members else None
        search, sort = request.GET.get("q", ""), request.GET.get("sort", "")
        paginator = Paginator(rows_of(present, search, sort), MEMBERS_PER_PAGE)
        page = paginator.get_page(request.GET.get("page"))
        context = {
            "title": pgettext("echo", "Object"),
            "name": name,
            # Of the same moment as the members.
            "count": present.connections if present and may_count else self._count(request, name),
            "may_count": may_count,
            "may_members": may_members,
            "known": present is not None,
            "page": page,
            "rows": [presence.member(key) for key, presence in page],
            "numbers": paginator.get_elided_page_range(page.number),
            "members": 0 if present is None else len(present.members),
            "sort": sort,
            "q": search,
            "query": request.GET,
            "live_url": self._live_object_url(name, may_count, may_members),
            "send_form": send_form if has_permission(request, name, SEND) else None,
            "close_form": close_form if has_permission(request, name, CLOSE) else None,
            "reaches_all": reaches_other_processes(),
        }
        return self._render(request, "object", context)

    def _live_object_url(self, name: str, may_count: bool, may_members: bool) -> str | None:
        # Browsers resolve "." and ".." in a path: the URL would lead to another object.
        if name in (".", "..") or not (may_count or may_members):
            return None
        return _live_url("echo:live_members" if may_members else "echo:live", name=name)

    def _member_page(
        self, request: HttpRequest, name: str, key: str, form: CloseForm
    ) -> HttpResponse:
        context = {
            "title": pgettext("echo", "Member"),
            "name": name,
            **member_context(name, key),
            "close_form": form if has_permission(request, name, CLOSE) else None,
            "reaches_all": reaches_other_processes(),
        }
        return self._render(request, "member", context)

    def _count(self, request: HttpRequest, name: str) -> int | None:
        """Return the object's count; None if it is unknown or the user may not see it."""
        try:
            return get_object(name).count() if has_permission(request, name, COUNT) else None
        except StateUnavailable:
            return None

    def _name(self, request: HttpRequest) -> str:
        self._require(request, None, LIST)
        try:
            return check_name(request.GET.get("name", ""))
        except InvalidName as error:
            raise Http404(str(error)) from error

    def _key(self, request: HttpRequest) -> str | None:
        """Return the key in the query string, None if it has none."""
        if "member" not in request.GET:
            return None
        self._require(request, self._name(request), MEMBERS)
        try:
            return check_key(request.GET["member"])
        except ValueError as error:
            raise Http404(str(error)) from error

    def _require(self, request: HttpRequest, name: str | None, action: str) -> None:
        if not has_permission(request, name, action):
            raise PermissionDenied

    def _back(self, name: str) -> HttpResponse:
        """Redirect to the object's page, so that a reload does not repeat the action."""
        url = reverse("admin:echo_object_change", current_app=self.admin_site.name)
        return HttpResponseRedirect(f"{url}?{urlencode({'name': name})}")

    def _render(self, request: HttpRequest, page: str, context: dict[str, Any]) -> HttpResponse:
        request.current_app = self.admin_site.name
        frame = {**self.admin_site.each_context(request), "shared": get_state().shared}
        return TemplateResponse(request, f"echo/admin/{page}.html", {**frame, **context})


def _live_url(view: str, **arguments: str) -> str | None:
    """Return the URL of an event stream; None if the site does not include `echo.urls`."""
    try:
        return reverse(view, kwargs=arguments)
    except NoReverseMatch:
        return None


def _total(objects: list[tuple[str, int]], prefix: str) -> int:
    """Return the number of connections: each counts once, except in a list with a prefix."""
    if not prefix:
        with suppress(StateUnavailable):
            return total_of(get_state().snapshot()[1])[1]
    return sum(count for _, count in objects)


admin.site.register([ConnectedObject], ConnectedObjectAdmin)
