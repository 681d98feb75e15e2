"""What README and docs name exists, and their tables are complete. test_readme.py runs blocks."""

import ast
import re
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
from django.core.management import load_command_class
from django.core.management.base import BaseCommand
from django.utils.module_loading import import_string
from prometheus_client import generate_latest

import echo.checks
from echo.conf import NAMES, conf
from echo.operations.metrics import EchoCollector
from tests.readme import BLOCKS, DOCS
from tests.servers import ROOT


def is_page(path: Path) -> bool:
    return path.suffix in (".md", ".rst") and "_build" not in path.parts


PAGES = [ROOT / "README.md", *sorted(path for path in DOCS.rglob("*") if is_page(path))]
PYTHON = [(b.page, b.code) for b in BLOCKS if b.language == "python"]

pages = pytest.mark.parametrize("page", PAGES, ids=[str(p.relative_to(ROOT)) for p in PAGES])


@pytest.mark.parametrize(("name", "code"), PYTHON, ids=[name for name, _ in PYTHON])
def test_python_is_right_and_imports_what_there_is(name: str, code: str) -> None:
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("echo"):
            for alias in node.names:
                import_string(f"{node.module}.{alias.name}")


@pages
def test_links_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", page.read_text())

    assert [link for link in links if not (page.parent / link).exists()] == []


@pages
def test_links_have_a_text_where_no_sphinx_supplies_one(page: Path) -> None:
    assert "[](" not in page.read_text()


def test_docs_take_no_pieces_of_other_files() -> None:
    assert [page.name for page in PAGES if "{include}" in page.read_text()] == []


@pages
def test_settings_that_are_named_exist(page: Path) -> None:
    named = set(re.findall(r"\bECHO_[A-Z_]+\b", page.read_text()))

    assert named <= {*NAMES, "ECHO_TEST_SECOND"}  # a variable of the tests


@pages
def test_metrics_that_are_named_exist(page: Path) -> None:
    text = generate_latest(EchoCollector()).decode()
    known = set(re.findall(r"^# TYPE (\w+)", text, re.M))
    # a test's own registry has no rejections of some kinds yet, but all metrics
    named = set(re.findall(r"\becho_(?:\w+_total|connections|state_up)\b", page.read_text()))

    assert named <= known


def test_metrics_are_all_listed() -> None:
    text = generate_latest(EchoCollector()).decode()

    listed = re.findall(r"^\| `(echo_\w+)`", (DOCS / "reference" / "metrics.md").read_text(), re.M)

    assert sorted(listed) == sorted(re.findall(r"^# TYPE (\w+)", text, re.M))


def test_settings_table_lists_all_with_their_defaults() -> None:
    page = (DOCS / "reference" / "settings.md").read_text()
    rows = re.findall(r"^\| `(ECHO_\w+)` \| `(.*?)` \|", page, re.M)

    assert [name for name, _ in rows] == list(NAMES)
    defaults = [eval(default) for _, default in rows]
    assert [frozenset(value) if isinstance(value, list) else value for value in defaults] == [
        getattr(conf, name) for name in NAMES
    ]


def test_checks_are_all_listed() -> None:
    page = (DOCS / "reference" / "checks.md").read_text()
    code = Path(echo.checks.__file__).read_text()

    assert re.findall(r"^\| `(echo\.\w+)`", page, re.M) == sorted(
        set(re.findall(r'id="(echo\.\w+)"', code))
    )


def test_commands_are_all_listed_with_options_that_exist() -> None:
    page = (DOCS / "reference" / "commands.md").read_text()
    usages = dict(re.findall(r"^`(\w+)(.*)`$", page, re.M))
    folder = Path(import_module("echo.management.commands").__path__[0])

    assert sorted(usages) == sorted(path.stem for path in folder.glob("[a-z]*.py"))
    for name, arguments in usages.items():
        command: BaseCommand = load_command_class("echo", name)
        options = command.create_parser("manage.py", name).format_help()
        assert [o for o in re.findall(r"--\w+", arguments) if o not in options] == []


def test_extras_that_are_named_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]

    named = re.findall(r"`\[(\w+)\]`", (DOCS / "howto" / "existing-site.md").read_text())

    assert sorted(named) == sorted(extras)


def test_build_is_the_one_that_ci_runs() -> None:
    command = "sphinx-build -q -W --keep-going docs docs/_build"

    assert command in (ROOT / ".ci" / "run").read_text()
    assert command in (DOCS / "howto" / "develop.md").read_text()
