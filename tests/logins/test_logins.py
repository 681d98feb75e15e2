"""Each event that ends a login, on real servers; all cells: `python -m tests.logins`."""

from collections.abc import Iterator

import pytest

from tests.logins.site import (
    COOKIE_AGE,
    ENGINES,
    EVENTS,
    SERVERS,
    Event,
    LoginSite,
    Session,
    measure,
)
from tests.raw import Client
from tests.servers import Server
from tests.waiting import DEADLINE, eventually

RECHECK = {"LOGINS_RECHECK_SECONDS": "0.4"}
NAMES = [event.name for event in EVENTS]
LOGOUT, EXPIRY = EVENTS[0], EVENTS[2]


@pytest.fixture(scope="module")
def two_processes() -> Iterator[LoginSite]:
    with LoginSite("db", SERVERS["two processes"], **RECHECK) as site:
        yield site
        assert "Traceback" not in site.logs()


@pytest.mark.parametrize("event", EVENTS, ids=NAMES)
def test_end_of_login_closes_its_connections_alone(two_processes: LoginSite, event: Event) -> None:
    assert measure(two_processes, event).seconds < DEADLINE / 2


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES[1:])
def test_session_of_each_engine_ends_with_logout_and_age(engine: str) -> None:
    with LoginSite(engine, ("uvicorn",), LOGINS_COOKIE_AGE=str(COOKIE_AGE), **RECHECK) as site:
        for event in (LOGOUT, EXPIRY):
            measure(site, event)

        assert "Traceback" not in site.logs()


def test_logout_does_not_wait_for_a_check() -> None:
    with LoginSite("db", ("daphne",), LOGINS_RECHECK_SECONDS="1000") as site:
        measure(site, LOGOUT)


def test_logout_right_after_the_101_reaches_the_first_login_of_another_process() -> None:
    env = {"LOGINS_RECHECK_SECONDS": "1000"}
    with LoginSite("db", SERVERS["two processes"], **env) as site:
        for _number in range(20):
            session = Session(site, site.new_user())
            session.get("/logout")
            assert session.closing()[1:] == (4401, "Logged out")
            session.client.socket.close()


def test_change_of_the_own_password_closes_connections_of_the_old_session(
    two_processes: LoginSite,
) -> None:
    session = Session(two_processes, two_processes.new_user())

    session.get("/password")

    assert session.closing()[1:] == (4401, "The password has changed")


def test_outage_of_the_database_closes_nobody_and_is_logged_once() -> None:
    with LoginSite("db", ("daphne",), LOGINS_RECHECK_SECONDS="0.1") as site:
        session = Session(site, site.new_user())
        moved = site.database.rename(site.database.with_suffix(".away"))
        site.database.mkdir()  # cannot be opened as a file
        eventually(lambda: "Logins cannot be checked" in site.logs(), True)

        site.database.rmdir()
        moved.rename(site.database)
        eventually(lambda: "Logins are checked again." in site.logs(), True)

        assert session.is_open()
        assert site.logs().count("Logins cannot be checked") == 1
        session.client.socket.close()


def test_users_of_a_model_of_the_own_end_their_logins_as_well() -> None:
    env = {"DJANGO_SETTINGS_MODULE": "tests.sites.own_users_settings", **RECHECK}
    with LoginSite("db", ("uvicorn",), **env) as site:
        for event in EVENTS:
            measure(site, event)

        assert "Traceback" not in site.logs()


def test_site_without_users_ends_logins_by_its_recheck() -> None:
    env = {"DJANGO_SETTINGS_MODULE": "tests.sites.tokens_settings"}
    with (
        Server("daphne", "tests.sites.tokens:application", **env) as server,
        Client.opened(server.port, path="/chat/a/?one") as one,
        Client.opened(server.port, path="/chat/a/?two") as two,
    ):
        server.get("/revoke/one")

        assert one.closing() == (4401, "The login has ended")
        two.send_text("hello")
        assert two.text() == "hello"
        assert "Traceback" not in server.log()
