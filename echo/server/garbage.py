"""The garbage collector in a process that accepts very many connections."""

import gc
from functools import cache

# Objects by which new ones outnumber freed ones until the collector runs: the default of Python
# 3.13. With a larger number, responses that Django streams to clients that have disconnected, which
# only the collector finds, would stay for very long in a process that does little else.
MIN_THRESHOLD = 2000


@cache
def tune_garbage_collector() -> None:
    """Exempt the objects that exist now from garbage collection, and collect new ones less often.

    Call it when the application has been imported. Its modules, models and settings are 90,000
    objects for the demo, and live as long as the process. Without this, the collector visits all of
    them about once per thousand handshakes, and serves nobody for 50 ms each time.

    A collector that the site has disabled or made less frequent stays as it is.
    """
    if not gc.isenabled():
        return
    gc.collect()
    gc.freeze()
    first, *others = gc.get_threshold()
    if 0 < first < MIN_THRESHOLD:
        gc.set_threshold(MIN_THRESHOLD, *others)
