"""The lock files hold every package with its version and hashes."""

import re

import pytest

from tests.servers import ROOT

LOCKS = ("requirements", "requirements-dev")


def read_pins(name: str) -> dict[str, str]:
    """Return the pinned version of each package in the file."""
    pins = re.findall(r"^([\w.-]+)==([^\s;\\]+)", (ROOT / name).read_text(), re.MULTILINE)
    return {normalize(package): version for package, version in pins}


def normalize(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_has_what_is_asked_for(lock: str) -> None:
    asked_for, locked = read_pins(f"{lock}.in"), read_pins(f"{lock}.txt")

    assert asked_for.items() <= locked.items(), "run .ci/lock"


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_has_hashes_of_each_package(lock: str) -> None:
    entries = re.split(r"\n(?=\w)", (ROOT / f"{lock}.txt").read_text())

    assert [entry for entry in entries if "==" in entry and "--hash=sha256:" not in entry] == []


def test_both_locks_have_the_same_versions() -> None:
    site, development = read_pins("requirements.txt"), read_pins("requirements-dev.txt")

    assert site.items() <= development.items(), "run .ci/lock"


def test_lock_has_what_running_a_site_needs_and_no_tools() -> None:
    packages = read_pins("requirements.txt").keys()

    assert {"django", "channels", "daphne", "redis", "websockets"} <= packages
    assert not {"pytest", "mypy", "playwright", "sphinx"} & packages
