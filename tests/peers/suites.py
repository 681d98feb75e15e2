"""The suites of uvicorn and Daphne, and what they need."""

import re
from dataclasses import dataclass
from importlib.metadata import version

# What `echo` is imported with.
OURS = ("Django", "channels", "daphne", "Twisted", "autobahn", "websockets")


def installed(*names: str) -> tuple[str, ...]:
    """Return the names pinned to the versions that the project runs with."""
    return tuple(f"{name}=={version(name)}" for name in names)


@dataclass(frozen=True)
class Suite:
    """The tests of a server; the plugins `{name}_cases` and `{name}_ours` are for them."""

    name: str
    requirements: tuple[str, ...]
    options: tuple[str, ...]
    classes: str = r"(?!)"  # the names of its classes in the parameters of tests

    @property
    def pinned(self) -> str:
        return f"{self.name}=={version(self.name)}"

    def case(self, test: str) -> str:
        """Return the test's name without that of a class: they are compared, as one case."""
        return re.sub(self.classes, "ws", test)


SUITES = [
    Suite(
        "uvicorn",
        requirements=(
            *installed(*OURS, "uvicorn", "h11", "httptools", "uvloop", "pytest"),
            *installed("pytest-timeout", "pytest-xdist"),
            "a2wsgi==1.10.10",
            "anyio==4.16.0",
            "httpx2==2.16.2",
            "pytest-mock==3.15.1",
            "PyYAML==6.0.4",
            "python-dotenv==1.2.1",
            "trustme==1.2.1",
            "watchfiles==1.1.1",
            "wsproto==1.3.2",
            "zttp==0.0.35",
        ),
        # Two at a time: they mostly wait.
        options=("-o", "addopts=-n 2", "--ignore=tests/benchmarks"),
        classes=r"\bwebsockets-sansio\b|\bwsproto\b(?!_)",
    ),
    Suite(
        "daphne",
        requirements=installed(
            *OURS, "hypothesis", "pytest", "pytest-asyncio", "pytest-timeout", "uvloop"
        ),
        options=(),
    ),
]
