"""`manage.py echo_doctor --user`, with a database and sessions of its own."""

import json
import os
import sqlite3
import subprocess
import sys

import pytest

from tests.servers import ROOT
from tests.waiting import DEADLINE

ASGI = """
import django
django.setup()
from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application
from echo.routing import websocket_urlpatterns
websockets = URLRouter(websocket_urlpatterns)  # without sessions and logins
application = ProtocolTypeRouter({"http": get_asgi_application(), "websocket": websockets})
"""


class Site:
    def __init__(self, folder, redis_url):
        self.database = folder / "db.sqlite3"
        (folder / "doctor_settings.py").write_text(
            "from project.settings import *\n"
            f"DATABASES['default']['NAME'] = {str(self.database)!r}\n"
        )
        self._environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "doctor_settings",
            "DJANGO_SECRET_KEY": "of this site and of the doctor",
            "DJANGO_SUPERUSER_PASSWORD": "s3cr3t",
            "ECHO_STATE_URL": redis_url,
            "PYTHONPATH": str(folder),
        }

    def manage(self, *arguments, **environment):
        return subprocess.run(
            [sys.executable, ROOT / "manage.py", *arguments],
            env=self._environment | environment,
            capture_output=True,
            timeout=6 * DEADLINE,
            text=True,
        ).stdout

    def logout(self, *arguments, **environment):
        """Return the doctor's finding about the logout."""
        output = self.manage("echo_doctor", "--json", *arguments, **environment)
        return {found["check"]: found for found in json.loads(output)}["logout"]

    def sessions(self):
        connection = sqlite3.connect(self.database)
        [(number,)] = connection.execute("SELECT count(*) FROM django_session").fetchall()
        connection.close()
        return number


@pytest.fixture
def site(tmp_path, redis_url):
    site = Site(tmp_path, redis_url)
    site.manage("migrate", "-v", "0")
    site.manage("createsuperuser", "--noinput", "--username", "ada", "--email", "")
    return site


def test_logout_is_tried_for_the_user_that_is_named(site):
    tried = site.logout("--user", "ada")

    assert tried["ok"] is True
    assert tried["message"].startswith("closed with 4401 after 0.")
    assert site.sessions() == 0
    assert site.logout("--user", "bob")["message"] == "there is no active user 'bob'"


def test_logout_is_not_tried_without_a_layer_between_processes(site):
    tried = site.logout("--user", "ada", ECHO_STATE_URL="memory://")

    assert tried["ok"] is None
    assert tried["message"] == "the channel layer does not reach the server's process"


@pytest.mark.long
def test_logout_that_cannot_be_tried_is_a_failure_without_a_traceback(site):
    with sqlite3.connect(site.database) as database:
        database.execute("UPDATE auth_user SET is_active = 0")
    inactive = site.logout("--user", "ada")
    with sqlite3.connect(site.database) as database:
        database.execute("UPDATE auth_user SET is_active = 1")
        database.execute("DROP TABLE django_session")
    without_table = site.logout("--user", "ada")
    database.close()

    assert (inactive["ok"], without_table["ok"]) == (False, False)
    assert inactive["message"] == "there is no active user 'ada'"
    assert "no such table: django_session" in without_table["message"]


@pytest.mark.long
def test_connection_that_a_logout_leaves_open_is_a_failure(site, tmp_path):
    (tmp_path / "doctor_asgi.py").write_text(ASGI)
    with (tmp_path / "doctor_settings.py").open("a") as settings:
        settings.write("ASGI_APPLICATION = 'doctor_asgi.application'\n")

    tried = site.logout("--user", "ada")

    assert tried["ok"] is False
    assert tried["message"] == "the connection of 'ada' is still open after 5 s"
    assert "AuthMiddlewareStack" in tried["remedy"]
    assert site.sessions() == 0
