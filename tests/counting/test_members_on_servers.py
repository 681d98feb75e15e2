"""The members of a room in two processes, on real servers, with sessions."""

import json
import os
import subprocess
import sys
from contextlib import ExitStack

import pytest
from websockets.exceptions import ConnectionClosed

from echo.testing import ClientWebSocket
from tests.servers import ROOT, Server
from tests.waiting import DEADLINE, eventually

SITE = "tests.sites.member_chat:application"
SETTINGS = {"DJANGO_SETTINGS_MODULE": "tests.sites.matrix_settings", "PYTHONWARNINGS": "error"}


class Two:
    """Two processes of the site."""

    def __init__(self, servers):
        self.servers = servers
        self.sessions = {}
        for name in ("ada", "bob"):
            self.sessions[name] = json.loads(servers[0].get(f"/login/{name}")[2])

    def lists(self, room="lobby"):
        """Return connections, number of members, and connections of each, in both processes."""
        return [json.loads(each.get(f"/members/{room}")[2])[:3] for each in self.servers]

    def infos(self, room="lobby"):
        return [json.loads(each.get(f"/members/{room}")[2])[3] for each in self.servers]

    def open(self, number, user=None, room="lobby", kind="chat"):
        headers = {"Cookie": f"sessionid={self.sessions[user]}"} if user else {}
        url = f"ws://127.0.0.1:{self.servers[number].port}/{kind}/{room}/"
        return ClientWebSocket(url, headers)


@pytest.fixture(scope="module")
def database_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("members") / "db.sqlite3"
    environment = {**os.environ, **SETTINGS, "MATRIX_LAYER": "none", "MATRIX_DATABASE": str(file)}
    command = [sys.executable, "manage.py", "migrate", "-v", "0"]
    subprocess.run(command, cwd=ROOT, check=True, env=environment)
    return file


@pytest.fixture(scope="module", params=[("daphne", "core"), ("uvicorn", "pubsub")])
def two(request, database_file, redis_server):
    redis_server.flush()
    kind, layer = request.param
    environment = {"MATRIX_LAYER": layer, "MATRIX_DATABASE": str(database_file)}
    environment |= {"MATRIX_REDIS_URL": redis_server.url, "ECHO_STATE_URL": redis_server.url}
    with ExitStack() as stack:
        servers = [
            stack.enter_context(Server(kind, SITE, **SETTINGS, **environment)) for _ in range(2)
        ]
        for server in servers:
            eventually(lambda server=server: server.get("/members/lobby")[0], 200)
        yield Two(servers)
        for server in servers:
            assert "Traceback" not in server.log()


def test_each_list_is_right_when_the_client_reads_its_101_and_the_reply_to_its_close(two):
    wrong = 0
    for number in range(60):
        user = ("ada", "bob", None)[number % 3]
        socket = two.open(number % 2, user)
        wrong += two.lists() != [[1, int(user is not None), {user: 1} if user else {}]] * 2
        socket.close()
        wrong += two.lists() != [[0, 0, {}]] * 2

    assert wrong == 0


def test_tabs_in_both_processes_are_one_member(two):
    with ExitStack() as tabs:
        for number, user in ((0, "ada"), (1, "ada"), (1, "bob"), (0, None)):
            tabs.enter_context(two.open(number, user))

        assert two.lists() == [[4, 2, {"ada": 2, "bob": 1}]] * 2
        with two.open(0, "ada"):
            assert two.lists() == [[5, 2, {"ada": 3, "bob": 1}]] * 2
        assert two.lists() == [[4, 2, {"ada": 2, "bob": 1}]] * 2
    assert two.lists() == [[0, 0, {}]] * 2


@pytest.mark.parametrize("kind", ["chat", "sync"])
def test_text_reaches_all_but_the_sender_in_both_processes(two, kind):
    with (
        two.open(0, "ada", kind=kind) as sender,
        two.open(0, "ada") as tab,
        two.open(1, "ada") as other,
        two.open(1) as visitor,
    ):
        sender.send("hello")
        assert [each.recv(DEADLINE) for each in (tab, other, visitor)] == ["hello"] * 3

        tab.send("from the tab")
        assert [each.recv(DEADLINE) for each in (sender, other)] == ["from the tab"] * 2


def test_text_and_close_reach_one_member_in_both_processes(two):
    with two.open(0, "ada") as first, two.open(1, "ada") as second, two.open(1, "bob") as bob:
        key = 1  # ada was created first
        two.servers[0].get(f"/send/lobby/hello/{key}")
        assert [each.recv(DEADLINE) for each in (first, second)] == ["hello"] * 2

        two.servers[1].get(f"/close/lobby/{key}")
        for socket in (first, second):
            with pytest.raises(ConnectionClosed):
                socket.recv(DEADLINE)
            assert (socket.close_code, socket.close_reason) == (4401, "Logged out")
        eventually(two.lists, [[1, 1, {"bob": 1}]] * 2)

        two.servers[0].get(f"/send/lobby/still here/{key + 1}".replace(" ", "%20"))
        assert bob.recv(DEADLINE) == "still here"


@pytest.mark.parametrize("kind", ["chat", "sync"])
def test_info_is_merged_in_both_processes(two, kind):
    with two.open(0, "ada", kind=kind) as first, two.open(1, "ada") as second, two.open(1) as other:
        first.send('{"typing": true}')
        assert first.recv(DEADLINE) == "True"
        second.send('{"away": 1}')
        assert second.recv(DEADLINE) == "True"
        other.send('{"away": 1}')
        assert other.recv(DEADLINE) == "False"

        assert two.infos() == [{"ada": {"name": "ada", "typing": True, "away": 1}}] * 2
