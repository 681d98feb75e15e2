"""`python -m tests.faults [words]`: run the table, or the rows that contain the words."""

import os
import sys
import time

import pytest

from tests.faults.rows import ROWS
from tests.faults.services import NOISE
from tests.faults.table import Row


def main(words: str) -> int:
    cores = os.cpu_count()
    print(f"Measured on {cores} cores, which the servers share with Redis and the clients.")
    noise = NOISE * 1000
    print(f"Where handshakes are timed, {noise:.0f} ms more are this machine's noise.\n")
    print("| fault | promise | measured | s |")
    print("|---|---|---|---|", flush=True)
    rows = [row for row in ROWS if words.lower() in row.fault.lower()]
    kept = [run(row) for row in rows]
    return 0 if all(kept) else 1


def run(row: Row) -> bool:
    """Print the row with its result; return whether the promise was kept."""
    began = time.monotonic()
    try:
        figure, kept = row.run(), True
    except pytest.skip.Exception as skipped:
        figure, kept = f"not run: {skipped}", True
    except Exception as error:
        figure, kept = f"**FAILS**: {error or repr(error)}".replace("\n", " "), False
    seconds = time.monotonic() - began
    print(f"| {row.fault} | {row.promise} | {figure} | {seconds:.0f} |", flush=True)
    return kept


if __name__ == "__main__":
    sys.exit(main(" ".join(sys.argv[1:])))
