"""Forked processes."""

import os
import subprocess
import sys

import pytest

from tests.states import HEARTBEAT, known
from tests.waiting import SECOND


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
async def test_forked_child_has_a_state_of_its_own(redis_url, settings):
    """It neither counts its parent's connections again nor deletes its parent's share."""
    from echo.state import get_state

    settings.ECHO_STATE_URL = redis_url
    settings.ECHO_HEARTBEAT_SECONDS = HEARTBEAT
    parent = get_state()
    try:
        known(parent)
        await parent.join("foo")
        reading, writing = os.pipe()
        if not (child := os.fork()):
            own = get_state()
            os.write(writing, repr((own is parent, known(own))).encode())
            own.close()
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading, "rb") as result:
            assert result.read() == b"(False, {'foo': 1})"
        assert os.waitpid(child, 0)[1] == 0
        assert parent.counts() == {"foo": 1}
    finally:
        parent.close()


def test_forked_child_exits_whatever_its_parent_was_doing(redis_url):
    """Even if another thread of the parent held the state's lock at that moment."""
    lines = [
        "import os, sys",
        "import django",
        "django.setup()",
        "from echo.state import get_state",
        "state = get_state()",
        "state.counts()",
        "with state._publisher.queue._lock:",
        "    if not (child := os.fork()):",
        "        sys.exit(3)",
        "print(os.waitpid(child, 0)[1])",
    ]
    child = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", "\n".join(lines)],
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "project.settings",
            "ECHO_STATE_URL": redis_url,
        },
        capture_output=True,
        timeout=20 * SECOND,
    )

    assert (child.stdout, child.stderr) == (b"768\n", b"")
