"""Restarts and failovers are detected by INFO."""

import pytest
import redis

from echo.state.redis.restarts import RestartDetector


def test_server_whose_info_lacks_run_id_and_uptime_is_rejected():
    with pytest.raises(redis.RedisError, match="lacks run_id or uptime_in_seconds"):
        RestartDetector(print).check("host:6379", "# Server\r\nredis_version:7.0.0\r\n")


SERVED = "# Server\r\nrun_id:{}\r\nuptime_in_seconds:100\r\n"


REPLICATED = "# Replication\r\nmaster_replid:{}\r\nmaster_replid2:{}\r\n"


NEVER = "0" * 40


@pytest.mark.parametrize("is_seen_before", [False, True])
def test_promoted_replica_has_the_age_0_whatever_its_uptime(is_seen_before):
    """Also in a process that sees its first server: it may have started after a failover."""
    ages = []
    restarts = RestartDetector(ages.append)
    replica = SERVED.format("replica")
    if is_seen_before:
        restarts.check("there", replica + REPLICATED.format("old", NEVER))
    restarts.check("elsewhere", SERVED.format("other") + REPLICATED.format("other", NEVER))
    restarts.check("there", replica + REPLICATED.format("new", "old"))
    restarts.check("there", replica + REPLICATED.format("new", "old"))

    assert ages == [99] * (1 + is_seen_before) + [0]


def test_restarted_server_has_the_age_0_whatever_its_uptime():
    ages = []
    restarts = RestartDetector(ages.append)
    for run in ("first", "first", "second"):
        restarts.check("here", SERVED.format(run))

    assert ages == [99, 0]
