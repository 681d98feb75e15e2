"""The commands, as an operator runs them: beside a server, in a process of their own."""

import asyncio
import json
import os
import re
import subprocess
import sys

import pytest
from channels.layers import BaseChannelLayer
from django.core.management import CommandError

from echo.management.base import ObjectCommand
from echo.state.redis.state import RedisState
from tests.faults.processes import say_goodbye
from tests.faults.redis_server import OwnRedis
from tests.raw import Client
from tests.servers import ROOT, Server
from tests.waiting import DEADLINE, eventually

NO_STATE = (
    "CommandError: ECHO_STATE_URL is memory://: the counts are in the memory of the server, which "
    "no other process can read. Set ECHO_STATE_URL to a Redis, here and for the server.\n"
)
NO_LAYER = (
    "CommandError: CHANNEL_LAYERS has no layer that reaches other processes, and this command has "
    "no connections. Set it to channels_redis.pubsub.RedisPubSubChannelLayer.\n"
)


def run(*arguments, url="memory://"):
    """Return exit code, output and errors of a command of the demo."""
    done = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "project.settings", "ECHO_STATE_URL": url},
        capture_output=True,
        timeout=3 * DEADLINE,
        text=True,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def url():
    with OwnRedis() as server:
        yield server.url


@pytest.fixture(scope="module")
def server(url):
    with Server("daphne", ECHO_STATE_URL=url) as server:
        yield server


@pytest.fixture
def connected(server):
    """Connections of three objects."""
    clients = [Client.opened(server.port, name) for name in ("foo", "foo", "bar", "%C3%A9t%C3%A9")]
    yield clients
    for client in clients:
        say_goodbye(client)


def test_counts_are_shown_by_name(connected, url):
    assert run("echo_counts", url=url) == (0, "       1  bar\n       2  foo\n       1  été\n", "")


@pytest.mark.parametrize(
    ("arguments", "counts"),
    [
        ([], {"bar": 1, "foo": 2, "été": 1}),
        (["foo"], {"foo": 2}),
        (["été", "nobody"], {"été": 1, "nobody": 0}),
        (["--prefix", "f"], {"foo": 2}),
        (["--prefix", "g"], {}),
    ],
)
def test_counts_as_json(connected, url, arguments, counts):
    code, output, errors = run("echo_counts", "--json", *arguments, url=url)

    assert (code, json.loads(output), errors) == (0, counts, "")


@pytest.fixture
def members(url):
    """Connections of a process with members in two objects."""
    state = RedisState(url, 3.0, 1.0)
    joined = [("tea", ("7", '{"name":"été\x85"}')), ("tea", ("7", '{"name":"Ada\u202e"}'))]
    joined += [("tea", ("a/b", "{}")), ("milk", None)]

    async def join_all():
        for name, member in joined:
            await state.join(name, member=member)

    asyncio.run(join_all())
    yield
    state.close()


def test_members_are_shown_below_their_objects(members, url):
    code, output, errors = run("echo_counts", "--members", "tea", "milk", url=url)

    lines = [re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "<since>", x) for x in output.splitlines()]
    assert (code, errors) == (0, "")
    assert lines == [
        "       3  tea",
        '               2  <since>  7  {"name": "Ada\\u202e"}',
        "               1  <since>  a/b  {}",
        "       1  milk",
    ]


def test_members_as_json_are_those_of_the_view(members, url):
    code, output, errors = run("echo_counts", "--members", "--json", "--prefix", "t", url=url)

    found = json.loads(output)
    since = [member.pop("since")[-1] for member in found["tea"]["members"]]
    assert (code, errors, since) == (0, "", ["Z", "Z"])
    members = [
        {"key": "7", "info": {"name": "Ada\u202e"}, "connections": 2},
        {"key": "a/b", "info": {}, "connections": 1},
    ]
    assert found == {"tea": {"name": "tea", "connections": 3, "members": members}}


def test_counts_without_connections_say_so(connected, url):
    told = run("echo_counts", "--prefix", "nobody", url=url)

    assert told == (0, "", "No object has a connection now.\n")


def test_text_is_sent_to_all_connections_of_the_object(server, url):
    with Client.opened(server.port, "room") as one, Client.opened(server.port, "room") as two:
        assert run("echo_send", "room", "Hello, été", url=url) == (0, "", "")

        assert (one.text(), two.text()) == ("Hello, été", "Hello, été")
        one.send_text("still here")
        assert one.text() == "[Durable Object]: still here"


def test_all_connections_of_the_object_are_closed(server, url):
    with Client.opened(server.port, "hall") as one, Client.opened(server.port, "lounge") as other:
        told = run("echo_close", "hall", "--code", "4001", "--reason", "Enough", url=url)

        assert told == (0, "", "")
        assert one.closing() == (4001, "Enough")
        eventually(lambda: server.count("hall"), 0)
        other.send_text("hello")
        assert other.text() == "[Durable Object]: hello"


def test_connections_are_closed_with_1000_by_default(server, url):
    with Client.opened(server.port, "cellar") as one:
        assert run("echo_close", "cellar", url=url) == (0, "", "")

        assert one.closing() == (1000, "")


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (["echo_counts"], NO_STATE),
        (["echo_counts", "foo", "--json"], NO_STATE),
        (["echo_send", "foo", "text"], NO_LAYER),
        (["echo_close", "foo"], NO_LAYER),
    ],
)
def test_command_that_could_reach_nobody_says_so(command, sentence):
    assert run(*command) == (1, "", sentence)


@pytest.mark.parametrize("command", [["echo_counts"], ["echo_send", "-"], ["echo_close"]])
def test_name_that_none_can_have_is_refused(url, command):
    name = "a/b"
    arguments = [command[0], name, *(["text"] if command[0] == "echo_send" else [])]

    told = run(*arguments, url=url)

    assert told == (1, "", "CommandError: The name 'a/b' has a slash.\n")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--code", "1005"], "1005 may not be sent; use 1000, or 3000 to 4999 of your own."),
        (["--reason", "x" * 124], f"The reason '{'x' * 124}' has more than 123 bytes of UTF-8."),
    ],
)
def test_close_frame_that_cannot_be_is_refused(url, options, sentence):
    told = run("echo_close", "foo", *options, url=url)

    assert told == (1, "", f"CommandError: {sentence}\n")


@pytest.mark.parametrize(
    "command", [["echo_counts"], ["echo_counts", "foo"], ["echo_send", "foo", "x"]]
)
def test_redis_that_is_away_is_one_line(command):
    with OwnRedis() as server:
        server.stop()
        code, output, errors = run(*command, url=server.url)

    assert (code, output) == (1, "")
    (line,) = errors.splitlines()
    assert line.startswith("CommandError: ")


def test_channel_layer_that_fails_is_told_in_its_words():
    with OwnRedis() as server:
        server.stop()
        told = run("echo_send", "foo", "x", url=server.url)[2].splitlines()[-1]

    assert told.startswith("CommandError: Channel layer error: Error 111 connecting to ")


class OtherLayer(BaseChannelLayer):
    pass


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError("redis://user:secret@host:1/0 is away"), "redis://***@host:1/0 is away"),
        (ConnectionResetError(), "ConnectionResetError"),
    ],
)
def test_channel_layer_error_is_shown_without_a_password(settings, error, words):
    class Failing(ObjectCommand):
        def act(self, target, options):
            raise error

    settings.CHANNEL_LAYERS = {"default": {"BACKEND": "tests.management.test_commands.OtherLayer"}}

    with pytest.raises(CommandError) as raised:
        Failing().handle(name="foo")

    assert str(raised.value) == f"Channel layer error: {words}"


@pytest.mark.parametrize("count", [1, 20_000])
def test_counts_end_quietly_where_nobody_reads_them(url, count):
    """Many are written at once, few at the end of the process."""
    names = [f"an-object-{number}" for number in range(count)]
    command = [sys.executable, "manage.py", "echo_counts", *names]
    reads, writes = os.pipe()
    os.close(reads)

    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "project.settings", "ECHO_STATE_URL": url},
        stdout=writes,
        stderr=subprocess.PIPE,
        timeout=3 * DEADLINE,
    )

    os.close(writes)
    assert (done.returncode, done.stderr) == (0, b"")


def test_redis_that_has_just_started_is_waited_for():
    with OwnRedis() as server:
        told = run("echo_counts", "foo", url=server.url)

    assert told == (0, "       0  foo\n", "")


@pytest.mark.parametrize(
    "command", [("echo_send", "foo", "x"), ("echo_close", "foo"), ("echo_doctor",)]
)
@pytest.mark.parametrize("password", ["se/cret", "se#cret", "se?cret", "se@cret/x"])
def test_password_of_a_malformed_layer_is_not_shown(command, password, tmp_path):
    layer = {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {"hosts": [f"redis://:{password}@127.0.0.1:1/0"]},
    }
    (tmp_path / "malformed.py").write_text(
        f"from project.settings import *\nCHANNEL_LAYERS = {{'default': {layer!r}}}\n"
    )
    done = subprocess.run(
        [sys.executable, "manage.py", *command],
        cwd=ROOT,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "malformed", "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=6 * DEADLINE,
    )

    told = done.stdout + done.stderr
    assert done.returncode == 1
    assert "a URL is malformed" in told
    assert "cret" not in told.replace("secrets", "")
    assert "'se" not in told
