"""`python -m tests.peers` accepts exactly the differences that are justified."""

import pytest

from tests.peers.__main__ import Difference, Results, read_differences, tell
from tests.peers.suites import SUITES

UVICORN = SUITES[0]
STOCK = {"m::same": "passed", "m::t[a]": "passed", "m::t[b]": "passed", "m::skipped": "skipped"}
T = Difference("m::t", "deliberate", "A reason.")


@pytest.mark.parametrize(
    ("entries", "ours", "problems"),
    [
        ([], STOCK, []),
        ([T], STOCK | {"m::t[a]": "failed", "m::t[b]": "error"}, []),
        ([T], STOCK | {"m::t[a]": "failed"}, ["No longer different: m::t[b]"]),
        ([T._replace(test="m::t[a]")], STOCK | {"m::t[a]": "skipped"}, []),
        ([], STOCK | {"m::t[a]": "failed"}, ["Not justified: m::t[a]: failed"]),
        ([], {"m::t[a]": "passed", "m::t[b]": "passed"}, ["Not justified: m::same: not run"]),
        ([T._replace(test="m::u")], STOCK, ["Not a test: m::u"]),
        ([T, T], STOCK | {"m::t[a]": "failed", "m::t[b]": "failed"}, ["More than one entry: m::t"]),
    ],
)
def test_problems(entries: list[Difference], ours: dict[str, str], problems: list[str]) -> None:
    _, found = tell(UVICORN, entries, Results(STOCK, ours, [], 1.0))

    assert found == problems


def test_suite_that_does_not_run_is_a_problem() -> None:
    assert tell(UVICORN, [], Results({}, {}, [], 1.0))[1] == ["No test has passed."]


def test_cases_of_uvicorns_classes_are_one() -> None:
    tests = ["m::t[wsproto-h11]", "m::t[websockets-sansio-h11]", "m::t[h11]", "m::t_wsproto[h11]"]

    assert [UVICORN.case(test) for test in tests] == [
        *("m::t[ws-h11]", "m::t[ws-h11]"),
        *("m::t[h11]", "m::t_wsproto[h11]"),
    ]


def test_every_difference_has_a_reason_of_one_sentence() -> None:
    for entry in [entry for entries in read_differences().values() for entry in entries]:
        assert entry.reason.endswith(".") and ". " not in entry.reason, entry
