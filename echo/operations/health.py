"""A readiness check for load balancers and orchestrators."""

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from echo.conf import conf
from echo.exceptions import StateUnavailable
from echo.extensions import draining
from echo.groups.group import receives_messages
from echo.responses import RETRY_AFTER
from echo.state import get_state


@login_not_required  # load balancers have no login
@never_cache
@require_safe
def health(request: HttpRequest) -> HttpResponse:
    """Return 200 if the counts are known and messages reach this process, else 503.

    While the server drains, return 503, too.

    Not for liveness: connections survive an outage of Redis, and a restart would close them.
    """
    state = get_state()
    body = {"status": "ok", "state": "shared" if state.shared else "process"}
    try:
        state.count(conf.ECHO_DEFAULT_OBJECT)
    except StateUnavailable:
        body["status"] = "unavailable"
    if not receives_messages():
        body |= {"status": "unavailable", "layer": "unavailable"}
    if draining.is_set():
        body["status"] = "draining"
    if body["status"] == "ok":
        return JsonResponse(body)
    return JsonResponse(body, status=503, headers={"Retry-After": RETRY_AFTER})
