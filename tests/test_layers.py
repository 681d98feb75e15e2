"""The layers of the code: imports go down only, and nothing happens at import."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# From the top. A module may import those of the floors below, and others of its own floor as long
# as there is no circle.
FLOORS = [
    ["project"],
    ["echo.management", "echo.apps"],
    [
        "echo.admin",
        "echo.checks",
        "echo.operations",
        "echo.routing",
        "echo.testing",
        "echo.urls",
    ],
    [
        "echo.counting",
        "echo.live",
        "echo.middleware",
        "echo.objects",
        "echo.signals",
        "echo.templatetags",
        "echo.views",
    ],
    ["echo.permissions", "echo.state"],
    ["echo.conf"],
    ["echo.consumers", "echo.denial", "echo.groups", "echo.members", "echo.names"],
    [
        "echo.exceptions",
        "echo.extensions",
        "echo.forms",
        "echo.introspection",
        "echo.log",
        "echo.responses",
        "echo.stats",
    ],
]
BESIDE = "echo.server"  # the transport, which knows ASGI only


def modules():
    """Return path and dotted name of every module of the project."""
    paths = [*(ROOT / "echo").rglob("*.py"), *(ROOT / "project").rglob("*.py")]
    dotted = {p: ".".join(p.relative_to(ROOT).with_suffix("").parts) for p in sorted(paths)}
    return {path: name.removesuffix(".__init__") for path, name in dotted.items()}


def imported(path, name):
    """Return the dotted names of ours that a module imports, inside functions too."""
    known = set(modules().values())
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} has a relative import"
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {each if each in known else node.module for each in whole}
    return {each for each in found if each.split(".")[0] in ("echo", "project")} - {name}


def floor(name):
    for number, floor in enumerate(FLOORS):
        if any(name == module or name.startswith(f"{module}.") for module in floor):
            return number
    raise AssertionError(f"{name} stands on no floor: give it one in FLOORS")


MODULES = [(p, n) for p, n in modules().items() if n != "echo" and not n.startswith(BESIDE)]
TRANSPORT = [(p, n) for p, n in modules().items() if n.startswith(BESIDE)]


@pytest.mark.parametrize(("path", "name"), MODULES, ids=[n for _, n in MODULES])
def test_imports_go_down_the_floors(path, name):
    # `project`, the commands and the test kit start the server, nothing else knows it.
    may_start = name.startswith(("project", "echo.management", "echo.apps", "echo.testing"))
    others = {each for each in imported(path, name) if not (may_start and each.startswith(BESIDE))}

    assert {each for each in others if floor(each) < floor(name)} == set()


def test_modules_do_not_import_each_other_in_a_circle():
    edges = {name: imported(path, name) for path, name in MODULES + TRANSPORT}

    def reaches(start, goal, seen):
        steps = edges.get(start, set()) - seen
        return goal in steps or any(reaches(step, goal, seen | steps) for step in steps)

    assert [name for name in edges if reaches(name, name, set())] == []


@pytest.mark.parametrize(("path", "name"), TRANSPORT, ids=[n for _, n in TRANSPORT])
def test_transport_imports_nothing_but_itself_and_the_settings(path, name):
    allowed = {"echo.extensions"}
    if name in ("echo.server.daphne.server", "echo.server.deflate", "echo.server.settings"):
        allowed.add("echo.conf")

    assert {each for each in imported(path, name) if not each.startswith(BESIDE)} <= allowed


def test_settings_of_ours_are_read_by_conf_only():
    readers = [
        name
        for path, name in modules().items()
        if re.search(r"settings\.ECHO_|getattr\(settings, .ECHO_|_get\(.ECHO_", path.read_text())
    ]

    assert readers == ["echo.conf"]


def test_redis_is_imported_by_the_state_on_redis_only():
    importers = [
        name
        for path, name in modules().items()
        if re.search(r"^\s*(import|from) redis\b", path.read_text(), re.MULTILINE)
    ]

    assert importers
    assert all(name.startswith("echo.state.redis.") for name in importers)


def test_init_files_are_empty():
    filled = [n for p, n in modules().items() if p.name == "__init__.py" and p.read_text()]

    assert filled == ["echo.admin", "echo.counting", "echo.signals", "echo.state", "echo.testing"]


IMPORT_ALL = """
import asyncio, importlib, sys, threading
import django
django.setup()
before = threading.active_count()
for name in sys.argv[1:]:
    importlib.import_module(name)
assert threading.active_count() == before, threading.enumerate()
from echo import state
from echo.groups import group
assert state._state is None
assert not list(group._groups)
from channels.layers import channel_layers
assert not channel_layers.backends
"""


def test_nothing_happens_at_import():
    """No thread, no state, no channel layer, whatever of ours is imported."""
    names = [n for _, n in MODULES + TRANSPORT if not n.startswith("project")]
    env = {**os.environ, "DJANGO_SETTINGS_MODULE": "project.settings"}

    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", IMPORT_ALL, *names],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
    )

    assert (done.returncode, done.stderr) == (0, "")


def test_pytest_is_imported_by_the_test_kit_only():
    importers = [
        name
        for path, name in modules().items()
        if re.search(r"^\s*(import|from) _?pytest\b", path.read_text(), re.MULTILINE)
    ]

    assert importers == ["echo.testing"]


def test_memory_state_has_no_django_in_it():
    tree = ast.parse((ROOT / "echo" / "state" / "memory.py").read_text())

    sources = [ast.unparse(n) for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]

    assert [source for source in sources if "django" in source] == []
    ours = ("from echo.state.", "from echo.members ")
    assert all(source.startswith(ours) for source in sources if "echo" in source)


def test_tests_do_not_import_from_each_other():
    paths = [*(ROOT / "tests").rglob("test_*.py")]
    found = [p for p in paths if re.search(r"^from tests\.(\w+\.)*test_", p.read_text(), re.M)]

    assert found == []
