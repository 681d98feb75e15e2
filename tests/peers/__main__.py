"""`python -m tests.peers [names]`: uvicorn's and Daphne's own tests, stock and with our classes.

The source distributions of the installed versions are fetched from PyPI, and unpacked beside an
environment for each below `build/peers/`. The tests run twice: stock, and with our class. Each case
that passes stock and not with ours must be in `differences.toml`, with a reason, and each case that
is there must differ: else it exits with 1.
"""

import sys
import time
import tomllib
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from tests.distributions import Outcomes, failed, prepare, run_tests
from tests.peers.suites import SUITES, Suite
from tests.servers import ROOT

HERE = Path(__file__).parent
BUILD = ROOT / "build" / "peers"
SUITE_TIMEOUT = 400  # seconds, for each run of a suite
TEST_TIMEOUT = 30  # seconds, for each of its tests
RUNS = ("stock", "ours")
KINDS = ("later", "deliberate", "internals")


class Difference(NamedTuple):
    """An entry of `differences.toml`: cases that do not pass with our class, and why."""

    test: str  # of one case, or of all cases where it has no parameters
    kind: str
    reason: str

    def is_of(self, case: str) -> bool:
        return case == self.test or ("[" not in self.test and case.startswith(f"{self.test}["))


class Results(NamedTuple):
    stock: Outcomes
    ours: Outcomes
    repeated: list[str]
    seconds: float


def main(names: list[str]) -> int:
    entries = read_differences()
    suites = [suite for suite in SUITES if suite.name in names or not names]
    print("| suite | test | cases | kind | reason |")
    print("|---|---|---|---|---|", flush=True)
    told = [tell(suite, entries[suite.name], run(suite)) for suite in suites]
    for figures, problems in told:
        print(f"\n{figures}")
        print("\n".join(problems) or "Every difference is justified.")
    return 1 if not told or any(problems for _, problems in told) else 0


def read_differences() -> dict[str, list[Difference]]:
    """Return the justified differences of each suite."""
    content = tomllib.loads((HERE / "differences.toml").read_text())
    found = {
        suite.name: [Difference(**entry) for entry in content.pop(suite.name, ())]
        for suite in SUITES
    }
    wrong = [
        entry.test for entries in found.values() for entry in entries if entry.kind not in KINDS
    ]
    if content or wrong:
        raise ValueError(f"differences.toml: neither a suite nor of a kind: {[*content, *wrong]}")
    return found


def run(suite: Suite) -> Results:
    folder = BUILD / suite.pinned.replace("==", "-")
    prepare(folder, suite.pinned, suite.requirements, ["tests", "pyproject.toml"])
    began = time.monotonic()
    repeated: list[str] = []
    stock, ours = (run_kind(suite, folder, kind, repeated) for kind in RUNS)
    return Results(stock, ours, repeated, time.monotonic() - began)


def run_kind(suite: Suite, folder: Path, kind: str, repeated: list[str]) -> Outcomes:
    """Run the suite, and return what came of each case.

    Tests that fail without being expected to run once more: many have limits of a second, for a
    machine at rest.
    """
    outcomes = run_once(suite, folder, kind)
    entries = read_differences()[suite.name] if kind == "ours" else []
    new = [
        test
        for test in failed(outcomes)
        if not any(entry.is_of(suite.case(test)) for entry in entries)
    ]
    if new:
        outcomes |= run_once(suite, folder, kind, "--last-failed")
        repeated += [f"{kind} {test}" for test in new]
    cases: Outcomes = {}
    for test, outcome in outcomes.items():
        case = suite.case(test)
        if cases.get(case) != "passed":  # with one of the server's own classes
            cases[case] = outcome
    return cases


def run_once(suite: Suite, folder: Path, kind: str, *options: str) -> Outcomes:
    temporary = folder / "tmp"  # Daphne's tests have files of fixed names there
    temporary.mkdir(exist_ok=True)
    plugins = ["-p", f"{suite.name}_cases", *(["-p", f"{suite.name}_ours"] * (kind == "ours"))]
    return run_tests(
        folder,
        kind,
        [*plugins, f"--timeout={TEST_TIMEOUT}", *suite.options, *options, "tests"],
        SUITE_TIMEOUT,
        PYTHONPATH=str(HERE / "plugins"),
        TMPDIR=str(temporary),
    )


def tell(suite: Suite, entries: list[Difference], results: Results) -> tuple[str, list[str]]:
    """Print the suite's rows; return its figures, and what is wrong."""
    stock, ours = results.stock, results.ours
    different = {case for case in stock if stock[case] == "passed" != ours.get(case)}
    justified: Counter[str] = Counter()
    left = set(different)
    problems = []
    for entry in entries:
        cases = {case for case in {*stock, *ours} if entry.is_of(case)}
        kept = cases & left
        left -= kept
        justified[entry.kind] += len(kept)
        name = entry.test.removeprefix("tests.")
        print(
            f"| {suite.name} | {name} | {len(kept)} | {entry.kind} | {entry.reason} |", flush=True
        )
        same = sorted(cases - different)
        problems += [f"No longer different: {case}" for case in same]
        if not cases:
            problems.append(f"Not a test: {entry.test}")
        elif not same and kept != cases:
            problems.append(f"More than one entry: {entry.test}")
    problems += [f"Not justified: {case}: {ours.get(case, 'not run')}" for case in sorted(left)]
    passed = [Counter(outcomes.values())["passed"] for outcomes in (stock, ours)]
    if not passed[0]:
        problems.append("No test has passed.")
    kinds = ", ".join(f"{justified[kind]} {kind}" for kind in KINDS)
    figures = (
        f"{suite.pinned}: {len(stock)} cases, {passed[0]} pass stock, {passed[1]} ours; "
        f"{kinds}; {results.seconds:.0f} s; repeated: {'; '.join(results.repeated) or 'none'}"
    )
    return figures, problems


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
