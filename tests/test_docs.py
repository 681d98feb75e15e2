"""What the documentation names exists. What it includes of the README is run by test_readme.py."""

import ast
import json
import re
import subprocess
import sys
import tomllib

import pytest
from django.utils.module_loading import import_string
from prometheus_client import generate_latest

from echo.conf import NAMES
from echo.operations.metrics import EchoCollector
from tests.servers import ROOT

DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.glob("*.md"), *DOCS.glob("*.rst")])
BLOCKS = [
    (page.name, language, code)
    for page in PAGES
    for language, code in re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(), re.M | re.S)
]
PYTHON = [(name, code) for name, language, code in BLOCKS if language == "python"]

pages = pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])


@pytest.mark.parametrize(("name", "code"), PYTHON, ids=[name for name, _ in PYTHON])
def test_python_is_right_and_imports_what_there_is(name: str, code: str) -> None:
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("echo"):
            for alias in node.names:
                import_string(f"{node.module}.{alias.name}")


@pages
def test_settings_that_are_named_exist(page) -> None:
    assert set(re.findall(r"\bECHO_[A-Z_]+\b", page.read_text())) <= set(NAMES)


@pages
def test_metrics_that_are_named_exist(page) -> None:
    text = generate_latest(EchoCollector()).decode()
    known = set(re.findall(r"^# TYPE (\w+)", text, re.M))
    # a test's own registry has no refusals of some kinds yet, but all metrics
    named = set(re.findall(r"\becho_(?:\w+_total|connections|state_up)\b", page.read_text()))

    assert named <= known


def test_metrics_are_all_listed() -> None:
    text = generate_latest(EchoCollector()).decode()

    listed = re.findall(r"^\| `(echo_\w+)`", (DOCS / "operating.md").read_text(), re.M)

    assert sorted(listed) == sorted(re.findall(r"^# TYPE (\w+)", text, re.M))


def test_dashboard_asks_for_metrics_that_the_page_lists() -> None:
    dashboard = json.loads((DOCS / "grafana.json").read_text())
    page = (DOCS / "operating.md").read_text()

    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]

    assert len(asked) == 5
    assert [expression for expression in asked if expression not in page] == []


def test_extras_that_are_named_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]

    named = re.findall(r"`\[(\w+)\]`", (DOCS / "existing-site.md").read_text())

    assert sorted(named) == sorted(extras)


def test_log_tells_an_end_once_and_is_silent_of_the_layer() -> None:
    [snippet] = [code for page, code in PYTHON if page == "operating.md" and "LOGGING" in code]
    code = f"""
import logging.config
logging.basicConfig(level="INFO")  # as servers do
{snippet}
logging.config.dictConfig(LOGGING)
logging.getLogger("echo.connections").info("An end")
logging.getLogger("channels_redis.pubsub").error("An outage")
"""

    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    assert told.stderr == "An end\n"


def test_build_is_the_one_that_ci_runs() -> None:
    command = "sphinx-build -q -W --keep-going docs docs/_build"

    assert command in (ROOT / ".ci" / "run").read_text()
    assert command in (ROOT / "README.md").read_text()
