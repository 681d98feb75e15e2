"""URLs of all kinds, and the credentials in them."""

import logging
import subprocess

import pytest
from redis.exceptions import RedisClusterException, RedisError

from echo.exceptions import StateUnavailable
from echo.state.redis.client import RedisClient
from echo.state.redis.read_scripts import COUNT
from echo.state.redis.state import RedisState
from tests.faults.redis_server import Cluster, OwnRedis
from tests.redis_server import require_version
from tests.states import HEARTBEAT, LEASE, messages, redis_state
from tests.waiting import eventually

PASSWORD = "s3cr3t-of-ours"


@pytest.mark.parametrize("scheme", ["redis", "valkey"])
async def test_redis_by_its_url(redis_server, scheme):
    redis_server.flush()
    with redis_state(redis_server.url.replace("redis:", f"{scheme}:")) as state:
        await state.join("foo")

        assert state.counts() == {"foo": 1}


async def test_redis_by_a_unix_socket():
    options = ("--unixsocket", "{folder}/socket")
    with (
        OwnRedis(*options) as server,
        redis_state(f"unix://{server.directory.name}/socket") as state,
    ):
        await state.join("foo")

        assert server.size() == 4
        assert state.counts() == {"foo": 1}


@pytest.fixture
def certificate(tmp_path):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = f"openssl req -x509 -newkey rsa:2048 -nodes -days 1 -keyout {key} -out {certificate}"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run([*command.split(), *names], check=True, capture_output=True)
    return key, certificate


@pytest.mark.parametrize("scheme", ["rediss", "valkeys"])
async def test_redis_by_tls(certificate, scheme):
    require_version(7)
    key, certificate = certificate
    options = f"--port 0 --tls-port {{port}} --tls-cert-file {certificate} --tls-key-file {key}"
    url = f"rediss://127.0.0.1:{{port}}/0?ssl_ca_certs={certificate}"
    with (
        OwnRedis(*options.split(), "--tls-auth-clients", "no", url=url) as server,
        redis_state(server.url.replace("rediss:", f"{scheme}:")) as state,
    ):
        await state.join("foo")

        assert state.counts() == {"foo": 1}


@pytest.mark.slow
async def test_redis_cluster():
    """All keys are in one slot, and the client gets the options of the URL."""
    require_version(7)
    with Cluster() as cluster:
        url = f"{cluster.url}&health_check_interval=5"
        with redis_state(url) as here, redis_state(url) as there:
            await here.join("foo")
            await there.join("foo")

            assert here.counts() == there.counts() == {"foo": 2}
            assert await here.join("foo", limit=2) is False


async def test_sentinels_that_are_down_are_named_shortly(caplog):
    state = RedisState("redis+sentinel://:s3cr3t@127.0.0.1:1,127.0.0.1:2/mine/0", LEASE, HEARTBEAT)
    try:
        await state.join("foo")
        eventually(lambda: state.health.is_outage, True)
    finally:
        state.close()

    (warning,) = messages(caplog)
    assert warning.endswith("(No Sentinel knows the primary.)")


def test_options_of_a_url_are_kept_for_a_cluster():
    url = "rediss://127.0.0.1:1/?cluster=true&ssl_min_version="  # nothing listens there

    with pytest.raises(RedisClusterException, match="Connection refused"):
        RedisClient(f"{url}771").run(COUNT, id="", name="")
    with pytest.raises(RedisError, match="invalid option: Invalid value for 'ssl_min_version'"):
        RedisClient(f"{url}old").run(COUNT, id="", name="")


@pytest.mark.parametrize(
    "user",
    [
        f"app:{PASSWORD}",  # of a Redis that is down
        f"app:{PASSWORD}-wrong",
        f":{PASSWORD}-wrong",
        f"mute:{PASSWORD}",  # may only log in
    ],
)
async def test_no_message_has_a_credential(user, caplog):
    caplog.set_level(logging.DEBUG)
    acl = f"--requirepass {PASSWORD} --user app on >{PASSWORD} ~* +@all --user mute on >{PASSWORD}"
    with OwnRedis(*acl.split(), url=f"redis://app:{PASSWORD}@127.0.0.1:{{port}}/0") as server:
        if user == f"app:{PASSWORD}":
            server.stop()
        state = RedisState(f"redis://{user}@127.0.0.1:{server.port}/0", LEASE, HEARTBEAT)
        try:
            with pytest.raises(StateUnavailable) as caught:
                state.count("foo")
            await state.join("foo")
            eventually(lambda: state.health.is_outage, True)
            with pytest.raises(StateUnavailable):
                state.counts()
        finally:
            state.close()

    texts = [str(caught.value), repr(caught.value.__cause__), repr(state), *messages(caplog)]
    assert any("Redis is down" in text for text in texts)
    assert [text for text in texts if "s3cr3t" in text] == []
