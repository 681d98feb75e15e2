"""Other people's source distributions: their tests run in environments of their own."""

import os
import shutil
import signal
import subprocess
import tarfile
import venv
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from tests.servers import ROOT

INSTALL_TIMEOUT = 600  # seconds, for each call of pip

Outcomes = dict[str, str]  # test -> "passed", "failed", "error" or "skipped"


def prepare(folder: Path, pinned: str, requirements: Iterable[str], kept: Iterable[str]) -> None:
    """Make the folder, if what is wanted is new: `venv/` with the requirements, `source/` with what
    is kept of the source distribution `name==version`: its tests, so that the installed package is
    tested.
    """
    requirements, kept = list(requirements), list(kept)
    wanted = " ".join([pinned, *requirements, *kept])
    complete = folder / "complete"
    if complete.exists() and complete.read_text() == wanted:
        return
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder / "venv", with_pip=True)
    pip(folder, "install", *requirements)
    name = pinned.partition("==")[0]
    pip(folder, "download", "--no-deps", "--no-binary", name, "-d", folder, pinned)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    (unpacked,) = (path for path in folder.iterdir() if path.is_dir() and path.name != "venv")
    for path in kept:
        (folder / "source" / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(unpacked / path, folder / "source" / path)
    # `echo` as it stands in this tree, and nothing else of it.
    (site_packages,) = (folder / "venv").glob("lib/python*/site-packages")
    (site_packages / "echo").symlink_to(ROOT / "echo")
    complete.write_text(wanted)  # the last file, so that half a folder is made anew


def pip(folder: Path, *arguments: object) -> None:
    command = [folder / "venv/bin/python", "-m", "pip", "-qq", "--disable-pip-version-check"]
    subprocess.run([*command, *arguments], check=True, timeout=INSTALL_TIMEOUT)


def run_tests(
    folder: Path, name: str, arguments: Iterable[object], timeout: float, **env: str
) -> Outcomes:
    """Run pytest in the folder, and return what came of each test; `{name}.log` is its output."""
    report = folder / f"{name}.xml"
    report.unlink(missing_ok=True)
    command = [folder / "venv/bin/python", "-m", "pytest", "-q", f"--junitxml={report}"]
    cache = ["-o", f"cache_dir={folder / name}"]
    with (folder / f"{name}.log").open("a") as log:
        process = subprocess.Popen(
            [*command, *cache, *arguments],
            cwd=folder / "source",
            env={**os.environ, **env},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            log.write(f"\nStopped after {timeout} s.\n")
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with what it has left
            process.wait()
    return read_outcomes(report)


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


def failed(outcomes: Outcomes) -> list[str]:
    return [test for test, outcome in outcomes.items() if outcome in ("failed", "error")]
