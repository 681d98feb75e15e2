"""A real nginx, for the examples in README and docs."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.servers import free_port
from tests.waiting import eventually


@contextmanager
def nginx(site: str, folder: Path) -> Iterator[int]:
    """Run nginx with that part of its `http` block, and give its port in place of 8080."""
    if not shutil.which("nginx"):
        missing = pytest.fail if os.environ.get("CI") else pytest.skip
        missing("nginx is not on PATH: the example with nginx is not run.")
    port = free_port()
    site = site.replace(":8080", f":{port}")
    # Its workers would be of another user, who may not read what is under tmp_path.
    (folder / "nginx.conf").write_text(
        f"user root; daemon off; pid {folder}/pid; error_log stderr; events {{}}\n"
        f"http {{ access_log off; {site} }}"
    )
    config = folder / "nginx.conf"
    process = subprocess.Popen(["nginx", "-p", folder, "-c", config, "-e", "stderr"])
    try:
        eventually(lambda: _is_listening(port), True)
        yield port
    finally:
        process.terminate()
        process.wait()


def _is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
