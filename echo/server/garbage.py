"""The garbage collector in a process that accepts very many connections."""

import asyncio
import gc
from functools import cache

MIN_THRESHOLD = 10_000  # objects by which new ones outnumber freed ones until the collector runs
INTERVAL = 1.0  # seconds


@cache
def tune_garbage_collector() -> None:
    """Exempt the objects that exist now from garbage collection, and collect new ones less often.

    Call it when the application has been imported. Its modules, models and settings are 90,000
    objects for the demo, and live as long as the process. Without this, the collector visits all of
    them about once per thousand handshakes, and serves nobody for 50 ms each time.

    A collector that the site has disabled or made less frequent stays as it is.
    """
    first, *others = gc.get_threshold()
    if gc.isenabled() and 0 < first < MIN_THRESHOLD:
        gc.collect()
        gc.freeze()
        gc.set_threshold(MIN_THRESHOLD, *others)


@cache
def collect_regularly() -> None:
    """Collect young objects each second from now on, on the running event loop.

    A process that does little would keep cycles for long otherwise, such as responses that Django
    streams to clients that have disconnected.
    """
    if gc.isenabled():
        _collect(asyncio.get_running_loop())


def _collect(loop: asyncio.AbstractEventLoop) -> None:
    gc.collect(1)
    loop.call_later(INTERVAL, _collect, loop)
