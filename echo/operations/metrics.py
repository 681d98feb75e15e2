"""What Prometheus reads: the counts of the objects, and this process's tally."""

import os
from collections.abc import Iterable, Iterator
from heapq import nlargest
from typing import TYPE_CHECKING

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext_lazy as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from echo.exceptions import StateUnavailable
from echo.permissions import LIST, has_permission
from echo.responses import TEXT
from echo.state import get_state
from echo.stats import tally

if TYPE_CHECKING:
    from prometheus_client import Metric
    from prometheus_client.core import CounterMetricFamily

LARGEST = 100  # objects with a series of their own; names come from strangers
MISSING = _("Metrics need the package prometheus_client: pip install django-echo-objects[metrics]")
NOT_LIST = _("You may not list the objects.")


@login_not_required  # ECHO_AUTHORIZE decides
@never_cache
@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """Everything in Prometheus' text format, for those who may list the objects."""
    if not has_permission(request, None, LIST):
        return HttpResponse(NOT_LIST, content_type=TEXT, status=403)
    try:
        import prometheus_client
    except ImportError:  # the extra [metrics] is not installed
        return HttpResponse(MISSING, content_type=TEXT, status=501)
    body = prometheus_client.generate_latest(EchoCollector())
    return HttpResponse(body, content_type=prometheus_client.CONTENT_TYPE_LATEST)


class EchoCollector:
    """A collector for any registry of prometheus_client: `REGISTRY.register(EchoCollector())`."""

    def describe(self) -> Iterable["Metric"]:
        """Return nothing: registering must not ask Redis."""
        return []

    def collect(self) -> Iterator["Metric"]:
        yield from _connections()
        yield from _tally()


def _connections() -> Iterator["Metric"]:
    """Yield the counts; where they cannot be known none, rather than wrong ones."""
    from prometheus_client.core import GaugeMetricFamily

    state = get_state()
    try:
        counts = state.counts()
    except StateUnavailable:
        counts = None
    known = 0 if counts is None else 1
    yield GaugeMetricFamily("echo_state_up", "Whether the counts can be known.", known)
    if counts is None:
        return
    whose = "all processes; each tells the same" if state.shared else "this process"
    text = f"Connections now, of {whose}; '' is the rest beyond the largest {LARGEST} objects."
    family = GaugeMetricFamily("echo_connections", text, labels=["object"])
    largest = [
        (name, count)
        for name, count in nlargest(LARGEST, counts.items(), key=lambda item: (item[1], item[0]))
        if _has_series(name)
    ]
    for name, count in largest:
        family.add_metric([name], count)
    # no object can have this name
    family.add_metric([""], sum(counts.values()) - sum(count for _, count in largest))
    yield family


def _has_series(name: str) -> bool:
    """Return whether the object has a series: the first ones do, for the life of the process.

    Prometheus keeps each series that it has ever seen, and the names come from strangers.
    """
    if name not in tally.objects and len(tally.objects) < LARGEST:
        tally.objects.add(name)
    return name in tally.objects


def _tally() -> Iterator["Metric"]:
    yield _counter("echo_joins", "Connections that began.", tally.joins)
    yield _counter("echo_connected_seconds", "Duration of ended connections.", tally.seconds)
    yield _counter("echo_outages", "Times that Redis went away.", tally.outages)
    yield _counters("echo_refusals", "Refused handshakes.", "reason", tally.refusals.copy())
    yield _counters("echo_closes", "Ended connections.", "code", tally.closes.copy())


# The label `process` keeps those apart that answer on one port: else each scrape of another
# one would look as if the counter had begun anew.
def _counter(name: str, text: str, value: float) -> "CounterMetricFamily":
    from prometheus_client.core import CounterMetricFamily

    family = CounterMetricFamily(name, text, labels=["process"])
    family.add_metric([str(os.getpid())], value)
    return family


def _counters(
    name: str, text: str, label: str, values: "dict[str, int] | dict[int | str, int]"
) -> "CounterMetricFamily":
    from prometheus_client.core import CounterMetricFamily

    family = CounterMetricFamily(name, text, labels=["process", label])
    for key, value in values.items():
        family.add_metric([str(os.getpid()), str(key)], value)
    return family
