"""The wire transcript of Cloudflare's original, replayed against real servers by raw sockets."""

import resource
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.servers import Server
from tests.wire.data import CASES, Case
from tests.wire.kinds import SERVERS, marks
from tests.wire.replay import Replay

FILES = 4096  # open at once: more than the 1000 clients of one case


@pytest.fixture(scope="module")
def start() -> Iterator[Callable[[str], Server]]:
    """A function that starts a server of a kind, once for all cases."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < FILES:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(FILES, hard), hard))
    servers: dict[str, Server] = {}
    with ExitStack() as stack:

        def started(kind: str) -> Server:
            if kind not in servers:
                server = Server(kind, options=SERVERS[kind].options)
                servers[kind] = stack.enter_context(server)
            return servers[kind]

        yield started


def test_transcript_is_whole() -> None:
    assert len({case["id"] for case in CASES}) == len(CASES) == 221
    assert [case["id"] for case in CASES if not case.get("ours", {"why": "-"})["why"]] == []


@pytest.mark.parametrize(
    ("kind", "case"),
    [
        pytest.param(kind, case, id=f"{kind} {case['id']}", marks=marks(kind, case))
        for kind in SERVERS
        for case in CASES
    ],
)
def test_case(start: Callable[[str], Server], kind: str, case: Case) -> None:
    Replay(start(kind), case, SERVERS[kind].slack).run()
