"""The packages whose published tests are run, with the versions that are known to work.

Few source distributions have tests, and some lack files that these need: those in `support/` stand
in for them. Tried and left out, since their tests fail plain, too: channels-demultiplexer 2.2.0
(asyncio.wait() with coroutines, which Python 3.11 forbids) and channels-yroom 0.0.6 (they hang with
yroom 0.0.8 and 0.0.10). reactpy-django 5.2.1 was left out, since its tests reach its consumer only
with a browser, through servers in other processes.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Package:
    """A source distribution that has tests of its own WebSocket consumers."""

    name: str
    version: str
    tests: str = "tests"  # its path in the distribution
    requirements: tuple[str, ...] = ()  # of its tests
    options: tuple[str, ...] = ()  # of pytest, from the distribution's configuration


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
    Package(
        "django-channels-broadcast",
        "0.3.1",
        requirements=("model-bakery==1.24.2",),
        options=("--ds=tests.settings", "--asyncio-mode=auto"),
    ),
    Package(
        "django-liveops",
        "0.4.1",
        requirements=("django-channels-broadcast==0.3.1",),
        options=("--ds=tests.fast_settings", "--asyncio-mode=auto"),
    ),
    Package(
        "graphene-django-realtime",
        "0.2.2a2",
        requirements=("graphene-django==3.2.3", "redis==8.1.0", "fakeredis==2.40.0"),
        options=(
            "--ds=tests.settings",
            "--asyncio-mode=auto",
            # Fails plain: it receives until nothing comes in time, whereupon Channels'
            # communicator cancels the application, and disconnects then.
            "--deselect=tests/test_consumer.py"
            "::test_subscribe_no_duplicate_error_on_execution_result_errors",
        ),
    ),
]
