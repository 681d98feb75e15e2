"""`python -m benchmarks.members.worker PART SUBJECT SIZE`: measure once, and print JSON."""

import json
import sys

from django.conf import settings

from benchmarks import machine


def main() -> None:
    part, subject, size = sys.argv[1:]
    settings.configure(USE_I18N=False)
    # Imported here, because they read settings.
    from benchmarks.members import changes, joins, peers, reads

    parts = {
        "joins": joins.cost,
        "reads": reads.cost,
        "changes": changes.cost,
        "lists": peers.lists,
        "deaths": peers.deaths,
    }
    machine.raise_open_files()
    # Our core is that of the servers: Redis has the other.
    with machine.pinned(machine.cores()[0]):
        print(json.dumps(dict(parts[part](subject, int(size)))))


if __name__ == "__main__":
    main()
