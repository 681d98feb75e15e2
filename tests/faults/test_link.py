"""The link does what its methods say, so that a row of the table measures its fault."""

import time

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.faults.link import REPLIES, REQUESTS, Fault, Link

SILENCE = 0.1  # seconds


@pytest.fixture
def link(redis_server):
    with Link(redis_server.port) as link:
        yield link


@pytest.fixture
def client(link):
    client = client_of(link)
    client.ping()
    yield client
    client.close()


def client_of(link):
    return redis.Redis(
        port=link.port,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=SILENCE,
        socket_connect_timeout=SILENCE,
        single_connection_client=True,
    )


def test_delays_each_direction(link, client):
    link.delays[REPLIES] = 0.04
    began = time.monotonic()

    client.ping()

    assert 0.04 <= time.monotonic() - began < 0.08


@pytest.mark.parametrize(("direction", "is_run"), [(REQUESTS, 0), (REPLIES, 1)])
def test_stall_holds_one_direction_back(link, client, redis_server, direction, is_run):
    link.stall(direction)

    with pytest.raises(redis.TimeoutError):
        client.set("stalled", 1)

    with redis.Redis(port=redis_server.port) as direct:
        assert direct.exists("stalled") == is_run
        link.resume()
        direct.delete("stalled")
    assert client.ping()


def test_cut_loses_packets_until_it_is_mended(link, client):
    link.cut()
    with pytest.raises(redis.TimeoutError):
        client.ping()
    with pytest.raises(redis.TimeoutError), client_of(link) as other:
        other.ping()

    link.mend()

    with client_of(link) as other:
        assert other.ping()


def test_drop_silences_connections_that_receive_messages(link, client):
    with client_of(link) as other, other.pubsub() as pubsub:
        pubsub.subscribe("channel")
        assert pubsub.get_message(timeout=SILENCE)["type"] == "subscribe"

        assert link.drop(receiving=True) == 1

        client.publish("channel", "lost")
        assert pubsub.get_message(timeout=SILENCE) is None


def test_next_reply_is_lost_and_the_connection_open(link, client):
    link.arm(Fault.LOST)
    with pytest.raises(redis.TimeoutError):
        client.ping()
    assert client.ping()


def test_next_reply_resets_the_connection(link, client):
    link.arm(Fault.RESET)
    with pytest.raises(redis.ConnectionError):
        client.ping()
    assert client.ping()


def test_reset_ends_all_connections(link, client):
    link.reset()
    with pytest.raises(redis.ConnectionError):
        client.ping()


def test_refused_connections_are_accepted_again(link, client):
    link.refuse()
    for _ in range(2):
        with pytest.raises(redis.ConnectionError):
            client.ping()

    link.accept()

    assert client.ping()


def test_request_that_is_held_back_arrives_after_the_next_one(link, client, redis_server):
    link.hold(REQUESTS, lambda request: b"late" in request)
    with pytest.raises(redis.TimeoutError):
        client.set("held", "late")
    client.set("held", "soon")

    link.release()

    with redis.Redis(port=redis_server.port) as direct:
        assert direct.getdel("held") == b"late"


def test_reply_that_is_held_back_is_that_of_a_request_that_was_run(link, client):
    link.hold(REPLIES, lambda request: b"held" in request)
    with pytest.raises(redis.TimeoutError):
        client.incr("held")
    link.release()

    assert client.getdel("held") == b"1"


def test_new_connections_go_to_another_target(link, client):
    link.target = 1  # nothing listens there

    assert client.ping()
    with pytest.raises(redis.ConnectionError), client_of(link) as other:
        other.ping()
