"""A pytest plugin, `-p daphne_cases`: hypothesis tries the same examples in each run.

It does not look for the shortest one that fails either: each starts a server, of which some end in
a time limit only.
"""

import multiprocessing

from hypothesis import Phase, settings

settings.register_profile(
    "peers", phases=[Phase.explicit, Phase.generate], derandomize=True, database=None
)
settings.load_profile("peers")


def pytest_unconfigure() -> None:
    """End the servers that tests have left: multiprocessing would wait for them."""
    for process in multiprocessing.active_children():
        process.kill()
