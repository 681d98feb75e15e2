"""`python -m benchmarks.state.worker PART`: measure once, with the `echo` that Python finds first.

Prints `{"count-redis-4": 12.3}` as JSON.
"""

import json
import sys

from django.conf import settings

from benchmarks import machine
from benchmarks.state.sizes import FULL, SHORT


def main() -> None:
    part, *options = sys.argv[1:]
    settings.configure(USE_I18N=False)  # the state's errors are texts of Django's
    # Imported here, because they read settings.
    from benchmarks.state import counts, fanout, idle, joins, live

    parts = {
        "joins": joins.cost,
        "processes": counts.by_processes,
        "objects": counts.by_objects,
        "writes": counts.by_names,
        "idle": idle.cost,
        "streams": live.streams,
        "signals": live.signals,
        "fanout": fanout.cost,
    }
    machine.raise_open_files()
    # Our core is that of the servers: Redis has the other.
    with machine.pinned(machine.cores()[0]):
        print(json.dumps(dict(parts[part](SHORT if "--short" in options else FULL))))


if __name__ == "__main__":
    main()
