"""Redis users with few rights, and a replica that is read-only."""

import os
import subprocess
import sys
from contextlib import closing

import pytest

from echo import log
from echo.exceptions import StateUnavailable
from echo.signals.sender import SignalSender
from echo.state.redis.state import MAX_NAMES_AT_ONCE, RedisState
from tests.faults.redis_server import OwnRedis
from tests.faults.site import Site
from tests.servers import ROOT
from tests.states import HEARTBEAT, LEASE, counts_or_unknown, messages, redis_state, step
from tests.waiting import eventually


def state_without(server, command):
    """Return a state whose Redis user has all rights but that command."""
    log._last.clear()
    with server.client() as client:
        client.execute_command(
            "ACL", "SETUSER", "some", "on", ">pass", "~*", "&*", "+@all", f"-{command}"
        )
    url = server.url.replace("//", "//some:pass@")
    return closing(RedisState(url, LEASE, HEARTBEAT))


async def test_rejected_limit_check_is_logged_once_and_no_outage(own_redis, caplog):
    with state_without(own_redis, "setrange") as state:
        granted = [await state.join("foo", limit=2) for _ in range(3)]

    assert granted == [True, True, False]
    (warning,) = messages(caplog)
    assert warning.startswith("Redis rejected a limit check; limits apply per process: ")


async def test_rejected_read_is_logged_once(own_redis, caplog):
    with state_without(own_redis, "smembers") as state:
        eventually(lambda: (counts_or_unknown(state), len(messages(caplog))), ("unknown", 1))
        assert [counts_or_unknown(state) for _ in range(3)] == ["unknown"] * 3

    (warning,) = messages(caplog)
    assert warning.startswith("Redis rejected a read: ")


@pytest.fixture
def url_of_user_with_few_rights():
    """The URL of a Redis, with a user that has the rights in the docs."""
    lines = (ROOT / "docs" / "howto" / "security.md").read_text().splitlines()
    steps = [line.split() for line in lines if line.startswith("ACL SETUSER echo ")]
    assert len(steps) == 5
    with OwnRedis() as server:
        with server.client() as client:
            for step in steps:
                client.execute_command(*step)
        yield f"redis://echo:secret@127.0.0.1:{server.port}/0"


@pytest.mark.parametrize("at_once", [MAX_NAMES_AT_ONCE, 1])
async def test_user_with_few_rights_is_enough(url_of_user_with_few_rights, monkeypatch, at_once):
    monkeypatch.setattr("echo.state.redis.state.MAX_NAMES_AT_ONCE", at_once)
    monkeypatch.setattr("echo.state.redis.state.MAX_MEMBERS_AT_ONCE", at_once)
    url = url_of_user_with_few_rights
    with redis_state(url) as here, redis_state(url) as there:
        assert here.ledger.acquire()
        sender = SignalSender(here)
        await here.join("foo")
        await there.join("foo", limit=9)
        await here.join("bar", member=("ada", "{}"))
        here.set_info("bar", "ada", '{"n":1}')

        assert there.counts() == here.counts() == {"foo": 2, "bar": 1}
        assert there.member("bar", "ada").info == '{"n":1}'
        assert (there.member_count("bar"), {*there.members("bar").members}) == (1, {"ada"})
        assert there.count("foo") == 2
        assert here.check() == []
        eventually(lambda: step(sender), True)
        sender.step(1)
        sender.stop()


def test_user_with_few_rights_is_enough_for_the_channel_layer(url_of_user_with_few_rights):
    with Site(url_of_user_with_few_rights) as site:
        clients = [site.open(server) for server in site.servers]
        command = [sys.executable, "manage.py", "echo_send", "foo", "to all"]
        env = {**os.environ, "ECHO_STATE_URL": url_of_user_with_few_rights}
        sent = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True)

        assert (sent.returncode, sent.stderr) == (0, "")
        assert [client.text() for client in clients] == ["to all"] * 2


async def test_read_only_replica_is_an_outage(own_redis, caplog):
    with OwnRedis("--replicaof", "127.0.0.1", str(own_redis.port)) as replica:
        state = RedisState(replica.url, LEASE, HEARTBEAT)
        try:
            await state.join("foo")
            eventually(lambda: state.health.is_outage, True)
            assert counts_or_unknown(state) == "unknown"
        finally:
            state.close()

    (warning,) = messages(caplog)
    assert warning.startswith("Redis rejects the counts: counts are unknown, ")
    assert "read only replica" in warning


async def test_missing_right_is_named_with_its_remedy(own_redis, caplog):
    with state_without(own_redis, "hincrby") as state:
        await state.join("foo")
        eventually(lambda: state.health.is_outage, True)

        with pytest.raises(StateUnavailable, match="rejects the counts; the log has the reason"):
            state.count("foo")

    (warning,) = messages(caplog)
    assert warning.startswith("Redis rejects the counts: counts are unknown, ")
    assert "the security guide lists the ACL rights" in warning
