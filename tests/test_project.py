"""The demo's own settings: what they change of Django's, and no more."""

import json
import os
import subprocess
import sys

from tests.servers import ROOT

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
