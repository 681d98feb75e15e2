"""What clients connect to: nginx before the processes, or a socket that all processes share."""

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.machine import cores, free_port, pinned

BACKLOG = 4096  # systemd's default for a socket unit is the maximum of the machine
START_TIMEOUT = 10.0  # seconds
# A server that cannot be reached, or drains, is left out for this request alone: with `max_fails`,
# which is 1 by default, nginx would leave out both for a while.
CONFIGURATION = """
daemon off;
pid {folder}/pid;
error_log stderr crit;
worker_processes 1;
worker_rlimit_nofile 20000;
events {{ worker_connections 19000; }}
http {{
    access_log off;
    server_tokens off;
    upstream site {{
        {servers}
    }}
    server {{
        listen 127.0.0.1:{port} backlog={backlog};
        location / {{
            proxy_pass http://site;
            proxy_http_version 1.1;
            proxy_next_upstream error timeout http_503;
            proxy_set_header Host $http_host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
            proxy_pass_header Server;
            proxy_read_timeout 60s;
        }}
    }}
}}
"""


@contextmanager
def nginx(ports: list[int]) -> Iterator[int]:
    """Run nginx before these ports, on the core of the load, and give its own. Raises OSError."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "nginx.conf")
        servers = " ".join(f"server 127.0.0.1:{each} max_fails=0;" for each in ports)
        path.write_text(
            CONFIGURATION.format(folder=folder, servers=servers, port=port, backlog=BACKLOG)
        )
        command = [_executable(), "-p", folder, "-c", str(path), "-e", "stderr"]
        with pinned(cores()[1]):
            process = subprocess.Popen(command)
        try:
            _wait_until_it_listens(port, process)
            yield port
        finally:
            process.terminate()  # at once; its worker ends with it
            process.wait()


@contextmanager
def shared_socket() -> Iterator[tuple[int, int]]:
    """Listen as systemd does, and give the port and the file descriptor."""
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", 0))
        listening.listen(BACKLOG)
        yield listening.getsockname()[1], listening.fileno()


def nginx_version() -> str:
    """Return it as `1.22.1`, or "not installed"."""
    try:
        shown = subprocess.run([_executable(), "-v"], capture_output=True, text=True, check=True)
    except OSError:
        return "not installed"
    return shown.stderr.strip().rpartition("/")[2]


def _executable() -> str:
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if not found:
        raise FileNotFoundError("nginx is not on PATH")
    return found


def _wait_until_it_listens(port: int, process: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + START_TIMEOUT
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > end:
                raise
            time.sleep(0.02)
