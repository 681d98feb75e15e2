"""A site with django-stubs passes `mypy --strict` with what it calls of ours."""

import subprocess
import sys

import pytest

from tests.servers import ROOT
from tests.waiting import DEADLINE


@pytest.mark.slow
def test_counted_consumers_may_stand_in_a_path():
    command = [sys.executable, "-m", "mypy", "--strict", "tests/typed/routes.py"]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=12 * DEADLINE)

    assert (done.returncode, done.stderr) == (0, ""), done.stdout
