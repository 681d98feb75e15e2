"""German is complete, and what the original says is said in English in every language."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from gettext import GNUTranslations
from html import unescape
from pathlib import Path

import django
import pytest
from django.contrib.auth.models import User
from django.test import Client as HTTPClient
from pytest_django import Settings

from echo.consumers import PREFIX, REASON
from echo.views import UPGRADE_EXPECTED, USAGE
from tests.raw import CLOSE, UPGRADE, Client, close_payload, frame
from tests.servers import ROOT, Server, free_port

GERMAN = "locale/de/LC_MESSAGES/django"
HTML = {"Accept": "text/html", "Accept-Language": "de"}
CONTEXT_END = "\x04"  # between context and text, in a .mo


def catalog(file: Path) -> dict[object, str]:
    """Return the translations of a .mo file, by text, or by text and number of the plural."""
    with file.open("rb") as stream:
        found = dict(GNUTranslations(stream)._catalog)  # type: ignore[attr-defined]
    del found[""]
    return found


OURS = catalog(ROOT / "echo" / f"{GERMAN}.mo")
OF_DJANGO = catalog(Path(django.__file__).parent / "contrib" / "admin" / f"{GERMAN}.mo")
# English texts that are nothing else, and would be seen on a page that is not all German.
SENTENCES = [
    text
    for text, translation in OURS.items()
    if isinstance(text, str)
    and text.count(" ") > 1
    and not set("%{<") & set(text)
    and text != translation
]


@pytest.fixture
def german(settings: Settings) -> None:
    settings.LANGUAGE_CODE = "de"
    middleware = settings.MIDDLEWARE
    settings.MIDDLEWARE = [*middleware[:2], "django.middleware.locale.LocaleMiddleware"]
    settings.MIDDLEWARE += middleware[2:]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    database = tmp_path_factory.mktemp("site") / "db.sqlite3"
    env = {
        "DJANGO_SETTINGS_MODULE": "tests.sites.german",
        "DJANGO_DEBUG": "1",
        "ECHO_TEST_DATABASE": str(database),
    }
    with Server("daphne", **env) as server:
        yield server


def gettext(*command: str) -> str:
    """Run a tool of the package gettext, and return what it prints."""
    if shutil.which(command[0]) is None:
        missing = pytest.fail if os.environ.get("CI") else pytest.skip
        missing("The package gettext is not installed.")
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_german_has_every_text_of_the_code_and_no_other(tmp_path: Path) -> None:
    gettext("xgettext", "--version")
    shutil.copytree(ROOT / "echo", tmp_path / "echo")
    subprocess.run(
        [sys.executable, "-m", "django", "makemessages", "-l", "de", "-v", "0"],
        cwd=tmp_path / "echo",
        env={key: os.environ[key] for key in os.environ if key != "DJANGO_SETTINGS_MODULE"},
        check=True,
    )
    file = str(tmp_path / "echo" / f"{GERMAN}.po")

    assert gettext("msgattrib", "--untranslated", file) == ""
    assert gettext("msgattrib", "--only-fuzzy", file) == ""
    assert gettext("msgattrib", "--only-obsolete", file) == ""


def test_compiled_german_is_that_of_the_texts(tmp_path: Path) -> None:
    compiled = tmp_path / "django.mo"

    gettext("msgfmt", "--check-format", "-o", str(compiled), str(ROOT / "echo" / f"{GERMAN}.po"))

    assert catalog(compiled) == OURS


def test_texts_of_other_apps_are_left_to_them() -> None:
    """Echo stands above a site's own apps: its words would be theirs, but for the context."""
    texts = {text if isinstance(text, str) else text[0] for text in OURS}
    short = {text for text in texts if len(text.split()) < 3 and CONTEXT_END not in text}
    foreign = {text: OF_DJANGO[text] for text in texts if text in OF_DJANGO}

    assert foreign == {text: OURS[text] for text in foreign}
    assert {text for text in short - set(foreign) if text.isalpha()} == set()


@pytest.mark.usefixtures("german")
def test_answers_of_the_original_are_english_in_every_language(client: HTTPClient) -> None:
    def told(path: str) -> str:
        return client.get(path, headers={"Accept-Language": "de"}).content.decode()

    none = "There are 0 WebSocket clients connected to this Durable Object instance."
    assert told("/getCurrentConnections") == told("/foo/getCurrentConnections") == none
    assert told("/websocket").splitlines()[0] == UPGRADE_EXPECTED
    assert told("/nowhere") == USAGE


def test_websockets_of_the_original_speak_english_in_every_language(site: Server) -> None:
    with Client.opened(site.port, **{"Accept-Language": "de"}) as client:
        client.send_text("Grüße")
        assert client.text() == f"{PREFIX}Grüße"
        one = site.get("/getCurrentConnections", Accept_Language="de")[2]
        assert one == "There is 1 WebSocket client connected to this Durable Object instance."
        client.send(frame(CLOSE, close_payload(4001, "tschüss")))
        assert client.closing() == (4001, REASON)


def test_visitors_get_the_page_in_their_own_language(site: Server) -> None:
    german = site.get("/", Accept="text/html", Accept_Language="de-AT,de;q=0.9")[2]
    english = site.get("/", Accept="text/html", Accept_Language="en")[2]

    assert "Jetzt verbundene Objekte" in german
    assert "Objects connected now" in english


@pytest.mark.usefixtures("german")
def test_usage_page_is_all_german(client: HTTPClient, settings: Settings) -> None:
    settings.DEBUG = True
    html = unescape(client.get("/", headers=HTML).content.decode())
    settings.ECHO_STATE_URL = f"redis://127.0.0.1:{free_port()}/0"
    without_redis = unescape(client.get("/", headers=HTML).content.decode())

    assert '<html lang="de"' in html
    assert "Kein Objekt hat jetzt eine Verbindung." in html
    assert "Die Anzahlen sind im Moment nicht bekannt: Redis antwortet nicht." in without_redis
    assert [text for text in SENTENCES if text in html + without_redis] == []


@pytest.mark.usefixtures("german", "db")
def test_operators_pages_are_all_german(client: HTTPClient, settings: Settings) -> None:
    client.force_login(User.objects.create_user("staff", is_staff=True))

    def html() -> str:
        queries = ("", "object/?name=foo", "close/?name=foo&code=1000", "close/?name=foo&code=7")
        queries += tuple(f"{page}/?name=foo&member=7&code=1000" for page in ("member", "close"))
        pages = [client.get(f"/admin/echo/object/{query}", headers=HTML) for query in queries]
        return unescape("".join(page.content.decode() for page in pages))

    pages = html()
    assert "Verbindungen jetzt:" in pages
    assert ">0<" in pages and ", nur in diesem Prozess." in pages
    assert "Bitte 1000 oder einen eigenen Code von 3000 bis 4999 verwenden." in pages
    settings.ECHO_STATE_URL = f"redis://127.0.0.1:{free_port()}/0"
    pages += html()
    assert [text for text in SENTENCES if text in pages] == []


def test_refused_handshakes_are_german(site: Server) -> None:
    with Client(site.port) as client:
        answer = client.ask("/foo/websocket", {**UPGRADE, "Origin": "https://elsewhere.example"})

    assert answer.status_line == "HTTP/1.1 403 Forbidden"
    assert answer.body.decode() == "WebSockets von anderen Ursprüngen werden abgelehnt."


@pytest.mark.usefixtures("german")
def test_refusals_are_german(client: HTTPClient, settings: Settings) -> None:
    def told(path: str) -> tuple[int, str]:
        response = client.get(path, headers={"Accept-Language": "de"})
        return response.status_code, response.content.decode()

    assert told("/a%0Ab/getCurrentConnections") == (
        400,
        r"Der Name 'a\nb' enthält ein Steuerzeichen.",
    )
    settings.ECHO_AUTHORIZE = "tests.test_admin.nobody"
    refused = "Sie dürfen die Anzahl dieses Objekts nicht sehen."
    assert told("/foo/getCurrentConnections") == (403, refused)
    without_asgi = "Laufende Anzahlen brauchen einen Server, der ASGI spricht; dieser spricht WSGI."
    assert told("/foo/connections/live") == (501, without_asgi)
