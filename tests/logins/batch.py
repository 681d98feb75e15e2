"""`python -m tests.logins.batch [number]`: the cost of one check of 10,000 logins.

In a temporary SQLite database, for each session engine: the number of queries, the duration of the
check, and the longest time for which the event loop of the process was blocked meanwhile.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
import time

import django
from django.db import connection
from django.test.utils import CaptureQueriesContext

from tests.logins.site import ENGINES
from tests.servers import ROOT


def main(number: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {
            "DJANGO_SETTINGS_MODULE": "tests.sites.logins_settings",
            "LOGINS_FOLDER": folder,
            "LOGINS_ENGINE": "db",
        }
        command = [sys.executable, "manage.py", "migrate", "-v", "0"]
        subprocess.run(command, cwd=ROOT, check=True)
        django.setup()
        from django.conf import settings

        backend = "django.core.cache.backends.locmem.LocMemCache"
        options = {"MAX_ENTRIES": 10 * number}
        settings.CACHES = {"default": {"BACKEND": backend, "OPTIONS": options}}
        users = make_users(number)
        # Django splits queries for SQLite at 999 parameters, which SQLite itself does no more.
        connection.features.__dict__["max_query_params"] = None
        print(f"| {number} logins | queries | check (s) | event loop blocked (ms) |")
        print("|---|---|---|---|")
        for engine in ENGINES:
            measure(engine, users)
        settings.ECHO_AUTHORIZE = "tests.logins.batch.authorize"
        measure("db", users, " with a plain ECHO_AUTHORIZE")
        settings.ECHO_AUTHORIZE = "tests.logins.batch.aauthorize"
        measure("db", users, " with an async ECHO_AUTHORIZE")


def authorize(scope, name, action):
    return scope["user"].is_active


async def aauthorize(scope, name, action):
    return scope["user"].is_active


def make_users(number):
    from django.contrib.auth import get_user_model

    model = get_user_model()
    model.objects.bulk_create(
        [model(username=f"user-{n}", password=f"!{n}") for n in range(number)], batch_size=90
    )
    return list(model.objects.all())


def make_sessions(engine, users):
    from importlib import import_module

    from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
    from django.db import transaction

    store = import_module(f"django.contrib.sessions.backends.{engine}").SessionStore
    sessions = []
    with transaction.atomic():
        for user in users:
            session = store()
            session[SESSION_KEY] = str(user.pk)
            session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
            session[HASH_SESSION_KEY] = user.get_session_auth_hash()
            session.save()
            sessions.append(session)
    return sessions


def measure(engine, users, suffix=""):
    from django.conf import settings

    from echo.counting.logins import find_ended, read_records

    is_plain = not suffix
    settings.SESSION_ENGINE = f"django.contrib.sessions.backends.{engine}"
    if is_plain:
        settings.ECHO_AUTHORIZE = None
    logins = make_logins(users, make_sessions(engine, users))
    with CaptureQueriesContext(connection) as queries:
        ended = find_ended(logins, read_records(logins)) if is_plain else []
    assert ended == []
    seconds, blocked = asyncio.run(check(logins))
    count = len(queries) if is_plain else ""
    print(f"| {engine}{suffix} | {count} | {seconds:.2f} | {blocked * 1000:.0f} |", flush=True)


def make_logins(users, sessions):
    from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY

    from echo.counting.logins import Login
    from echo.groups.connection import GroupConnection

    return [
        Login(
            {"type": "websocket", "user": user, "session": session},
            ("a",),
            GroupConnection(None),
            None,
            user.pk,
            session[HASH_SESSION_KEY],
            session.session_key,
            session[BACKEND_SESSION_KEY],
        )
        for user, session in zip(users, sessions, strict=True)
    ]


async def check(logins):
    """Return the duration of a check in a process, and the longest delay of its event loop."""
    from echo.counting.logins import Logins

    of_loop = Logins()
    of_loop._logins = {login.connection: login for login in logins}
    longest = 0.0

    async def tick():
        nonlocal longest
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.001)
            longest = max(longest, time.perf_counter() - began - 0.001)

    ticking = asyncio.create_task(tick())
    await asyncio.sleep(0.05)
    longest = 0.0
    began = time.perf_counter()
    await of_loop._check()
    seconds = time.perf_counter() - began
    ticking.cancel()
    return seconds, longest


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
