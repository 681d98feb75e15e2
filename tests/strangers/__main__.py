"""`python -m tests.strangers [names]`: other people's tests, plain and with consumers counted.

Each package is fetched from PyPI as a source distribution of a pinned version, which must carry its
tests, and installed into an environment of its own below `build/strangers/`. Its tests run twice:
as they are, and with each consumer wrapped in `counted`. It exits with 1 if a test that passes
plain does not pass counted, if a connection stays counted, or if a run did not come to its end.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import time
import venv
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from tests.servers import ROOT
from tests.strangers.packages import COMMON, PACKAGES, Package

HERE = Path(__file__).parent
BUILD = ROOT / "build" / "strangers"
INSTALL_TIMEOUT = 600  # seconds, for each call of pip
TESTS_TIMEOUT = 300  # seconds, for each run of a package's tests
KINDS = {"plain": (), "counted": ("-p", "count_all")}

Outcomes = dict[str, str]  # test -> "passed", "failed", "error" or "skipped"


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
    wanted = " ".join([f"{package.name}=={package.version}", *COMMON, *package.requirements])
    complete = folder / "complete"
    if not complete.exists() or complete.read_text() != wanted:
        make(package, folder)
        complete.write_text(wanted)  # the last file, so that half a folder is made anew
    # What was left out of the distribution.
    if (support := HERE / "support" / package.name).exists():
        shutil.copytree(support, folder / "source" / package.tests, dirs_exist_ok=True)
    return folder


def make(package: Package, folder: Path) -> None:
    """Make the folder with the package's source and environment."""
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder / "venv", with_pip=True)
    pinned = f"{package.name}=={package.version}"
    pip(folder, "install", pinned, *COMMON, *package.requirements)
    pip(folder, "download", "--no-deps", "--no-binary", package.name, "-d", folder, pinned)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    (unpacked,) = (path for path in folder.iterdir() if path.is_dir() and path.name != "venv")
    # Its tests alone, so that the installed package is tested.
    shutil.move(unpacked / package.tests, folder / "source" / package.tests)
    # Without a file of its own, pytest would take this repository's; its `manage.py`, too.
    ini = "[pytest]\ndjango_find_project = false\n"
    (folder / "source" / "pytest.ini").write_text(ini)
    # `echo` as it stands in this tree, and nothing else of it.
    (site_packages,) = (folder / "venv").glob("lib/python*/site-packages")
    (site_packages / "echo").symlink_to(ROOT / "echo")


def pip(folder: Path, *arguments: object) -> None:
    command = [folder / "venv/bin/python", "-m", "pip", "-qq", "--disable-pip-version-check"]
    subprocess.run([*command, *arguments], check=True, timeout=INSTALL_TIMEOUT)


def run(package: Package, folder: Path, kind: str) -> Result:
    """Run the package's tests, and return what came of each.

    Those that fail run once more, alone: many have limits of a second, for a machine at rest. The
    table names them, since a fault of counting may show now and then only.
    """
    began = time.monotonic()
    result = run_once(package, folder, kind)
    failed = [test for test, outcome in result.outcomes.items() if outcome in ("failed", "error")]
    if failed:
        again = run_once(package, folder, kind, "--last-failed")
        result = Result(
            outcomes={**result.outcomes, **again.outcomes},
            connections=result.connections + again.connections,
            left=result.left + again.left,
            repeated=tuple(failed),
        )
    return result._replace(seconds=time.monotonic() - began)


def run_once(package: Package, folder: Path, kind: str, *options: str) -> Result:
    report, figures = folder / f"{kind}.xml", folder / f"{kind}.txt"
    report.unlink(missing_ok=True)
    figures.unlink(missing_ok=True)
    command = [folder / "venv/bin/python", "-m", "pytest", "-q", f"--junitxml={report}"]
    cache = ["-o", f"cache_dir={folder / kind}"]
    own = {"PYTHONPATH": str(HERE), "COUNT_ALL_FIGURES": str(figures)}
    with (folder / f"{kind}.log").open("a") as log:
        try:
            subprocess.run(
                [*command, *cache, *KINDS[kind], *package.options, *options, package.tests],
                cwd=folder / "source",
                env={**os.environ, **own},
                stdout=log,
                stderr=subprocess.STDOUT,
                check=False,
                timeout=TESTS_TIMEOUT,
            )
        except subprocess.TimeoutExpired:
            log.write(f"\nStopped after {TESTS_TIMEOUT} s.\n")
    numbers = map(int, figures.read_text().split()) if figures.exists() else ()
    return Result(read_outcomes(report), *numbers)


def read_outcomes(report: Path) -> Outcomes:
    """Return the outcome of each test in the report of JUnit's kind; none if there is no report."""
    if not report.exists():
        return {}
    found = {}
    for case in ET.parse(report).iter("testcase"):
        bad = [child.tag for child in case if child.tag in ("failure", "error", "skipped")]
        name = f"{case.get('classname')}::{case.get('name')}"
        found[name] = {"failure": "failed"}.get(bad[0], bad[0]) if bad else "passed"
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
