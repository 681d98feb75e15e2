"""What the benchmarks make of their samples."""

import json
import os
import subprocess
import sys
from dataclasses import asdict

import pytest

from benchmarks.figures import Sample, parse
from benchmarks.members.report import report as report_members
from benchmarks.quick import is_slower
from benchmarks.report import notes, tables
from benchmarks.spread import number, ratios, spread, values
from benchmarks.state.report import report
from tests.servers import ROOT


def samples(figure: str, peer: str, *by_round: float) -> list[Sample]:
    return [Sample(figure, peer, place, value) for place, value in enumerate(by_round, 1)]


@pytest.mark.parametrize(
    ("name", "connections", "in_flight", "size"),
    [
        ("echo-50x16", 50, 16, 32),
        ("echo-50x1x65536B", 50, 1, 65536),
        ("handshakes", 50, 1, 32),
        ("fanout", 500, 1, 32),
        ("idle-5000", 5000, 1, 32),
    ],
)
def test_name_of_a_figure_tells_its_load(name, connections, in_flight, size):
    figure = parse(name)

    assert (figure.connections, figure.in_flight, figure.size) == (connections, in_flight, size)


def test_name_that_is_no_figure_is_refused():
    with pytest.raises(ValueError, match="'eccho-50' is not a figure"):
        parse("eccho-50")


def test_ratio_is_the_median_of_those_of_each_round():
    assert ratios({1: 2.0, 2: 30.0, 3: 8.0}, {1: 1.0, 2: 10.0, 3: 2.0}) == spread([2.0, 3.0, 4.0])


def test_rounds_that_one_of_both_lacks_have_no_ratio():
    assert ratios({1: 2.0, 2: 3.0}, {2: 1.0}) == spread([3.0])
    assert ratios({1: 2.0}, {2: 1.0}) is None


def test_table_tells_the_best_first_beside_the_original_and_the_limit():
    found = samples("echo-50x1", "workerd", 10, 20) + samples("echo-50x1", "daphne", 30, 40)
    found += samples("echo-50x1", "limit", 60, 80)

    lines = tables(found)

    assert lines[0] == "## echo-50x1: echoes per second\n"
    assert [line.split(" | ")[0] for line in lines[3:6]] == ["| limit", "| daphne", "| workerd"]
    assert "| daphne | 35.0 (30.0 - 40.0) | 2.50 (2.00 - 3.00) | 0.500 (0.500 - 0.500)" in lines[4]


def test_what_costs_less_is_the_better():
    found = samples("memory-1000", "workerd", 70) + samples("memory-1000", "daphne", 12)

    assert [line.split(" | ")[0] for line in tables(found)[3:5]] == ["| daphne", "| workerd"]


def test_sample_with_an_error_is_left_out_and_named():
    wrong = Sample("echo-50x1", "ws", 1, 9.0, {"errors": 2, "first_errors": ["unexpected reply"]})

    assert not values([wrong])
    assert notes([wrong]) == ["echo-50x1, ws, round 1: left out for 2 errors (unexpected reply)."]


def test_generator_that_may_be_the_limit_is_named():
    busy = Sample("echo-50x1", "limit", 1, 9.0, {"generator_busy": 0.99})

    assert "the load generator was busy all the time in 1 rounds" in notes([busy])[0]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([0.9] * 9, True),
        ([0.9] * 8 + [1.3], True),
        ([0.9] * 7 + [1.1] * 2, False),  # two rounds say otherwise: noise
        ([0.97] * 9, False),  # too little to tell
        ([1.0] * 9, False),
    ],
)
def test_slower_is_what_nearly_all_rounds_say(found, expected):
    assert is_slower(found) is expected


def test_numbers_have_three_digits_or_so():
    assert [number(n) for n in (1234.5, 12.34, 1.234, 0.1234, 0)] == [
        *("1,234", "12.3", "1.23", "0.123", "0.00")
    ]


def test_costs_of_the_state_are_measured_without_a_site():
    command = [sys.executable, "-m", "benchmarks.state", "--short", "--rounds", "1"]
    command += ["--parts", "processes,objects"]
    env = {name: value for name, value in os.environ.items() if not name.startswith("DJANGO_")}

    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stderr
    assert "| `count()`, 4 processes: µs of Redis | " in done.stdout
    assert "| `counts()` of 1,000 objects in 100 processes, ms for the caller | " in done.stdout


@pytest.mark.long
def test_handshake_leaves_nothing_to_the_garbage_collector():
    command = [sys.executable, "-P", ROOT / "benchmarks" / "handshake.py", "--process"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "ECHO_STATE_URL": "memory://"}

    done = subprocess.run(command, env=env, cwd=ROOT, check=True, stdout=subprocess.PIPE)

    *parts, garbage = json.loads(done.stdout).values()
    assert garbage == 0
    assert len(parts) == 8


def test_costs_of_the_state_are_told_beside_those_of_a_commit():
    found = samples("count-redis-4", "now", 10, 20) + samples("count-redis-4", "abc", 40, 40)
    found += samples("subscriber-redis", "now", 2)
    raw = {"began": "", "rounds": 2, "against": "abc", "left_out": [], "versions": {}}

    *_, count, subscriber, _ = report({**raw, "samples": [asdict(each) for each in found]}).split(
        "\n"
    )

    assert count == (
        "| `count()`, 4 processes: µs of Redis | 15.0 (10.0 - 20.0) | 40.0 (40.0 - 40.0) "
        "| 0.375 (0.250 - 0.500) |"
    )
    assert subscriber == "| each subscriber adds, µs of Redis' CPU | 2.00 (2.00 - 2.00) |  |  |"


def test_costs_of_members_are_told_beside_those_without_and_with_their_targets():
    found = samples("joins-100", "with member", 30_000, 40_000)
    found += samples("joins-100", "without member", 60_000, 80_000)
    found += samples("members-200", "echo", 1.5)
    raw = {"began": "", "rounds": 2, "left_out": ["x"], "loads": [0.5, 1.5], "versions": {}}

    lines = report_members({**raw, "samples": [asdict(each) for each in found]}).split("\n")

    assert (
        "| joins on Redis, 100 at once, per second | ≥ 20,000 | 35,000 (30,000 - 40,000) "
        "| 70,000 (60,000 - 80,000) | 0.500 (0.500 - 0.500) |"
    ) in lines
    assert "| `members()` of 200, ms | ≤ 2 | 1.50 (1.50 - 1.50) |" in lines
    assert "Left out: x" in lines
