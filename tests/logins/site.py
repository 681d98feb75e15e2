"""A site with logins, in one process or two, and the events that end a login."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.cookies import SimpleCookie
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from tests.raw import Client
from tests.redis_server import RedisServer
from tests.servers import ROOT, Server
from tests.waiting import DEADLINE

APPLICATION = "tests.sites.logins:application"
ENGINES = ("db", "cached_db", "cache", "file", "signed_cookies")
SERVERS = {  # the kinds of the processes
    "Daphne": ("daphne",),
    "uvicorn": ("uvicorn",),
    "two processes": ("daphne", "uvicorn"),
    "stock Daphne": ("stock-daphne",),
    "stock uvicorn": ("stock-uvicorn",),
}
COOKIE_AGE = 3  # seconds, of signed cookies that expire


class Session:
    """A session of a user, and its connection, which is in the last process."""

    def __init__(self, site: "LoginSite", username: str) -> None:
        self.site = site
        status, headers, _ = site.servers[0].get(f"/login/{username}")
        assert status == 200, site.servers[0].log()
        self.cookie = f"sessionid={SimpleCookie(headers['set-cookie'])['sessionid'].value}"
        self.client = Client.opened(site.servers[-1].port, path="/chat/a/", Cookie=self.cookie)

    def get(self, path: str) -> None:
        """Send a request to the first process."""
        status, _, _ = self.site.servers[0].get(path, Cookie=self.cookie)
        assert status == 200, self.site.servers[0].log()

    def is_open(self) -> bool:
        self.client.send_text("hello")
        return self.client.text() == "hello"

    def closing(self) -> tuple[float, int | None, str]:
        """Wait for the Close; return when it came (time.monotonic()), code and reason."""
        code, reason = self.client.closing()
        return time.monotonic(), code, reason


class LoginSite:
    """Servers of `tests.sites.logins` on one database; with Redis if there are several."""

    def __init__(self, engine: str, kinds: tuple[str, ...], **env: str) -> None:
        self.engine = engine
        self.has_reasons = kinds != ("stock-daphne",)
        self.servers: list[Server] = []
        self._users = 0
        self._stack = ExitStack()
        try:
            self._start(kinds, env)
        except BaseException:
            self._stack.close()
            raise

    def _start(self, kinds: tuple[str, ...], env: dict[str, str]) -> None:
        folder = Path(self._stack.enter_context(TemporaryDirectory()))
        self.database = folder / "db.sqlite3"
        environment = {
            "DJANGO_SETTINGS_MODULE": "tests.sites.logins_settings",
            "LOGINS_FOLDER": str(folder),
            "LOGINS_ENGINE": self.engine,
            "PYTHONWARNINGS": "error",
            **env,
        }
        if len(kinds) > 1:
            redis = self._stack.enter_context(RedisServer())
            environment["ECHO_STATE_URL"] = redis.url
        command = [sys.executable, "manage.py", "migrate", "--run-syncdb", "-v", "0"]
        subprocess.run(command, cwd=ROOT, check=True, env={**os.environ, **environment})
        for kind in kinds:
            server = Server(kind, APPLICATION, **environment)
            self.servers.append(self._stack.enter_context(server))

    def __enter__(self) -> "LoginSite":
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def new_user(self) -> str:
        self._users += 1
        return f"user-{self._users}"

    def logs(self) -> str:
        return "".join(server.log() for server in self.servers)


class Event(NamedTuple):
    name: str
    happen: Callable[[Session, str], object]  # of the first session and the username
    code: int
    reason: str
    ends_both: bool  # sessions of the user, or the first only


def _change(what: str) -> Callable[[Session, str], object]:
    return lambda session, username: session.get(f"/change/{username}/{what}")


def needs_short_cookies(event: "Event", engine: str) -> bool:
    return engine == "signed_cookies" and event.happen is _expire


def _expire(session: Session, username: str) -> None:
    if session.site.engine != "signed_cookies":  # whose cookie has an age instead
        session.get("/expire")


EVENTS = (
    Event("logout", lambda session, _: session.get("/logout"), 4401, "Logged out", False),
    Event("async logout", lambda session, _: session.get("/alogout"), 4401, "Logged out", False),
    Event("session expiry", _expire, 4401, "The session has ended", False),
    Event("password change", _change("password"), 4401, "The password has changed", True),
    Event("deactivation", _change("deactivate"), 4401, "The user is not active", True),
    Event("deletion", _change("delete"), 4401, "The user is not active", True),
    Event(
        "permission withdrawn",
        _change("withdraw"),
        4403,
        "You may not connect to this object",
        True,
    ),
)


class Outcome(NamedTuple):
    seconds: float  # from the response of the event until the Close, of the last session to close
    code: int


def measure(site: LoginSite, event: Event) -> Outcome:
    """Let the event happen; fail unless exactly the connections of the ended logins are closed."""
    username = site.new_user()
    first = Session(site, username)
    if needs_short_cookies(event, site.engine):
        time.sleep(COOKIE_AGE / 2)  # so that the second session is younger
    second, other = Session(site, username), Session(site, site.new_user())
    began = time.monotonic()
    with ThreadPoolExecutor(2) as threads:
        ended = [first, second] if event.ends_both else [first]
        closings = [threads.submit(each.closing) for each in ended]
        event.happen(first, username)
        for closing in closings:
            _, *found = closing.result(DEADLINE)
            assert found == [event.code, event.reason if site.has_reasons else ""], found
        seconds = max(closing.result()[0] for closing in closings) - began
    assert event.ends_both or second.is_open()
    assert other.is_open()
    for session in (first, second, other):
        session.client.socket.close()
    return Outcome(max(seconds, 0.0), event.code)
