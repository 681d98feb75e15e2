"""Restarts and failovers are detected by INFO."""

import pytest
import redis

from echo.state.redis.restarts import RestartDetector


def test_redis_that_does_not_tell_when_it_was_started_is_refused():
    with pytest.raises(redis.RedisError, match="lacks run_id or uptime_in_seconds"):
        RestartDetector(print).check("host:6379", "# Server\r\nredis_version:7.0.0\r\n")


SERVED = "# Server\r\nrun_id:{}\r\nuptime_in_seconds:100\r\n"


REPLICATED = "# Replication\r\nmaster_replid:{}\r\nmaster_replid2:{}\r\n"


NEVER = "0" * 40


@pytest.mark.parametrize("is_met_before", [False, True])
def test_server_that_was_a_replica_is_young_whatever_its_uptime(is_met_before):
    """Also for a process that has known no other: it may start just after a failover."""
    ages = []
    restarts = RestartDetector(ages.append)
    replica = SERVED.format("replica")
    if is_met_before:
        restarts.check("there", replica + REPLICATED.format("old", NEVER))
    restarts.check("elsewhere", SERVED.format("other") + REPLICATED.format("other", NEVER))
    restarts.check("there", replica + REPLICATED.format("new", "old"))
    restarts.check("there", replica + REPLICATED.format("new", "old"))

    assert ages == [99] * (1 + is_met_before) + [0]


def test_server_that_was_started_again_is_young_whatever_its_uptime():
    ages = []
    restarts = RestartDetector(ages.append)
    for run in ("first", "first", "second"):
        restarts.check("here", SERVED.format(run))

    assert ages == [99, 0]
