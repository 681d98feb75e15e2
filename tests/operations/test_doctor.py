"""`manage.py echo_doctor`, run as an operator runs it."""

import json
import os
import re
import socket
import subprocess
import sys

import pytest
import redis

from tests.faults.redis_server import OwnRedis, Sentinel
from tests.raw import Client
from tests.servers import ROOT, Server, free_port
from tests.waiting import DEADLINE, eventually

ALL_OK = [
    *("settings", "static", "state", "totals", "changes", "layer", "handshake", "echo"),
    *("count", "live", "shared count", "message", "close", "count after close"),
]
SETTINGS = "from project.settings import *\n"
ASGI = """
import django
django.setup()
from channels.routing import ProtocolTypeRouter
from django.core.asgi import get_asgi_application
from django.urls import path
from echo.consumers import EchoConsumer
from echo.counting import counted
from echo.routing import as_websocket_application
http = get_asgi_application()
"""


def doctor(*arguments, url="memory://", module="project.settings", folder=ROOT):
    """Return exit code, output and errors."""
    done = subprocess.run(
        [sys.executable, ROOT / "manage.py", "echo_doctor", *arguments],
        cwd=folder,
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": module,
            "ECHO_STATE_URL": url,
            "PYTHONPATH": str(folder),
        },
        capture_output=True,
        timeout=6 * DEADLINE,
        text=True,
    )
    return done.returncode, done.stdout, done.stderr


def findings(*arguments, **how):
    """Return the exit code and the findings, by check."""
    code, output, _ = doctor("--json", *arguments, **how)
    return code, {found["check"]: found for found in json.loads(output)}


@pytest.fixture
def site(tmp_path):
    """A function that makes a site of these settings and of routes, and returns its `how`."""

    def make(settings="", routes=None, middle=""):
        if routes is not None:
            settings += "\nASGI_APPLICATION = 'doctor_asgi.application'\n"
            websocket = f'"websocket": as_websocket_application([{routes}], http=http)'
            asgi = (
                f'{ASGI}{middle}\napplication = ProtocolTypeRouter({{"http": http, {websocket}}})'
            )
            (tmp_path / "doctor_asgi.py").write_text(asgi)
        (tmp_path / "doctor_settings.py").write_text(SETTINGS + settings)
        return {"module": "doctor_settings", "folder": tmp_path}

    return make


def running(how):
    """Return a server of the site that `site` has made."""
    return Server(
        *("daphne", "doctor_asgi:application"),
        folder=how["folder"],
        DJANGO_SETTINGS_MODULE=how["module"],
        PYTHONPATH=f"{how['folder']}{os.pathsep}{ROOT}",
    )


def test_demo_is_in_order():
    code, output, errors = doctor()

    address = re.search(r"http://127.0.0.1:(\d+)", output)
    assert output == (
        "ok       settings: the system checks found no problem.\n"
        "ok       static: the 5 static files are found.\n"
        "ok       state: joined, counted and left in this process (ECHO_STATE_URL is memory://).\n"
        "skipped  layer: CHANNEL_LAYERS is not set: messages stay in their process.\n"
        f"ok       handshake: {address[0]} accepts a WebSocket.\n"
        "ok       echo: the text came back.\n"
        "ok       count: the site counts 1.\n"
        "ok       live: the event stream begins with 1.\n"
        "ok       close: closed with 1000.\n"
        "ok       count after close: the site counts 0.\n"
    )
    assert (code, errors) == (0, "")
    with pytest.raises(ConnectionRefusedError):  # the server has been ended
        socket.create_connection(("127.0.0.1", int(address[1])))


def test_demo_with_redis_is_in_order_and_leaves_no_key(redis_url):
    code, found = findings(url=redis_url)

    assert {check: each["ok"] for check, each in found.items()} == dict.fromkeys(ALL_OK, True)
    assert code == 0
    with redis.Redis.from_url(redis_url) as client:
        # They belong to the database, not to a process.
        assert set(client.keys()) == {b"{echo}:2:meta", b"{echo}:2:totals"}
        assert client.hkeys("{echo}:2:totals") == [b"/epoch"]


def test_wrong_totals_are_repaired_and_named(redis_url):
    with Server("daphne", ECHO_STATE_URL=redis_url) as server, Client.opened(server.port):
        with redis.Redis.from_url(redis_url) as client:
            client.hincrby("{echo}:2:totals", "foo", 2)
            client.hset("{echo}:2:totals", mapping={f"name-{number}": 1 for number in range(9)})

        code, found = findings(url=redis_url)
        again = findings(url=redis_url)[1]["totals"]

    assert (code, found["totals"]["ok"]) == (1, False)
    assert re.fullmatch(
        r"10 totals on Redis were wrong and are repaired: ('\S+': \d instead of \d, ){5}…",
        found["totals"]["message"],
    )
    assert "maxmemory-policy" in found["totals"]["remedy"]
    assert again["ok"] is True


def test_change_feed_that_is_forbidden_is_told(site):
    rights = ("on", ">pass", "~*", "&*", "+@all", "-subscribe")
    with OwnRedis() as server, server.client() as client:
        client.execute_command("ACL", "SETUSER", "mute", *rights)
        url = server.url.replace("//", "//mute:pass@")

        code, found = findings(url=url, **site("CHANNEL_LAYERS = {}"))

    assert (code, found["totals"]["ok"], found["changes"]["ok"]) == (1, True, False)
    assert found["changes"]["message"] == "the change feed has delivered no change in 5 s"
    assert "SUBSCRIBE" in found["changes"]["remedy"]


@pytest.mark.long
@pytest.mark.slow
def test_sentinel_is_in_order(site):
    page = (ROOT / "docs" / "howto" / "many-processes.md").read_text()
    [layers] = re.findall(r"```python\n(CHANNEL_LAYERS = [^`]*sentinels[^`]*)```", page)
    with OwnRedis() as primary, Sentinel(primary) as sentinel:
        eventually(sentinel.primary, primary.port)
        layers = layers.replace("10.0.0.1", "127.0.0.1").replace("26379", str(sentinel.port))

        code, found = findings(url=sentinel.url, **site(layers))

    assert {check: each["ok"] for check, each in found.items()} == dict.fromkeys(ALL_OK, True)
    assert code == 0


def test_core_layer_is_in_order_and_keeps_no_key(site, redis_url):
    core = "channels_redis.core.RedisChannelLayer"
    config = {"default": {"BACKEND": core, "CONFIG": {"hosts": [redis_url]}}}

    _, found = findings(**site(f"CHANNEL_LAYERS = {config}"))

    assert found["layer"]["message"] == "RedisChannelLayer delivers, to all processes"
    with redis.Redis.from_url(redis_url) as client:
        assert client.keys("asgi:group:*") == []


STARVING = """
import asyncio
from channels.layers import InMemoryChannelLayer
class Starving(InMemoryChannelLayer):
    served = None
    async def receive(self, channel):
        self.served = self.served or channel
        if channel != self.served:
            await asyncio.Event().wait()
        return await super().receive(channel)
CHANNEL_LAYERS = {"default": {"BACKEND": "doctor_settings.Starving"}}
"""


def test_layer_that_serves_one_channel_of_a_process_only_is_told(site):
    _, found = findings(**site(STARVING))

    assert found["layer"]["ok"] is False
    assert found["layer"]["message"] == "no message in 5 s"


def test_redis_that_is_away_is_told():
    code, found = findings(url=f"redis://127.0.0.1:{free_port()}/0")

    assert code == 1
    failed = {check for check, each in found.items() if each["ok"] is False}
    assert failed == {"state", "layer", "count"}
    assert found["state"]["remedy"].startswith("Start the Redis of ECHO_STATE_URL")
    assert found["echo"]["ok"] is True


def test_wrong_setting_is_told_and_ends_it():
    code, output, errors = doctor(url="nonsense://x")

    assert code == 1
    assert output.startswith(
        "fails    echo.E002: ECHO_STATE_URL 'nonsense://x' has an unknown scheme"
    )
    assert "README.md" in output.splitlines()[0]
    assert errors == "CommandError: 1 of 2 checks failed.\n"


def test_environment_variable_that_no_setting_reads_is_found(site):
    how = site("ECHO_STATE_URL = 'memory://'")  # a site of one's own need not read it

    code, found = findings(url=f"redis://127.0.0.1:{free_port()}/0", **how)

    assert (code, found["echo.W006"]["ok"]) == (1, False)
    assert "environment variable ECHO_STATE_URL is set" in found["echo.W006"]["message"]
    assert found["echo.W006"]["remedy"].endswith('os.environ.get("ECHO_STATE_URL", "memory://")')


def test_check_that_is_skipped_is_not_among_those_that_could_fail():
    code, output, errors = doctor("--url", f"http://127.0.0.1:{free_port()}")

    assert [line.split()[0] for line in output.splitlines()].count("skipped") == 1
    assert (code, errors) == (1, "CommandError: 1 of 4 checks failed.\n")


def test_question_ends_without_a_full_stop(site):
    code, output, _ = doctor(**site("ECHO_STATE_URI = 'memory://'"))

    line = (
        "fails    echo.E002: ECHO_STATE_URI is not a setting of echo. Did you mean ECHO_STATE_URL? "
    )
    assert (code, output.startswith(f"{line}README.md, ")) == (1, True)


def test_running_site_is_tried_below_its_url():
    with Server("runserver", DJANGO_DEBUG="1") as server:
        code, found = findings("--url", f"http://127.0.0.1:{server.port}/")

        assert (code, server.process.poll()) == (0, None)
    assert found["handshake"]["message"].startswith(f"http://127.0.0.1:{server.port} accepts")
    assert found["count after close"]["ok"] is True


@pytest.mark.long
def test_site_is_tried_over_tls(certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    port = free_port()
    endpoint = f"ssl:{port}:privateKey={certificate[1]}:certKey={certificate[0]}"

    with Server("daphne", options=("--endpoint", endpoint), DJANGO_DEBUG="1"):
        _, found = findings("--url", f"https://localhost:{port}")

    assert found["handshake"]["ok"] and found["echo"]["ok"] and found["close"]["ok"], found


@pytest.mark.long
def test_static_files_that_nobody_serves_are_told():
    with Server("daphne", DJANGO_DEBUG="0") as server:
        code, found = findings("--url", f"http://127.0.0.1:{server.port}")

    assert code == 1
    assert [check for check, each in found.items() if each["ok"] is False] == ["static files"]
    assert found["static files"]["message"].startswith(f"http://127.0.0.1:{server.port}/static/")
    assert "collectstatic" in found["static files"]["remedy"]


def test_site_with_other_counts_is_told(redis_url):
    with Server("runserver", DJANGO_DEBUG="1") as server:
        code, found = findings("--url", f"http://127.0.0.1:{server.port}", url=redis_url)

    assert code == 1
    failed = [check for check, each in found.items() if each["ok"] is False]
    assert failed == ["shared count", "message"]
    assert found["message"]["message"] == "no text of this process arrived in 5 s"


def test_server_that_is_down_is_told():
    code, output, _ = doctor("--url", f"http://127.0.0.1:{free_port()}")

    assert code == 1
    assert re.search(
        r"^fails    server: http://127.*refused.* Check that the server is up", output, re.M
    )
    assert "collectstatic" not in output


def test_url_without_an_echo_route_is_told():
    with Server("daphne") as server:
        code, found = findings("--url", f"http://127.0.0.1:{server.port}/no/such/prefix")

    assert code == 1
    assert found["handshake"]["message"].endswith("/no/such/prefix responds with 200")
    assert found["handshake"]["remedy"].startswith("Check that the URL is the prefix of an echo ")


@pytest.mark.parametrize("url", ["localhost", "http://", "http://localhost:x"])
def test_url_that_is_none_is_refused(url):
    code, _, errors = doctor("--url", url)

    assert code == 2
    assert f"{url!r} is not a URL like http://host:port/prefix." in errors


def test_site_with_a_consumer_of_its_own_is_tried_there_and_sent_no_text(site):
    route = "path('chat/<int:year>/<str:room>/', counted(Own.as_asgi(), by='room'))"
    own = "class Own(EchoConsumer):\n    def reply(self, text): raise ValueError"

    code, found = findings(**site(routes=route, middle=own))

    assert code == 0
    assert re.search(r"/chat/1/echo-doctor-\w+/ accepts", found["handshake"]["message"])
    assert found["echo"]["message"] == "no text is sent to the site's own consumers"
    assert {check: found[check]["ok"] for check in ALL_OK[8:] if check in found} == {
        **{"count": True, "live": True, "close": True, "count after close": True}
    }


def test_consumer_that_refuses_strangers_is_no_failure(site):
    route = "path('chat/<str:room>/', counted(Own.as_asgi(), by='room'))"
    own = """
class Own(EchoConsumer):
    async def __call__(self, scope, receive, send):
        await send({"type": "websocket.close"})
"""

    code, found = findings(**site(routes=route, middle=own))

    assert (code, found["handshake"]["ok"]) == (0, None)
    assert found["handshake"]["message"].endswith("responds with 403 to anonymous clients")


RAISING = """
class Own(EchoConsumer):
    async def __call__(self, scope, receive, send): raise ZeroDivisionError
"""


def test_consumer_that_raises_is_a_failure(site):
    route = "path('chat/<str:room>/', counted(Own.as_asgi(), by='room'))"

    code, found = findings(**site(routes=route, middle=RAISING))

    assert (code, found["handshake"]["ok"]) == (1, False)
    assert re.search(r"/chat/echo-doctor-\w+/ responds with 500$", found["handshake"]["message"])
    assert found["handshake"]["remedy"] == (
        "Run `python -m echo.server doctor_asgi:application`, and read its log."
    )


def test_traceback_of_the_doctors_own_server_is_shown(site):
    route = "path('chat/<str:room>/', counted(Own.as_asgi(), by='room'))"
    how = site(routes=route, middle=RAISING.replace("ZeroDivisionError", "OSError('a://b:pass@c')"))

    _, output, _ = doctor(**how)
    _, found = findings(**how)

    log = found["handshake"]["log"]
    assert "Traceback (most recent call last)" in log
    assert f"{how['folder']}/doctor_asgi.py" in log
    assert "OSError: a://***@c" in log.splitlines()
    assert "         OSError: a://***@c\n" in output
    assert "pass@" not in output


@pytest.mark.long
def test_consumer_that_raises_on_a_running_site_is_a_failure(site):
    route = "path('chat/<str:room>/', counted(Own.as_asgi(), by='room'))"
    how = site(routes=route, middle=RAISING)
    with running(how) as server:
        code, found = findings("--url", f"http://127.0.0.1:{server.port}", **how)

    assert (code, found["handshake"]["ok"]) == (1, False)
    assert found["handshake"]["remedy"] == "Read the log of the server."


def test_proxy_that_takes_the_upgrade_away_from_a_consumer_is_told(site):
    route = "path('chat/<str:room>/', counted(EchoConsumer.as_asgi(), by='room'))"
    how = site(routes=route)
    with Server("daphne", "tests.sites.own_routes:application") as server:  # has no such route
        code, found = findings("--url", f"http://127.0.0.1:{server.port}", **how)

    assert (code, found["handshake"]["ok"]) == (1, False)
    assert found["handshake"]["message"].endswith("/ responds with 404")
    assert found["handshake"]["remedy"] == (
        "Check that the URL leads to the server. A proxy must pass Host, Upgrade, Connection."
    )


def test_class_of_a_consumer_is_told(site):
    route = "path('chat/<str:room>/', counted(EchoConsumer, by='room'))"

    code, found = findings(**site(routes=route))

    sentence = "counted() needs an application: write EchoConsumer.as_asgi()."
    assert code == 1
    assert found["echo.E001"]["message"] == (
        f"ASGI_APPLICATION 'doctor_asgi.application': {sentence}"
    )
    assert found["server"]["message"].endswith(sentence)


CONSOLE = "from echo.routing import console_urlpatterns"


@pytest.mark.long
def test_console_is_not_tried_by_a_client_without_a_login(site):
    how = site("DEBUG = False", "*console_urlpatterns", CONSOLE)

    code, found = findings(**how)

    assert code == 0
    assert found["echo"] == {
        "check": "echo",
        "ok": None,
        "message": "the console needs the permission to list the objects",
        "remedy": "",
        "log": "",
    }


@pytest.mark.long
def test_consumer_of_the_site_is_tried_beside_its_console(site):
    routes = (
        "path('chat/<str:room>/', counted(EchoConsumer.as_asgi(), by='room')), *console_urlpatterns"
    )

    code, found = findings(**site(routes=routes, middle=CONSOLE))

    assert code == 0
    assert "/chat/" in found["handshake"]["message"]
    assert found["count"]["ok"]


OWN_STACK = """
from channels.auth import AuthMiddlewareStack
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
def as_websocket_application(routes, http):
    return AllowedHostsOriginValidator(AuthMiddlewareStack(URLRouter(routes)))
"""


@pytest.mark.long
def test_stack_of_the_sites_own_is_tried_as_by_a_browser(site):
    routes = "path('chat/<str:room>/', counted(AsyncWebsocketConsumer.as_asgi(), by='room'))"
    urls = "\nROOT_URLCONF = 'tests.sites.prefix'"

    code, found = findings(**site(urls, routes, OWN_STACK))

    assert (code, found["handshake"]["ok"]) == (0, True)


@pytest.mark.long
def test_urls_without_the_usage_page_are_found(site, tmp_path):
    (tmp_path / "doctor_urls.py").write_text(
        "from django.urls import include, path\n"
        "from echo.urls import endpoints\n"
        "urlpatterns = [path('below/', include(endpoints))]\n"
    )
    route = "path('chat/<str:room>/', counted(EchoConsumer.as_asgi(), by='room'))"

    code, found = findings(**site("ROOT_URLCONF = 'doctor_urls'", routes=route))

    assert (code, found["count"]["ok"], found["live"]["ok"]) == (0, True, True)


NO_COUNT = "Include echo.urls in the URLconf, and give its prefix if you use --url."


@pytest.mark.long
def test_urls_that_are_forgotten_are_told(site):
    how = site(
        "ROOT_URLCONF = 'echo.operations.urls'",
        "path('chat/<str:room>/', counted(EchoConsumer.as_asgi(), by='room'))",
    )

    code, found = findings(**how)

    assert (code, found["handshake"]["ok"], found["count"]["ok"]) == (1, True, False)
    assert re.fullmatch(
        r"there is no count at http://127\S+/getCurrentConnections \(404\)",
        found["count"]["message"],
    )
    assert found["count"]["remedy"] == NO_COUNT


def test_url_that_is_not_the_prefix_of_the_count_is_told(site):
    """The demo's usage page answers there, with 200."""
    route = "path('chat/<str:room>/', counted(EchoConsumer.as_asgi(), by='room'))"
    how = site(routes=route)
    with running(how) as server:
        code, found = findings("--url", f"http://127.0.0.1:{server.port}/no/prefix", **how)

    assert (code, found["handshake"]["ok"], found["count"]["ok"]) == (1, True, False)
    assert found["count"]["message"].endswith("/getCurrentConnections (200)")
    assert found["count"]["remedy"] == NO_COUNT


MOUNTED = """
from django.urls import include, path

urlpatterns = [path("some/connections/", include("echo.urls"))]
"""
CHAT = "path('chat/<str:room>/', counted(EchoConsumer.as_asgi(), by='room'))"
ECHO = "path('some/connections/<str:name>/websocket', counted(EchoConsumer.as_asgi()))"


@pytest.fixture
def mounted(site):
    """A function that makes a site with these routes and `echo.urls` below a prefix."""

    def make(routes, settings=""):
        how = site(f"ROOT_URLCONF = 'doctor_mounted'\n{settings}", routes)
        (how["folder"] / "doctor_mounted.py").write_text(MOUNTED)
        return how

    return make


@pytest.mark.parametrize("routes", [CHAT, ECHO], ids=["consumer of its own", "echo"])
def test_prefix_of_the_urls_is_found(mounted, routes):
    how = mounted(routes)

    own = findings(**how)
    with running(how) as server:
        url = f"http://127.0.0.1:{server.port}"
        visits = [findings("--url", f"{url}{path}", **how) for path in ("", "/some/connections/")]

    for _, found in (own, *visits):
        tried = {check: found[check]["ok"] for check in ("handshake", "count", "live", "close")}
        assert tried == dict.fromkeys(tried, True), found


@pytest.mark.long
def test_prefix_is_found_below_a_script_name(mounted):
    how = mounted(CHAT, "FORCE_SCRIPT_NAME = '/app'")
    with running(how) as server:
        url = f"http://127.0.0.1:{server.port}"
        visits = [findings("--url", f"{url}{path}", **how)[1] for path in ("", "/app")]

    assert [found["count after close"]["ok"] for found in (findings(**how)[1], *visits)] == [
        True
    ] * 3


CHATTING = "path('chat/<str:room>/', counted(Chat.as_asgi(), by='room'))"
CHAT_CONSUMER = """
from channels.generic.websocket import AsyncWebsocketConsumer
class Chat(AsyncWebsocketConsumer): pass
"""
CORE = """
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.core.RedisChannelLayer",
        "CONFIG": {"hosts": [ECHO_STATE_URL]},
    }
}
"""


@pytest.mark.long
@pytest.mark.parametrize("routes", ["*websocket_urlpatterns", CHATTING], ids=["echo", "chat"])
def test_layer_that_closes_idle_sockets_is_found(site, redis_url, routes):
    """redis-py 8 with the layer of Channels' tutorial."""
    middle = CHAT_CONSUMER + "from echo.routing import websocket_urlpatterns"
    how = site(CORE, routes, middle)

    code, found = findings(url=redis_url, **how)

    closes = int(redis.__version__.split(".")[0]) >= 8
    assert found["handshake"]["ok"] is True
    assert found["idle socket"]["ok"] is not closes
    if closes:
        assert code == 1
        assert '"socket_timeout": None' in found["idle socket"]["remedy"]


LIVE = """
import asyncio
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import include, path

async def silence():
    await asyncio.sleep(60)
    yield ""

def live(request, name):
    return {answer}

urlpatterns = [path("<str:name>/connections/live", live), path("", include("echo.urls"))]
"""


@pytest.mark.parametrize(
    ("answer", "message", "remedy"),
    [
        (
            *("StreamingHttpResponse(silence())", ": no response in 5 s"),
            "Turn off response buffering in the proxy.",
        ),
        ("HttpResponse(status=500)", " responds with 500", "Read the log of the server."),
        (
            *("HttpResponse(status=501)", " responds with 501"),
            "Run the site on an ASGI server.",
        ),
        (
            *("HttpResponse('data: {}\\n\\n')", "expected an event with the count 1, got '{}'"),
            "Wrap the consumer in counted(), and set ECHO_STATE_URL to a Redis for all processes.",
        ),
    ],
)
def test_live_count_that_does_not_come_is_told(site, answer, message, remedy):
    how = site("ROOT_URLCONF = 'doctor_urls'")
    (how["folder"] / "doctor_urls.py").write_text(LIVE.replace("{answer}", answer))

    code, found = findings(**how)

    assert (code, found["count"]["ok"], found["live"]["ok"]) == (1, True, False)
    assert found["live"]["message"].endswith(message)
    assert found["live"]["remedy"] == remedy


def test_site_that_has_the_count_alone_is_in_order(site):
    how = site("ROOT_URLCONF = 'doctor_urls'")
    (how["folder"] / "doctor_urls.py").write_text(
        LIVE.replace("{answer}", "HttpResponse(status=404)")
    )

    code, found = findings(**how)

    assert (code, found["live"]["ok"]) == (0, None)


@pytest.mark.long
@pytest.mark.parametrize(
    "route",
    [
        "re_path(r'chat/(?P<room>\\w+)/', counted(EchoConsumer.as_asgi(), by='room'))",
        "path('chat/', counted(EchoConsumer.as_asgi(), by=lambda scope: 'lobby'))",
        "path('chat/<int:room>/', counted(EchoConsumer.as_asgi(), by='room'))",
    ],
)
def test_route_whose_path_cannot_be_made_up_is_left_alone(site, route):
    code, found = findings(**site(routes=route, middle="from django.urls import re_path"))

    assert code == 0
    assert (found["echo"]["ok"], found["echo"]["message"]) == (None, "the site has no echo route")


@pytest.mark.long
def test_silent_consumer_is_no_failure(site):
    route = "path('<str:name>/websocket', counted(Own.as_asgi()))"
    own = "class Own(EchoConsumer):\n    def reply(self, text): return None"

    code, found = findings(**site(routes=route, middle=own))

    assert (code, found["echo"]["ok"], found["echo"]["message"]) == (
        *(0, None, "the consumer sends no reply"),
    )
    assert (found["close"]["ok"], found["count after close"]["ok"]) == (True, True)


def test_site_without_a_counted_route_is_told(site):
    code, found = findings(**site("ASGI_APPLICATION = 'tests.sites.http_only.application'"))

    assert code == 1
    assert found["echo.W002"]["ok"] is False
    assert found["echo.W002"]["remedy"].startswith("Wrap a consumer:")


def test_plain_application_of_django_is_told_by_its_check_alone(site):
    how = site("ASGI_APPLICATION = 'plain_asgi.application'")
    (how["folder"] / "plain_asgi.py").write_text(
        "from django.core.asgi import get_asgi_application\napplication = get_asgi_application()\n"
    )

    code, found = findings(**how)

    assert code == 1
    assert [check for check, each in found.items() if each["ok"] is False] == ["echo.W002"]
    assert found["echo.W002"]["remedy"].startswith("It is Django's own application")
    assert found["handshake"]["message"] == "ASGI_APPLICATION has no WebSockets"


def test_route_that_does_not_count_is_told(site):
    route = "path('<str:name>/websocket', EchoConsumer.as_asgi())"

    code, found = findings(**site(routes=route))

    assert code == 1
    assert found["count"]["message"] == "expected 200 and 1, got 200 and 0"


@pytest.mark.long
def test_route_that_answers_otherwise_has_no_echo(site):
    route = "path('<str:name>/websocket', counted(Own.as_asgi()))"
    own = "class Own(EchoConsumer):\n    def reply(self, text): return 'é' * 40_000"

    code, found = findings(**site(routes=route, middle=own))

    assert (code, found["echo"]["ok"]) == (0, None)


def test_application_that_raises_is_told(site):
    route = "path('<str:name>/websocket', counted(raising))"
    own = "async def raising(scope, receive, send): raise ZeroDivisionError"

    code, found = findings(**site(routes=route, middle=own))

    assert (code, found["handshake"]["ok"]) == (1, False)
    assert found["handshake"]["message"].endswith("responds with 500")


@pytest.mark.long
def test_application_that_cannot_be_imported_is_told(site):
    code, found = findings(**site("ASGI_APPLICATION = 'no.such.application'"))

    assert code == 1
    assert found["echo.E001"]["ok"] is False
    assert found["server"]["message"] == "ModuleNotFoundError: No module named 'no'"
    assert found["server"]["remedy"] == (
        "Run `python -m echo.server no.such:application`, and read its output."
    )
    assert found["server"]["log"].endswith("ModuleNotFoundError: No module named 'no'")


@pytest.mark.long
def test_site_behind_a_tls_proxy_is_tried_as_by_the_proxy(site):
    settings = """
SECURE_SSL_REDIRECT = True
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
ALLOWED_HOSTS = [".example.com"]
"""
    code, found = findings(**site(settings))

    assert (code, found["count"]["ok"]) == (0, True)


def test_permission_that_is_asked_for_is_no_failure(site):
    code, found = findings(**site("ECHO_AUTHORIZE = 'doctor_authorize.nobody'"))

    assert code == 1  # no such function
    (site()["folder"] / "doctor_authorize.py").write_text("def nobody(*asked): return False")
    code, found = findings(**site("ECHO_AUTHORIZE = 'doctor_authorize.nobody'"))
    assert (code, found["echo"]["ok"]) == (0, None)


@pytest.mark.long
def test_static_files_that_are_missing_are_told(site):
    code, found = findings(**site("STATICFILES_FINDERS = []"))

    assert (code, found["static"]["ok"]) == (1, False)
    assert found["static"]["message"] == "echo/usage.css is not found"


@pytest.mark.long
def test_static_files_that_are_not_in_the_manifest_are_told(site):
    settings = """
DEBUG = False
STATIC_ROOT = BASE_DIR / "no-such-folder"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "django.contrib.staticfiles.storage.ManifestStaticFilesStorage",
    },
}
"""

    code, found = findings(**site(settings))

    assert (code, found["static"]["ok"]) == (1, False)
    assert found["static"]["message"] == "Missing staticfiles manifest entry for 'echo/usage.css'"
    assert "collectstatic" in found["static"]["remedy"]


@pytest.mark.long
@pytest.mark.parametrize(
    ("kind", "options", "ok"),
    [("daphne", (), True), ("uvicorn", ("--http", "h11"), True), ("uvicorn", (), None)],
)
def test_server_that_takes_long_headers_is_named(kind, options, ok):
    with Server(kind, options=options) as server:
        _, found = findings("--url", f"http://127.0.0.1:{server.port}")

    assert found["headers"]["ok"] is ok
    assert ("--http h11" in found["headers"]["remedy"]) is (ok is None)
