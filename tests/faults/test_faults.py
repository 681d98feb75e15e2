"""The faults that are soon seen, in small; all of them in full: `python -m tests.faults`."""

import pytest

from tests.faults.rows import ROWS

SMALL = [row for row in ROWS if row.small is not None]


LONG = {
    *("churn_members", "clocks_apart", "demote", "far_away", "flush_large_share", "kill_layer"),
    *("kill_leader_of_members", "lose_members", "restart_from_snapshot", "stand_still"),
    *("stop_and_flush", "two_limits"),
}
# If the machine stands still for a quarter of a second, limits apply per process, as documented.
LIMITS = {"lost_reply", "reset_connections", "two_limits"}


def marks(row):
    return [pytest.mark.long] if row.run.__name__ in LONG else []


@pytest.mark.slow
@pytest.mark.parametrize(
    "row", [pytest.param(row, id=row.run.__name__, marks=marks(row)) for row in SMALL]
)
def test_promise_is_kept(row):
    try:
        print(row.run(**row.small))
    except AssertionError as error:
        if row.run.__name__ not in LIMITS:
            raise
        print(f"once more, because the first run failed: {error}")
        print(row.run(**row.small))
