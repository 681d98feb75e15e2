"""The clients of the benchmark of deploys, and what it makes of their figures."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import Server, ServerConnection, serve

from benchmarks.deploy.clients import Clients
from benchmarks.deploy.report import report
from tests.servers import ROOT, free_port
from tests.waiting import DEADLINE

NUMBER = 20


@pytest.fixture(autouse=True)
def compiler() -> None:
    if not shutil.which("cc"):
        missing = pytest.fail if os.environ.get("CI") else pytest.skip
        missing("cc is not on PATH: the clients are in C.")


@asynccontextmanager
async def site(port: int, label: str, count: Callable[[int], int]) -> AsyncIterator[Server]:
    """Echo with the prefix, and respond with what `count` makes of the number of connections."""

    async def echo(connection: ServerConnection) -> None:
        async for text in connection:
            await connection.send(f"[Durable Object]: {text}")

    def respond(connection: ServerConnection, request: Any) -> Any:
        if request.path.endswith("/websocket"):
            return None
        return connection.respond(200, f"{count(len(server.connections))}")

    options: dict[str, Any] = {"server_header": label, "process_request": respond}
    async with serve(echo, "127.0.0.1", port, compression=None, **options) as server:
        yield server


async def totals(count: Callable[[int], int]) -> dict[str, int]:
    """Return the counts that the clients have read, once they are open and have read ten."""
    port = free_port()
    async with site(port, "one", count):
        with Clients(NUMBER, port=port) as clients:
            assert await asyncio.to_thread(clients.wait_until_all_are_open, DEADLINE)
            await asyncio.to_thread(clients.tell, "start", "one", port)
            while True:
                found = await asyncio.to_thread(clients.tell, "totals")
                if found["samples"] >= 10:
                    return found
                await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("error", "low", "high", "most"),
    [(0, False, False, 0), (1, False, True, 1), (-2, True, False, 2)],
)
async def test_clients_know_a_wrong_count(error: int, low: bool, high: bool, most: int) -> None:
    found = await asyncio.wait_for(totals(lambda number: number + error), 2 * DEADLINE)

    assert (found["too_low"] > 0, found["too_high"] > 0) == (low, high)
    assert found["most_wrong"] == most


async def test_clients_return_after_a_restart() -> None:
    port = free_port()
    async with site(port, "one", int) as server:
        clients = Clients(NUMBER, port=port, base=0.05, cap=0.2)
        with clients:
            assert await asyncio.to_thread(clients.wait_until_all_are_open, DEADLINE)
            await asyncio.to_thread(clients.tell, "stop", "one")
            server.close(code=1012)
            await server.wait_closed()
            await asyncio.sleep(0.3)  # so that some are refused
            async with site(port, "two", int):
                assert await asyncio.to_thread(clients.wait_until_all_are_open, DEADLINE)
                figures = await asyncio.to_thread(clients.tell, "end")

    assert figures["all_back"] and 0.3 < figures["back_s"] < DEADLINE
    assert (figures["opened"], figures["closed_1012"], figures["errors"]) == (NUMBER, NUMBER, 0)
    assert figures["refused"] > 0
    assert figures["away_max_s"] >= figures["away_p50_s"] >= 0.3


async def test_echoes_of_clients_that_stay_are_measured() -> None:
    port = free_port()
    async with site(port, "one", int):
        with Clients(NUMBER, port=port) as clients:
            assert await asyncio.to_thread(clients.wait_until_all_are_open, DEADLINE)
            await asyncio.to_thread(clients.tell, "measure")
            await asyncio.sleep(1.1)
            figures = await asyncio.to_thread(clients.tell, "end")

    assert figures["stayed"] == NUMBER <= figures["echoes"]
    assert 0 < figures["echo_p50_ms"] <= figures["echo_p99_ms"] <= figures["echo_max_ms"]


PHASE = {
    **{"all_back": True, "back_s": 2.0, "opened": 9, "peak_per_second": 900, "echoes": 10},
    **{"echo_p99_ms": 4.0, "away_p50_s": 0.5, "away_p99_s": 1.5, "stopped_s": 0.5},
    **dict.fromkeys(["refused", "dropped", "late", "status_502", "status_503", "other_status"], 0),
    **dict.fromkeys(["closed_otherwise", "without_close", "unanswered", "errors"], 0),
    **{"signal": 15, "exit_code": 0},
}


def test_report_has_the_worse_replacement_and_the_sum_of_troubles() -> None:
    worse = {**PHASE, "back_s": 3.0, "echoes": 0, "echo_p99_ms": 0.0, "status_502": 2}
    counts = {"samples": 90, "unknown": 10, "too_low": 1, "too_high": 2, "most_wrong": 7}
    phases = {"calm": PHASE, "phases": [PHASE, worse]}
    sample = {"scenario": "daphne/nginx", "clients": 50, **phases, "counts": counts}
    slower = {**sample, "phases": [PHASE, {**worse, "back_s": 4.0}]}
    load = {"clients": 5000, "base": 1.0, "cap": 30.0, "drain": 10.0}
    raw = {
        "began": "",
        "rounds": 2,
        "load": load,
        "left_out": ["x"],
        "loads": [0.5],
        "versions": {},
    }

    lines = report({**raw, "samples": [sample, slower]}).split("\n")

    times, troubles = [line for line in lines if line.startswith("| daphne/nginx | ")]
    assert times == (
        "| daphne/nginx | 50 | 3.50 (3.00 - 4.00) | 0.500 | 1.50 | 900 | 4.00 | 4.00 | 0.500 |"
    )
    assert troubles == "| daphne/nginx | 50 | 200 | 6 | 7 | 20 | 0 | 0 | 4 | 0 | 0 | 0 | 0 | 0 |"
    assert "- Left out: x" in lines


@pytest.mark.long
def test_processes_are_replaced_with_every_count_right(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.deploy", "--clients", "50", "--rounds", "1"]
    command += ["--only", "daphne,uvicorn", "--base", "0.1", "--calm", "0", "--drain", "2"]
    command += ["--results", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)

    assert done.returncode == 0, done.stderr
    raw = json.loads((tmp_path / "deploy.json").read_text())
    assert raw["left_out"] == []
    assert {"daphne/nginx", "daphne/socket", "uvicorn/nginx"} <= {
        sample["scenario"] for sample in raw["samples"]
    }
    for sample in raw["samples"]:
        counts, phases = sample["counts"], sample["phases"]
        assert counts["samples"] > 50
        assert (counts["too_low"], counts["too_high"]) == (0, 0), sample
        assert all(phase["all_back"] for phase in phases), sample
        assert all(phase["exit_code"] in (0, -15) for phase in phases), sample  # of uvicorn: -15
        for trouble in ("refused", "without_close", "errors"):
            assert sum(phase[trouble] for phase in phases) == 0, sample
