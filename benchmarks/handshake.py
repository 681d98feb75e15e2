"""`python -m benchmarks.handshake`: the CPU time of a handshake above the transport, part by part.

Drives the demo's applications in one process, without sockets, so that it measures microseconds on
a busy machine too. With `--against COMMIT` it measures that commit in turn with the working tree.
"""

import argparse
import asyncio
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import django

HANDSHAKES = 500  # of each measurement
MEASUREMENTS = 10  # of a process; the fastest counts, as all others were disturbed
PROCESSES = 3
HEADERS = [
    (b"host", b"127.0.0.1:8000"),
    (b"upgrade", b"websocket"),
    (b"connection", b"Upgrade"),
    (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),
    (b"sec-websocket-version", b"13"),
]
GARBAGE = "objects left to the garbage collector"


class Connection:
    """What our transport does for one connection, at no cost: the client closes at once."""

    def __init__(self, **more: Any) -> None:
        self.scope = {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "ws",
            "path": "/bench/websocket",
            "raw_path": b"/bench/websocket",
            "query_string": b"",
            "root_path": "",
            "headers": HEADERS,
            "client": ["127.0.0.1", 40000],
            "server": ["127.0.0.1", 8000],
            "subprotocols": [],
            "extensions": {
                "websocket.http.response": {},
                "echo.on_end": self._call_at_end,
                "echo.reply": lambda *replies: None,
                "echo.send_now": lambda text: True,
            },
            **more,
        }
        self._on_end: Any = None
        self._is_connected = False

    def _call_at_end(self, callback: Any) -> None:
        self._on_end = callback

    async def receive(self) -> dict[str, Any]:
        if not self._is_connected:
            self._is_connected = True
            return {"type": "websocket.connect"}
        if self._on_end is not None:
            self._on_end(1000)
        # As the transport does: it breaks the cycle with the scope.
        self._on_end, self.scope = None, {}
        return {"type": "websocket.disconnect", "code": 1000, "reason": ""}

    async def send(self, event: Any) -> None:
        pass


async def _nothing(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await receive()


def _parts() -> dict[str, tuple[Any, dict[str, Any]]]:
    """Return the applications from the inside, each with what its scope has besides."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
    django.setup()
    from echo.consumers import EchoConsumer
    from echo.routing import websocket_urlpatterns
    from project.asgi import application

    host = application.application_mapping["websocket"]
    user = host.application
    script_name = user.application
    route = {"url_route": {"args": (), "kwargs": {"name": "bench"}}}
    return {
        "nothing": (_nothing, {}),
        "EchoConsumer": (EchoConsumer.as_asgi(), {"echo.name": "bench"}),
        "counted": (websocket_urlpatterns[1].callback, route),
        "URLRouter": (script_name.application, {}),
        "ScriptName": (script_name, {}),
        "UserMiddleware": (user, {}),
        "HostAndOriginCheck": (host, {}),
        "ProtocolTypeRouter": (application, {}),
    }


async def _measure() -> dict[str, float]:
    """Return the µs of each application, with those within it."""
    parts = _parts()
    found = dict.fromkeys(parts, float("inf"))
    for _ in range(MEASUREMENTS):
        for name, part in parts.items():
            found[name] = min(found[name], await _connect(*part))
    gc.collect()
    gc.disable()
    await _connect(*parts["ProtocolTypeRouter"])
    return {**found, GARBAGE: gc.collect() / HANDSHAKES}


async def _connect(application: Any, more: dict[str, Any]) -> float:
    began = time.process_time()
    for _ in range(HANDSHAKES):
        connection = Connection(**more)
        await application(connection.scope, connection.receive, connection.send)
    return (time.process_time() - began) / HANDSHAKES * 1e6


def _best(trees: list[Path]) -> list[dict[str, float]]:
    """Return the least of several processes for each tree."""
    command = [sys.executable, "-P", __file__, "--process"]  # -P: our profile.py hides Python's
    found: list[list[dict[str, float]]] = [[] for _ in trees]
    for _ in range(PROCESSES):
        for tree, results in zip(trees, found, strict=True):
            environment = {**os.environ, "PYTHONPATH": str(tree), "ECHO_STATE_URL": "memory://"}
            output = subprocess.run(
                command, cwd=tree, env=environment, check=True, stdout=subprocess.PIPE
            ).stdout
            results.append(json.loads(output))
    return [{name: min(r[name] for r in results) for name in results[0]} for results in found]


def _rows(best: list[dict[str, float]]) -> list[str]:
    within = [0.0] * len(best)
    rows = []
    for name in best[0]:
        values = [one[name] for one in best]
        if name != GARBAGE:
            values, within = [v - w for v, w in zip(values, within, strict=True)], values
        rows.append(f"| {name} | {' | '.join(f'{value:.1f}' for value in values)} |")
    total = [one["ProtocolTypeRouter"] - one["nothing"] for one in best]
    rows.insert(-1, f"| **together** | {' | '.join(f'**{value:.1f}**' for value in total)} |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.handshake", description=__doc__)
    parser.add_argument("--against", metavar="COMMIT")
    parser.add_argument("--process", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.process:
        print(json.dumps(asyncio.run(_measure())))
        return
    from benchmarks.machine import ROOT
    from benchmarks.trees import export

    with tempfile.TemporaryDirectory() as folder:
        trees = [ROOT]
        if arguments.against:
            export(arguments.against, Path(folder))
            trees.append(Path(folder))
        best = _best(trees)
    head = ["µs of CPU", "working tree", *filter(None, [arguments.against])]
    print(f"| {' | '.join(head)} |\n{'|---' * len(head)}|", *_rows(best), sep="\n")


if __name__ == "__main__":
    main()
