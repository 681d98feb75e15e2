"""`python -m tests.strangers [names]`: other people's tests, plain and with consumers counted.

Each package is fetched from PyPI as a source distribution of a pinned version, which must carry its
tests, and installed into an environment of its own below `build/strangers/`. Its tests run twice:
as they are, and with each consumer wrapped in `counted`. It exits with 1 if a test that passes
plain does not pass counted, if a connection stays counted, or if a run did not come to its end.
"""

import shutil
import sys
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from tests.distributions import Outcomes, failed, prepare, run_tests
from tests.servers import ROOT
from tests.strangers.packages import COMMON, PACKAGES, Package

HERE = Path(__file__).parent
BUILD = ROOT / "build" / "strangers"
TESTS_TIMEOUT = 300  # seconds, for each run of a package's tests
KINDS = {"plain": (), "counted": ("-p", "count_all")}


class Result(NamedTuple):
    outcomes: Outcomes
    connections: int = 0  # that were counted
    left: int = 0  # that still are
    repeated: tuple[str, ...] = ()  # the tests that failed first, and ran once more
    seconds: float = 0.0


def main(names: list[str]) -> int:
    packages = [package for package in PACKAGES if package.name in names or not names]
    print("| package | plain | counted | s | connections counted, left | repeated | differences |")
    print("|---|---|---|---|---|---|---|", flush=True)
    same = [compare(package) for package in packages]
    return 0 if same and all(same) else 1


def compare(package: Package) -> bool:
    """Print the package's row; return whether counting its consumers breaks nothing."""
    folder = install(package)
    results = {kind: run(package, folder, kind) for kind in KINDS}
    plain, counted = results.values()
    different = {
        test: f"{test}: {plain.outcomes.get(test)}, counted {counted.outcomes.get(test)}"
        for test in sorted({*plain.outcomes, *counted.outcomes})
        if plain.outcomes.get(test) != counted.outcomes.get(test)
    }
    repeated = [f"{test}: {kind}" for kind, result in results.items() for test in result.repeated]
    cells = [
        f"{package.name} {package.version}",
        summary(plain),
        summary(counted),
        f"{plain.seconds:.0f}, {counted.seconds:.0f}",
        f"{counted.connections}, {counted.left}",
        "; ".join(repeated) or "none",
        "; ".join(different.values()) or "none",
    ]
    print(f"| {' | '.join(cells)} |", flush=True)
    passing = [test for test, outcome in plain.outcomes.items() if outcome == "passed"]
    ran = bool(passing and counted.connections)
    return ran and different.keys().isdisjoint(passing) and not counted.left


def summary(result: Result) -> str:
    counter = Counter(result.outcomes.values())
    return (
        ", ".join(f"{number} {outcome}" for outcome, number in counter.most_common()) or "nothing"
    )


def install(package: Package) -> Path:
    """Return the folder with the package's source and environment, made if the pins are new."""
    folder = BUILD / f"{package.name}-{package.version}"
    pinned = f"{package.name}=={package.version}"
    prepare(folder, pinned, [pinned, *COMMON, *package.requirements], [package.tests])
    # Without a file of its own, pytest would take this repository's; its `manage.py`, too.
    ini = "[pytest]\ndjango_find_project = false\n"
    (folder / "source" / "pytest.ini").write_text(ini)
    # What was left out of the distribution.
    if (support := HERE / "support" / package.name).exists():
        shutil.copytree(support, folder / "source" / package.tests, dirs_exist_ok=True)
    return folder


def run(package: Package, folder: Path, kind: str) -> Result:
    """Run the package's tests, and return what came of each.

    Those that fail run once more, alone: many have limits of a second, for a machine at rest. The
    table names them, since a fault of counting may show now and then only.
    """
    began = time.monotonic()
    result = run_once(package, folder, kind)
    if repeated := failed(result.outcomes):
        again = run_once(package, folder, kind, "--last-failed")
        result = Result(
            outcomes={**result.outcomes, **again.outcomes},
            connections=result.connections + again.connections,
            left=result.left + again.left,
            repeated=tuple(repeated),
        )
    return result._replace(seconds=time.monotonic() - began)


def run_once(package: Package, folder: Path, kind: str, *options: str) -> Result:
    figures = folder / f"{kind}.txt"
    figures.unlink(missing_ok=True)
    outcomes = run_tests(
        folder,
        kind,
        [*KINDS[kind], *package.options, *options, package.tests],
        TESTS_TIMEOUT,
        PYTHONPATH=str(HERE),
        COUNT_ALL_FIGURES=str(figures),
    )
    numbers = map(int, figures.read_text().split()) if figures.exists() else ()
    return Result(outcomes, *numbers)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
