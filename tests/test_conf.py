import os
import subprocess
import sys

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from echo.conf import NAMES, conf, problems, require_no_problem
from echo.exceptions import StateUnavailable
from echo.state import get_state
from tests.raw import Client
from tests.servers import ROOT, Server

WRONG = [
    ("ECHO_DEFAULT_OBJECT", 7, "ECHO_DEFAULT_OBJECT 7 is not a string."),
    ("ECHO_DEFAULT_OBJECT", None, "ECHO_DEFAULT_OBJECT None is not a string."),
    (
        "ECHO_DEFAULT_OBJECT",
        "a/b",
        "ECHO_DEFAULT_OBJECT 'a/b': The name 'a/b' has a slash.",
    ),
    (
        "ECHO_DEFAULT_OBJECT",
        "",
        "ECHO_DEFAULT_OBJECT '': A name has 1 to 128 bytes of UTF-8; this one has 0.",
    ),
    ("ECHO_DEFALT_OBJECT", "foo", "ECHO_DEFALT_OBJECT is not a setting of echo. Did you mean"),
    ("ECHO_X", "foo", "ECHO_X is not a setting of echo. The settings are ECHO_DEFAULT_OBJECT, EC"),
    (
        "ECHO_STATE_URL",
        "mysql://db",
        "ECHO_STATE_URL 'mysql://db' has an unknown scheme; expected",
    ),
    (
        "ECHO_VACATED_DELAY",
        -1,
        "ECHO_VACATED_DELAY -1 is not a number of seconds of at least 0.",
    ),
    (
        "ECHO_STATE_URL",
        "redis://host/0?decode_responses=true",
        "ECHO_STATE_URL 'redis://host/0?decode_responses=true' has the option decode_responses, "
        "which is not supported; expected memory://",
    ),
    (
        "ECHO_STATE_URL",
        "redis://host:63x79/0",
        "ECHO_STATE_URL 'redis://***' is malformed (in a password, write %2F %3F",
    ),
    (
        "ECHO_STATE_URL",
        "redis://user:12?rest-of-the-password@host",
        "ECHO_STATE_URL 'redis://***' is malformed (in a password, write %2F %3F",
    ),
    (
        "ECHO_STATE_URL",
        "redis://host:6379/first",
        "ECHO_STATE_URL 'redis://host:6379/first' has a database that is not a number (in a",
    ),
    (
        "ECHO_STATE_URL",
        "redis+sentinel://host:26379,other:26379",
        "ECHO_STATE_URL 'redis+sentinel://host:26379,other:26379' has no service, as in "
        "redis+sentinel://host:26379/mymaster/0; expected memory://",
    ),
    (
        "ECHO_STATE_URL",
        "redis+sentinel://host:26379/mymaster/first",
        "ECHO_STATE_URL 'redis+sentinel://host:26379/mymaster/first' has a database that is not a",
    ),
    (
        "ECHO_STATE_URL",
        "redis+sentinel://host:63x79,other:26379/mymaster",
        "ECHO_STATE_URL 'redis+sentinel://***' is malformed (in a password, write %2F %3F",
    ),
    ("ECHO_HEARTBEAT_SECONDS", "1", "ECHO_HEARTBEAT_SECONDS '1' is not a number of seconds great"),
    ("ECHO_MAX_CONNECTIONS", "5", "ECHO_MAX_CONNECTIONS '5' is not a positive integer or"),
    ("ECHO_MAX_CONNECTIONS", True, "ECHO_MAX_CONNECTIONS True is not a positive integer or"),
    ("ECHO_MAX_CONNECTIONS", [5], "ECHO_MAX_CONNECTIONS [5] is not a positive integer or"),
    ("ECHO_MAX_CONNECTIONS", len, "ECHO_MAX_CONNECTIONS <built-in function len> is not a pos"),
    ("ECHO_MAX_CONNECTIONS", {"ip-": 0}, "ECHO_MAX_CONNECTIONS['ip-'] 0 is not a positive"),
    ("ECHO_MAX_CONNECTIONS", {"": "5"}, "ECHO_MAX_CONNECTIONS[''] '5' is not a positive"),
    ("ECHO_MAX_CONNECTIONS", {7: 5}, "The prefix 7 in ECHO_MAX_CONNECTIONS is not a string."),
    ("ECHO_MAX_CONNECTIONS", "no.such", "ECHO_MAX_CONNECTIONS 'no.such' cannot be imported: "),
    ("ECHO_MAX_CONNECTIONS", "math.pi", "ECHO_MAX_CONNECTIONS 'math.pi' is not a function."),
    ("ECHO_TRUSTED_PROXIES", "10.0.0.0/8", "ECHO_TRUSTED_PROXIES '10.0.0.0/8' is not a list."),
    ("ECHO_TRUSTED_PROXIES", ["proxy"], "ECHO_TRUSTED_PROXIES ['proxy']: 'proxy' does not appear"),
    ("ECHO_TRUSTED_PROXIES", [None], "ECHO_TRUSTED_PROXIES [None]: 'None' does not appear to be"),
    ("ECHO_MAX_MEMBERS_SHOWN", 0, "ECHO_MAX_MEMBERS_SHOWN 0 is not a positive integer or None."),
    ("ECHO_DRAIN_SECONDS", -1, "ECHO_DRAIN_SECONDS -1 is not a number of seconds of at least 0."),
    ("ECHO_DRAIN_SECONDS", "5", "ECHO_DRAIN_SECONDS '5' is not a number of seconds of at least 0."),
    ("ECHO_ALLOWED_ORIGINS", None, "ECHO_ALLOWED_ORIGINS None is not a list of origins like"),
    ("ECHO_ALLOWED_ORIGINS", [7], "ECHO_ALLOWED_ORIGINS [7] is not a list of origins like"),
    ("ECHO_WEBSOCKET_DEFLATE", 1, "ECHO_WEBSOCKET_DEFLATE 1 is not True or False."),
    ("ECHO_DEFLATE_MIN_SIZE", "1024", "ECHO_DEFLATE_MIN_SIZE '1024' is not a number of bytes of"),
    ("ECHO_DEFLATE_MIN_SIZE", 125, "ECHO_DEFLATE_MIN_SIZE 125 is not a number of bytes of at"),
    ("ECHO_STATE_URL", None, "ECHO_STATE_URL None is not a string; expected memory://"),
]

STATE = ("ECHO_STATE_URL", "ECHO_LEASE_SECONDS", "ECHO_HEARTBEAT_SECONDS")
SECRET = "s3cret"
WITH_PASSWORD = [
    f"redis://:{SECRET}",
    f"redis://me:{SECRET}#x@host/0",
    f"redis://me:{SECRET}?x@host/0",
    f"redis://:{SECRET}/x@host",
    f"redis://me:123/{SECRET}@host/0",
    f"redis://me:123{SECRET}",
    f"redis://[{SECRET}",
    f"redis://me:x@host:{SECRET}/0",
    f"redis://host/0?decode_responses=1&password={SECRET}",
    f"redis+sentinel://me:{SECRET}@host:1,other:2",
    f"redis+sentinel://:{SECRET},other:2/mymaster/0",
    f"mysql://me:{SECRET}@host/0",
    f"mysql://:{SECRET}@host",
    f"mysql://me:{SECRET}@@/x@host",
    f"mysql://me:{SECRET}\n@host",
    f"mysql:me:{SECRET}@host",
    f"me:{SECRET}@host",
    f"mysql://host/0?password={SECRET}",
    [f"mysql://me:{SECRET}@host"],
    f"mysql://me:{SECRET}@host".encode(),
]


def test_settings_without_any_of_ours_are_right():
    assert problems() == []
    assert (conf.ECHO_DEFAULT_OBJECT, conf.ECHO_STATE_URL) == ("foo", "memory://")


@pytest.mark.parametrize("end", ["", "/", "/0", "/0?socket_keepalive=true"])
def test_url_of_sentinel_is_valid(settings, end):
    settings.ECHO_STATE_URL = f"redis+sentinel://me:{SECRET}@host:1,[::1]:2,other/mymaster{end}"

    assert problems() == []


@pytest.mark.parametrize(("name", "value", "message"), WRONG)
def test_wrong_setting_is_told_in_one_sentence(settings, name, value, message):
    setattr(settings, name, value)

    (problem,) = problems()

    assert problem.startswith(message)


@pytest.mark.parametrize(("name", "value", "message"), [w for w in WRONG if w[0] in STATE])
async def test_wrong_setting_of_the_state_leaves_counts_unknown(
    settings, caplog, name, value, message
):
    setattr(settings, name, value)

    assert await get_state().join("foo")
    get_state().leave("foo")

    for read in (get_state().counts, lambda: get_state().count("foo")):
        with pytest.raises(StateUnavailable) as raised:
            read()
        assert str(raised.value) == problems()[0]
    (record,) = caplog.records
    assert (
        record.getMessage() == f"Counts are unknown, connections are not affected: {problems()[0]}"
    )


@pytest.mark.parametrize(("name", "value", "message"), [w for w in WRONG if w[0] not in STATE])
def test_wrong_setting_stops_the_use_of_the_state_in_the_same_words(settings, name, value, message):
    setattr(settings, name, value)

    with pytest.raises(ImproperlyConfigured) as raised:
        get_state()

    assert str(raised.value) == problems()[0]


@pytest.mark.parametrize(("name", "value", "message"), [w for w in WRONG if w[0] in NAMES])
def test_wrong_value_is_told_in_the_same_words_by_its_property(settings, name, value, message):
    setattr(settings, name, value)

    with pytest.raises(ImproperlyConfigured) as raised:
        getattr(conf, name)

    assert str(raised.value) == problems()[0]


def test_every_problem_is_told_and_the_first_is_raised(settings):
    settings.ECHO_DEFAULT_OBJECT = 7
    settings.ECHO_STATE_URL = 7

    with pytest.raises(ImproperlyConfigured) as raised:
        require_no_problem()

    assert len(problems()) == 2
    assert str(raised.value) == problems()[0]


@pytest.mark.parametrize("url", WITH_PASSWORD)
def test_password_of_the_state_url_is_never_shown(settings, url):
    settings.ECHO_STATE_URL = url

    (problem,) = problems()

    assert SECRET not in problem


def test_state_is_the_same_until_a_setting_of_ours_changes():
    state = get_state()

    with override_settings(ECHO_DEFAULT_OBJECT="bar"):
        other = get_state()

    assert get_state() is get_state()
    assert len({id(state), id(other), id(get_state())}) == 3


def test_state_stays_when_another_setting_changes():
    state = get_state()

    with override_settings(LANGUAGE_CODE="de"):
        assert get_state() is state


def test_setting_that_changes_is_seen_at_once(settings):
    settings.ECHO_DEFAULT_OBJECT = "bar"

    assert conf.ECHO_DEFAULT_OBJECT == "bar"


@pytest.mark.parametrize(
    "url", ["redis://host:63x79/0", "mysql://db", "redis://127.0.0.1:1/0?nonsense=1"]
)
def test_site_runs_on_with_a_state_that_cannot_be_used(url):
    with Server("daphne", ECHO_STATE_URL=url) as server:
        statuses = [server.get("/foo/getCurrentConnections")[0] for _ in range(3)]
        with Client.opened(server.port) as client:
            client.send_text("hello")
            assert client.text() == "[Durable Object]: hello"
        page = server.get("/", Accept="text/html")[0]

    assert (statuses, page) == ([503] * 3, 200)


@pytest.mark.parametrize("kind", ["daphne", "stock-uvicorn"])
def test_site_runs_on_where_the_packages_of_redis_are_missing(kind):
    env = {"DJANGO_SETTINGS_MODULE": "tests.sites.without_redis", "ECHO_STATE_URL": "redis://h/0"}
    with Server(kind, **env) as server:
        status = server.get("/foo/getCurrentConnections")[0]
        with Client.opened(server.port) as client:
            client.send_text("hello")
            assert client.text() == "[Durable Object]: hello"
        page = server.get("/", Accept="text/html")[0]
        log = server.log()

    assert (status, page) == (503, 200)
    assert log.count("needs the package redis (the extra [redis])") == 1
    assert log.count("Cannot import BACKEND 'channels_redis.pubsub.RedisPubSubChannelLayer'") == 1
    assert "Traceback" not in log


@pytest.mark.parametrize("command", [["echo_counts"], ["echo_send", "foo", "x"], ["echo_doctor"]])
def test_commands_tell_that_the_packages_of_redis_are_missing(command):
    settings = "tests.sites.without_redis"
    done = subprocess.run(
        [sys.executable, "manage.py", *command, "--settings", settings],
        cwd=ROOT,
        env={**os.environ, "ECHO_STATE_URL": "redis://h/0"},
        capture_output=True,
        text=True,
    )

    assert done.returncode == 1
    assert "needs the package redis (the extra [redis])" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def limit_of(name):
    return None if name == "hall" else len(name)


LIMITS = {"user-": 20, "user-admin-": None, "ip-": 100}


@pytest.mark.parametrize(
    ("value", "limits"),
    [
        (None, {"foo": None}),
        (7, {"foo": 7, "user-1": 7}),
        ({}, {"foo": None}),
        (LIMITS, {"foo": None, "user": None, "user-1": 20, "user-admin-1": None, "ip-::": 100}),
        ({**LIMITS, "": 5}, {"foo": 5, "user-1": 20, "user-admin-1": None}),
        ("tests.test_conf.limit_of", {"foo": 3, "hall": None}),
    ],
)
def test_limit_is_that_of_the_longest_prefix_or_of_the_function(settings, value, limits):
    settings.ECHO_MAX_CONNECTIONS = value

    assert {name: conf.max_connections(name) for name in limits} == limits
    assert problems() == []


@pytest.mark.parametrize("value", [0, True, "5", 1.5])
def test_wrong_limit_of_the_function_is_an_error(settings, monkeypatch, value):
    settings.ECHO_MAX_CONNECTIONS = "tests.test_conf.limit_of"
    monkeypatch.setattr("tests.test_conf.limit_of", lambda name: value)

    with pytest.raises(ImproperlyConfigured, match=r"ECHO_MAX_CONNECTIONS for 'foo'"):
        conf.max_connections("foo")
