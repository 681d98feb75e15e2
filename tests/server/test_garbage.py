"""The garbage collector does not visit the site's modules and models again and again."""

import gc
import json

import pytest

from tests.raw import UPGRADE, Client
from tests.servers import Server


@pytest.mark.parametrize(
    ("site", "expected"),
    [("transport", [True, 10_000]), ("unfinished", [False, gc.get_threshold()[0]])],
)
@pytest.mark.parametrize("kind", ["daphne", "uvicorn"])
def test_collector_runs_less_often_unless_the_site_has_disabled_it(kind, site, expected) -> None:
    with Server(kind, f"tests.sites.{site}:application") as server:
        with Client(server.port) as client:
            client.ask("/echo/garbage/websocket", UPGRADE)

        is_frozen, first, *_ = json.loads(server.get("/collector")[2])

    assert [is_frozen, first] == expected
