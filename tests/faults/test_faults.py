"""The faults that are soon seen, in small; all of them in full: `python -m tests.faults`."""

import pytest

from tests.faults.rows import ROWS

SMALL = [row for row in ROWS if row.small is not None]


@pytest.mark.slow
@pytest.mark.parametrize("row", SMALL, ids=[row.run.__name__ for row in SMALL])
def test_promise_is_kept(row):
    print(row.run(**row.small))
