"""The test kit, used as a site uses it; its end is tried in a pytest of its own."""

import asyncio
import re
import socket
import urllib.request

import pytest
from django.contrib.auth.models import User
from django.test import Client
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidStatus

from echo.objects import connected_objects, get_object
from echo.state import get_state
from tests.servers import ROOT

pytest_plugins = ["pytester"]


@pytest.fixture
def kit_site(settings):
    settings.ASGI_APPLICATION = "tests.sites.kit.application"


def test_connection_is_counted_when_it_is_there_and_not_when_it_is_closed(connect):
    connection = connect("/lobby/websocket")
    assert get_object("lobby").count() == 1

    connection.close()

    assert get_object("lobby").count() == 0


def test_text_is_answered(connect):
    connection = connect("/lobby/websocket")

    connection.send("hello")

    assert connection.recv() == "[Durable Object]: hello"


def test_texts_of_the_site_arrive(connect):
    connection = connect("/lobby/websocket")

    get_object("lobby").send("Tea is ready")

    assert connection.recv() == "Tea is ready"


def test_application_is_the_one_of_the_settings(connect, kit_site):
    connection = connect("/chat/kitchen/")

    connection.send(b"\x00\xff")

    assert connection.recv() == b"\x00\xff"
    assert connected_objects() == {"kitchen": 1}


def test_code_and_reason_of_the_server_are_told(connect, kit_site):
    connection = connect("/chat/kitchen/")
    assert (connection.close_code, connection.close_reason) == (None, None)

    connection.send("4321")
    connection.wait_closed()

    assert (connection.close_code, connection.close_reason) == (4321, "as you said")


def test_code_and_reason_of_the_client_reach_the_server(connect):
    connection = connect("/lobby/websocket")

    connection.close(4000, "bye")

    assert connection.close_code == 4000


def test_what_was_sent_before_the_close_can_be_received_and_then_nothing(connect, kit_site):
    connection = connect("/chat/kitchen/")
    connection.send("last")
    connection.send("4000")
    connection.wait_closed()

    assert connection.recv() == "last"
    with pytest.raises(ConnectionClosed):
        connection.recv()
    with pytest.raises(ConnectionClosed):
        connection.send("too late")


def test_text_that_does_not_come_is_a_timeout(connect, kit_site):
    with pytest.raises(TimeoutError) as raised:
        connect("/chat/kitchen/").recv(timeout=0.25)

    assert str(raised.value) == "Nothing was received in 0.25 s."


def test_connection_that_vanishes_counts_no_more(connect, assert_count):
    connection = connect("/lobby/websocket")

    connection.vanish()

    assert_count("lobby", 0)
    assert connection.close_code == 1006
    with pytest.raises(ConnectionClosedError):
        connection.recv()


def test_connection_ends_with_its_block(connect):
    with connect("/lobby/websocket") as connection:
        assert connection.close_code is None

    assert connection.close_code == 1000
    assert get_object("lobby").count() == 0


def test_refused_handshake_tells_its_answer(connect, kit_site):
    with pytest.raises(InvalidStatus) as refused:
        connect("/refused/kitchen/")

    assert refused.value.response.status_code == 403
    assert connected_objects() == {}


def test_headers_and_subprotocols_are_sent(connect, kit_site):
    assert connect("/chat/kitchen/", subprotocols=["tea", "coffee"]).subprotocol == "tea"
    with pytest.raises(InvalidStatus) as refused:
        connect("/chat/kitchen/", headers={"Origin": "https://evil.example"})
    assert refused.value.response.status_code == 403


def test_hosts_are_checked_as_the_settings_say(connect, settings):
    settings.ALLOWED_HOSTS = [*settings.ALLOWED_HOSTS, "example.com"]

    with pytest.raises(InvalidStatus) as refused:
        connect("/lobby/websocket", headers={"Host": "example.org"})

    assert refused.value.response.status_code == 400
    assert connect("/lobby/websocket", headers={"Host": "example.com"}).close_code is None


def test_settings_of_a_test_hold_in_the_server(connect, settings):
    settings.ECHO_MAX_CONNECTIONS = 1
    connect("/lobby/websocket")

    with pytest.raises(InvalidStatus) as refused:
        connect("/lobby/websocket")

    assert refused.value.response.status_code == 503


def test_server_answers_http_and_has_the_static_files(echo_server, connect):
    connect("/lobby/websocket")

    count = urllib.request.urlopen(f"{echo_server.url}/lobby/getCurrentConnections").read()
    script = urllib.request.urlopen(f"{echo_server.url}/static/echo/live.js").read()

    assert count.startswith(b"There is 1 ")
    assert script == (ROOT / "echo/static/echo/live.js").read_bytes()


async def test_asynchronous_test_has_the_same(connect, assert_count):
    connections = [connect("/lobby/websocket") for _ in range(3)]

    await get_object("lobby").asend("hello")

    assert [connection.recv() for connection in connections] == ["hello"] * 3
    assert await get_object("lobby").acount() == 3
    connections[0].vanish()
    assert_count("lobby", 2)


async def test_asynchronous_test_can_do_something_else_meanwhile(connect):
    connection = connect("/lobby/websocket")

    text, _ = await asyncio.gather(
        asyncio.to_thread(connection.recv), get_object("lobby").asend("hello")
    )

    assert text == "hello"


def test_consumer_and_test_see_one_database(transactional_db, connect, kit_site):
    User.objects.create(username="ada")
    connection = connect("/users/kitchen/")

    connection.send("who?")

    assert connection.recv() == "ada"
    connection.close()
    connection = connect("/users/kitchen/")
    connection.send("who?")
    assert connection.recv() == "ada,left-1000"


def test_database_is_emptied_after_the_last_consumer(connect, transactional_db, kit_site):
    """The order of the arguments does not matter; what the test before left behind is gone."""
    connect("/users/kitchen/")

    assert User.objects.count() == 0


def test_count_that_is_not_reached_is_told_in_a_sentence(connect, assert_count):
    connect("/lobby/websocket")

    with pytest.raises(pytest.fail.Exception) as failure:
        assert_count("lobby", 2, deadline=0.05)

    told = "The count of the object 'lobby' should be 2; after 0.05 s it is 1."
    assert str(failure.value) == told


def test_count_that_is_not_known_is_told_in_a_sentence(assert_count, settings):
    settings.ECHO_STATE_URL = "redis://127.0.0.1:1/0"

    with pytest.raises(pytest.fail.Exception) as failure:
        assert_count("lobby", 0, deadline=0.05)

    told = "The count of the object 'lobby' should be 0; after 0.05 s it is unknown."
    assert str(failure.value) == told


def log_in(name):
    """Return a new user, and the headers of a handshake with the user's session."""
    user, client = User.objects.create_user(name), Client()
    client.force_login(user)
    return user, {"Cookie": f"sessionid={client.cookies['sessionid'].value}"}


def test_members_are_the_users_whose_connections_are_open(
    transactional_db, connect, kit_site, assert_members
):
    ada, session_of_ada = log_in("ada")
    bob, session_of_bob = log_in("bob")
    connections = [connect("/team/lobby/", headers=session_of_ada) for _ in range(2)]
    with connect("/team/lobby/", headers=session_of_bob), connect("/team/lobby/"):
        assert_members("lobby", [bob.pk, str(ada.pk)])

    assert_members("lobby", {ada.pk})
    connections[0].vanish()
    assert_members("lobby", {ada.pk})
    connections[1].close()
    assert_members("lobby", [])


def test_members_that_are_not_there_are_told_in_a_sentence(connect, assert_members, settings):
    with pytest.raises(pytest.fail.Exception) as failure:
        assert_members("lobby", [7, 12], deadline=0.05)

    told = "The list of members of the object 'lobby' should be ['12', '7']; after 0.05 s it is []."
    assert str(failure.value) == told
    settings.ECHO_STATE_URL = "redis://127.0.0.1:1/0"
    with pytest.raises(pytest.fail.Exception, match="it is unknown"):
        assert_members("lobby", [], deadline=0.05)


def test_counts_are_those_of_this_process(connect):
    connect("/lobby/websocket")

    assert get_state().counts() == {"lobby": 1}


CONFTEST = """
import threading

pytest_plugins = ["echo.testing"]


def pytest_unconfigure():
    print("left:", [thread.name for thread in threading.enumerate() if "echo" in thread.name])
"""
TESTS = """
from websockets.sync.client import connect as other_client

from echo.objects import connected_objects

others = []


def test_connections_of_others_may_be_left_open(echo_server, connect):
    connect("/lobby/websocket")
    others.append(other_client(f"ws://127.0.0.1:{echo_server.port}/lobby/websocket"))
    print("port:", echo_server.port)
    assert connected_objects() == {"lobby": 2}


def test_next_test_begins_without_connections():
    assert connected_objects() == {}
    with others[0] as other:
        other.close()
    assert other.close_code == 1012
"""


def test_nothing_is_left_of_a_test_and_of_a_session(pytester, monkeypatch):
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(TESTS)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("DJANGO_ALLOWED_HOSTS", "example.com")  # the kit adds its own

    result = pytester.runpytest_subprocess("-s", "-Werror", "-p", "no:randomly", "-p", "no:asyncio")

    result.assert_outcomes(passed=2)
    told = result.stdout.str()
    assert "left: []" in told
    port = int(re.search(r"port: (\d+)", told)[1])
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
