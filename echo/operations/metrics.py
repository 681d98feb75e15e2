"""Metrics for Prometheus: the counts of the objects, and the stats of this process.

The labels name objects, but no members: their keys are personal data.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from heapq import nlargest
from typing import TYPE_CHECKING

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext_lazy as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from echo.exceptions import StateUnavailable
from echo.extensions import draining
from echo.permissions import LIST, has_permission
from echo.responses import TEXT
from echo.state import get_state
from echo.state.base import EXTRA, total_of
from echo.stats import process_stats

if TYPE_CHECKING:
    from prometheus_client import Metric
    from prometheus_client.core import CounterMetricFamily

# Objects with their own series. Clients choose the names, and Prometheus keeps each series.
MAX_OBJECTS = 100
MISSING = "Metrics need the package prometheus_client: pip install django-echo-objects[metrics]"
NOT_LIST = _("You may not list the objects.")


@login_not_required  # ECHO_AUTHORIZE decides
@never_cache
@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """Return all metrics in Prometheus' text format, to clients that may list the objects."""
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
        """Return nothing: registering must not wait for Redis."""
        return []

    def collect(self) -> Iterator["Metric"]:
        yield from _connections()
        stats = process_stats
        yield _draining()
        yield _counter("echo_joins", "Connections opened.", stats.joins)
        yield _counter("echo_connected_seconds", "Duration of closed connections.", stats.seconds)
        yield _counter("echo_outages", "Outages of Redis.", stats.outages)
        yield _counter("echo_wrong_totals", "Totals that were repaired.", stats.wrong_totals)
        yield _counters(
            "echo_rejections", "Rejected handshakes.", "reason", stats.rejections.copy()
        )
        yield _counters("echo_closes", "Closed connections.", "code", stats.closes.copy())


def _connections() -> Iterator["Metric"]:
    from prometheus_client.core import GaugeMetricFamily

    state = get_state()
    try:
        counts = state.snapshot()[1]
    except StateUnavailable:
        counts = None
    is_known = 0 if counts is None else 1
    yield GaugeMetricFamily("echo_state_up", "Whether the counts are known.", is_known)
    if counts is None:
        return
    _, connections = total_of(counts)
    counts.pop(EXTRA, None)
    scope = "all processes, the same in each" if state.shared else "this process"
    text = f"Connections now, in {scope}; '' is the sum of all but the largest {MAX_OBJECTS}."
    family = GaugeMetricFamily("echo_connections", text, labels=["object"])
    largest = [
        (name, count)
        for name, count in nlargest(MAX_OBJECTS, counts.items(), key=lambda item: item[::-1])
        if _has_series(name)
    ]
    for name, count in largest:
        family.add_metric([name], count)
    # '' is not a valid name of an object.
    family.add_metric([""], sum(counts.values()) - sum(count for _, count in largest))
    yield family
    text = f"Connections now, in {scope}; each counts once, also if it has several objects."
    yield GaugeMetricFamily("echo_open_connections", text, connections)
    text = f"Members now, in {scope}, of objects that have members and a series of connections."
    family = GaugeMetricFamily("echo_members", text, labels=["object"])
    with suppress(StateUnavailable):  # since the counts were read
        for name, _ in largest:
            if number := state.member_count(name):
                family.add_metric([name], number)
    yield family


def _draining() -> "Metric":
    from prometheus_client.core import GaugeMetricFamily

    text = "Whether this process is closing its connections one after the other, to stop."
    family = GaugeMetricFamily("echo_draining", text, labels=["process"])
    family.add_metric([str(os.getpid())], draining.is_set())
    return family


def _has_series(name: str) -> bool:
    """Return whether the object has its own series. Only the first MAX_OBJECTS objects have one."""
    if name not in process_stats.objects and len(process_stats.objects) < MAX_OBJECTS:
        process_stats.objects.add(name)
    return name in process_stats.objects


# The label `process` separates the processes behind one port. Without it, Prometheus would treat a
# scrape of another process as a reset of the counter.
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
