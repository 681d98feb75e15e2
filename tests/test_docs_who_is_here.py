"""docs/tutorial/who-is-here.md, followed step by step on the site of the first tutorial."""

import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, OpenerDirector, build_opener

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests import readme
from tests.browser import new_page
from tests.raw import UPGRADE, Client
from tests.readme import DOCS, run
from tests.redis_server import RedisServer
from tests.servers import ROOT, Server
from tests.waiting import eventually

PAGE = "docs/tutorial/who-is-here.md"
FIRST_SITE = "docs/tutorial/first-site.md"
PASSWORD = "tea-for-two"
STEPS = re.findall(r"^## (.*)$", (DOCS / "tutorial" / "who-is-here.md").read_text(), re.M)[:-1]

Start = Callable[[str], "Site"]


class Site:
    """The site after a step, and its server."""

    def __init__(self, server: Server, folder: Path, environment: dict[str, str]) -> None:
        self.port = server.port
        self.url = f"http://127.0.0.1:{server.port}"
        self._folder = folder
        self._environment = environment

    def run(self, command: str) -> str:
        return run(command, self._folder, **self._environment)

    def log_in(self, name: str) -> OpenerDirector:
        """Return a client that has the session of the user, as a browser would get it."""
        client = build_opener(HTTPCookieProcessor())
        form = client.open(f"{self.url}/").read().decode()
        token = re.search('csrfmiddlewaretoken" value="(.*?)"', form)[1]
        fields = {"username": name, "password": PASSWORD, "csrfmiddlewaretoken": token}
        login = f"{self.url}/accounts/login/?next=/"
        assert client.open(login, urlencode(fields).encode()).url == f"{self.url}/"
        return client

    def connect(self, name: str) -> Client:
        """Return a WebSocket of the user in the lobby."""
        return Client.opened(self.port, path="/chat/lobby/", Cookie=cookie(self.log_in(name)))

    def page(self, client: OpenerDirector) -> str:
        return client.open(f"{self.url}/").read().decode()

    def open(self, browser: Browser, name: str) -> Page:
        """Return the page of the lobby in a browser that has logged in."""
        page = new_page(browser)
        page.goto(self.url)
        page.get_by_label("Username").fill(name)
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        expect(page).to_have_title("Lobby")
        return page


def cookie(client: OpenerDirector) -> str:
    [jar] = [handler.cookiejar for handler in client.handlers if hasattr(handler, "cookiejar")]
    return "; ".join(f"{each.name}={each.value}" for each in jar)


@pytest.fixture(scope="module", autouse=True)
def all_blocks_are_tested(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    assert readme.missing(request, [PAGE]) == []


@pytest.fixture(scope="module")
def first_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site of the first tutorial, up to its server, with the users of this one."""
    folder = tmp_path_factory.mktemp("first")
    run(f"{sys.executable} -m django startproject mysite .", folder)
    (folder / "chat").mkdir()
    for block in readme.BLOCKS:
        if block.page == FIRST_SITE and block.language in ("python", "html"):
            apply(block.language, block.code, folder)
    environment = {"PYTHONPATH": str(ROOT), "DJANGO_SETTINGS_MODULE": "mysite.settings"}
    run("python manage.py migrate -v 0", folder, **environment)
    create, _, runserver = readme.block("sh", "create_user", PAGE).rpartition("python ")
    assert runserver == "manage.py runserver\n"
    run(create, folder, **environment)
    return folder


def apply(language: str, code: str, folder: Path) -> None:
    """Edit the file that the first line names, as the line says."""
    first, rest = code.split("\n", 1)
    name, how = re.match(r"(?:# |// |{# )([\w./]+)(.*)", first).groups()
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    before = file.read_text() if file.exists() else ""
    if "instead of the line" in how:
        start = re.search("`(.*)`", how)[1]
        after = re.sub(rf"^{re.escape(start)}.*\n", rest, before, count=1, flags=re.M)
    elif "above" in how:
        line = re.search("`(.*)`", how)[1]
        after = re.sub(rf"^ *{re.escape(line)}", rest + r"\g<0>", before, count=1, flags=re.M)
    elif "at the end" in how or name == "mysite/settings.py":
        after = before + code
    else:
        after = code
    assert after != before
    file.write_text(after)


@pytest.fixture
def start(first_site: Path, tmp_path: Path, redis_server: RedisServer) -> Iterator[Start]:
    """Apply all steps up to the one whose heading is given, and start the server."""
    redis_server.flush()
    environment = {
        "PYTHONPATH": str(ROOT),
        "DJANGO_SETTINGS_MODULE": "mysite.settings",
        "ECHO_STATE_URL": redis_server.url,
    }
    servers = []

    def start(step: str) -> Site:
        shutil.copytree(first_site, tmp_path, dirs_exist_ok=True)
        text = (ROOT / PAGE).read_text()
        for heading in STEPS[: STEPS.index(step) + 1]:
            section = text.split(f"## {heading}\n")[1].split("\n## ")[0]
            for language, code in re.findall(r"^```(\w+)\n(.*?)^```$", section, re.M | re.S):
                if language in ("python", "html", "js"):
                    readme.seen.add((language, code))
                    apply(language, code, tmp_path)
        servers.append(Server("runserver", folder=tmp_path, **environment))
        return Site(servers[0], tmp_path, environment)

    yield start
    for server in servers:
        server.stop()


def test_page_and_websocket_are_for_users(start: Start) -> None:
    site = start("Let users log in")

    stranger = Client(site.port)
    denied = stranger.ask("/chat/lobby/", UPGRADE)
    stranger.socket.close()
    ada = site.log_in("Ada")

    assert "403" in denied.status_line
    assert "<title>Log in" in site.page(build_opener(HTTPCookieProcessor()))
    assert "people are here" in site.page(ada)
    with Client.opened(site.port, path="/chat/lobby/", Cookie=cookie(ada)) as tab:
        tab.send_text("hello")
        assert tab.text() == "hello"


def test_two_windows_are_one_member(start: Start) -> None:
    site = start("Declare the members")
    tabs = [site.connect(name) for name in ("Ada", "Ada", "Bob")]

    listed = site.run(readme.block("sh", "members()", PAGE))
    tabs[2].socket.close()

    assert listed == readme.block("text", "Ada 2", PAGE)
    eventually(lambda: site.run(readme.block("sh", "members()", PAGE)), "Ada 2\n")


def test_sentence_names_two_and_counts_the_others(start: Start) -> None:
    site = start("Write the sentence")
    eve = site.log_in("Eve")
    sentences = [sentence(site.page(eve))]

    for name in ("Ada", "Bob", "Cleo", "Dan", "Eve"):
        site.connect(name)
        sentences.append(sentence(site.page(eve)))

    assert sentences == [
        "Nobody is here.",
        "Ada is here.",
        "Ada and Bob are here.",
        "Ada, Bob and Cleo are here.",
        "Ada, Bob and 2 others are here.",
        "Ada, Bob and 3 others are here.",
    ]


def sentence(page: str) -> str:
    return re.search("<p>(.*)</p>", page)[1]


def test_text_reaches_all_but_the_sender(start: Start, browser: Browser) -> None:
    site = start("Send to all but the sender")
    ada, bob = site.open(browser, "Ada"), site.open(browser, "Bob")
    tab = site.connect("Ada")

    say(ada, "hello")
    expect(bob.locator("pre")).to_have_text("Ada: hello\n")
    say(bob, "tea?")
    expect(ada.locator("pre")).to_have_text("You: hello\nBob: tea?\n")

    assert [tab.text(), tab.text()] == ["Ada: hello", "Bob: tea?"]
    assert bob.locator("pre").inner_text() == "Ada: hello\nYou: tea?\n"


def say(page: Page, text: str) -> None:
    page.get_by_role("textbox").fill(text)
    page.get_by_role("button", name="Send").click()


def test_list_follows_those_who_come_and_go(start: Start, browser: Browser) -> None:
    site = start("Keep the list up to date")
    ada = site.open(browser, "Ada")

    expect(people(ada)).to_have_text(["Ada"])
    bob = site.connect("Bob")
    expect(people(ada)).to_have_text(["Ada", "Bob"])
    bob.socket.close()
    expect(people(ada)).to_have_text(["Ada"])


def people(page: Page) -> Locator:
    return page.locator(".echo-members li")


def test_typing_is_shown_to_the_others(start: Start, browser: Browser) -> None:
    site = start("Show who is typing")
    ada, bob = site.open(browser, "Ada"), site.open(browser, "Bob")
    expect(people(ada)).to_have_text(["Ada", "Bob"])

    bob.get_by_role("textbox").fill("te")
    expect(ada.locator("#typing")).to_have_text("Bob typing …")
    bob.get_by_role("textbox").fill("")
    expect(ada.locator("#typing")).to_have_text("")
    bob.get_by_role("textbox").fill("tea?")
    expect(ada.locator("#typing")).to_have_text("Bob typing …")
    bob.get_by_role("button", name="Send").click()

    expect(ada.locator("pre")).to_have_text("Bob: tea?\n")
    expect(ada.locator("#typing")).to_have_text("")
    assert bob.locator("#typing").inner_text() == ""


def test_room_is_told_who_comes_and_goes(start: Start) -> None:
    site = start("Say who comes and goes")
    ada = site.connect("Ada")
    assert ada.text() == "Ada has come."

    tabs = [site.connect("Bob") for _ in range(2)]
    assert ada.text() == "Bob has come."
    for tab in tabs:
        tab.socket.close()

    assert ada.text() == "Bob has gone."


def test_log_out_closes_all_windows_of_the_user(start: Start, browser: Browser) -> None:
    site = start("Log out")
    ada = site.open(browser, "Ada")
    other = ada.context.new_page()
    other.goto(site.url)
    site.connect("Bob")

    ada.get_by_role("button", name="Log out").click()

    for page in (ada, other):
        expect(page).to_have_title("Log in")
    assert site.run(readme.block("sh", "members()", PAGE)) == "Bob 1\n"


def test_every_step_is_tested() -> None:
    source: Any = Path(__file__).read_text()

    assert [step for step in STEPS if f'start("{step}")' not in source] == []
