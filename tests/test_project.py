"""The demo's own settings: what they change of Django's, and no more."""

import json
import os
import subprocess
import sys

from tests.raw import Client, request
from tests.servers import ROOT, Server

# What each logger is set to, once Django has been set up.
TELL_LOGGERS = """
import json, logging, django
django.setup()
own = {"": logging.root, **logging.root.manager.loggerDict}
print(json.dumps({
    name: [logger.level, logger.propagate, logger.disabled, [repr(h) for h in logger.handlers]]
    for name, logger in own.items() if isinstance(logger, logging.Logger)
}))
"""
WITHOUT = "from project.settings import *\nLOGGING = {}\n"


def loggers(**environment: str) -> dict[str, object]:
    command = [sys.executable, "-c", TELL_LOGGERS]
    env = {**os.environ, "DJANGO_SETTINGS_MODULE": "project.settings", **environment}
    told = subprocess.run(command, cwd=ROOT, env=env, check=True, capture_output=True).stdout
    return json.loads(told)


def test_logging_is_djangos_but_for_the_channel_layer(tmp_path) -> None:
    (tmp_path / "without_logging.py").write_text(WITHOUT)
    path = os.pathsep.join([str(tmp_path), str(ROOT)])

    django = loggers(DJANGO_SETTINGS_MODULE="without_logging", PYTHONPATH=path)
    demo = loggers()

    assert demo.pop("channels_redis.pubsub") == [50, True, False, []]
    django.pop("channels_redis.pubsub", None)
    assert demo == django


def test_error_page_of_the_demo_shows_no_password() -> None:
    """Anybody gets it in DEBUG, by a bad Host."""
    url = "redis://:topsecret@127.0.0.1:1/0"
    with Server("daphne", DJANGO_DEBUG="1", ECHO_STATE_URL=url) as server:
        with Client(server.port) as client:
            client.send(request("/", {"Host": "evil.example"}))
            while b"</html>" not in client.buffer:
                client.buffer += client.socket.recv(1 << 16)
        assert b"CHANNEL_LAYERS" in client.buffer
        assert b"topsecret" not in client.buffer
