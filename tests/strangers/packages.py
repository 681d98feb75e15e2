"""The packages whose published tests are run, with the versions that are known to work.

Few have tests in their source distribution. Tried and left out, since their tests fail plain, too:
channels-demultiplexer 2.2.0 (asyncio.wait() with coroutines, which Python 3.11 forbids) and
channels-yroom 0.0.6 (they hang with yroom 0.0.8 and 0.0.10).
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Package:
    """A source distribution that has tests of its own WebSocket consumers."""

    name: str
    version: str
    tests: str = "tests"  # its path in the distribution
    requirements: tuple[str, ...] = ()  # of its tests
    environment: tuple[tuple[str, str], ...] = ()


# What all of them run with, and what `echo` needs.
COMMON = (
    "asgiref==3.13.0",
    "channels==4.3.2",
    "daphne==4.2.3",
    "Django==5.2.19",
    "pytest==9.2.0",
    "pytest-asyncio==1.5.0",
    "pytest-django==4.14.0",
    "websockets==17.4",
)

PACKAGES = [
    Package(
        "djangochannelsrestframework",
        "1.3.0",
        requirements=("djangorestframework==3.18.3",),
    ),
]
