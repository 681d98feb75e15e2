"""Whether this process can do its work, for load balancers and orchestrators."""

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from echo.conf import conf
from echo.exceptions import StateUnavailable
from echo.state import get_state


@login_not_required  # balancers have no login
@never_cache
@require_safe
def health(request: HttpRequest) -> HttpResponse:
    """200 where the counts can be known, else 503.

    For readiness, not liveness: connections live on while Redis is away, and a restart would
    end them.
    """
    state = get_state()
    where = "shared" if state.shared else "process"
    try:
        state.count(conf.ECHO_DEFAULT_OBJECT)
    except StateUnavailable:
        answer = JsonResponse({"status": "unavailable", "state": where}, status=503)
        answer["Retry-After"] = "2"
        return answer
    return JsonResponse({"status": "ok", "state": where})
