"""The usage page in a real browser, on `manage.py runserver`."""

import re
import time
from collections.abc import Callable, Iterator

import django
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from echo.consumers import REASON
from tests.browser import new_page
from tests.pages import IMAGE, LONG, LOW_CONTRASTS, WIDTHS, connect, log, table
from tests.raw import Client
from tests.servers import Server
from tests.waiting import SECOND, eventually

# A connection that stays open beside the console's, until the page goes.
CONNECT = """url => new Promise(resolve => {
  const socket = new WebSocket(url);
  socket.onopen = () => resolve(true);
})"""
NOT_UP_TO_DATE = "(not up to date)"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server("runserver", DJANGO_DEBUG="1") as server:
        yield server


Open = Callable[..., Page]


@pytest.fixture
def open_page(browser: Browser) -> Open:
    """Return a function that opens the usage page of a server, with options of the browser."""

    def open_page(server: Server, **options: object) -> Page:
        page = new_page(browser, **options)
        page.goto(f"http://127.0.0.1:{server.port}/")
        return page

    return open_page


@pytest.fixture
def page(open_page: Open, server: Server) -> Iterator[Page]:
    """The page of a server without connections, and none of it left behind."""
    eventually(lambda: "No object has a connection now." in get_page(server), True)
    return open_page(server)


def get_page(server: Server) -> str:
    return server.get("/", Accept="text/html")[2]


def test_console_connects_and_shows_the_echo_of_a_text(page: Page, server: Server) -> None:
    connect(page)
    page.get_by_label("Text").fill("Hello")
    page.get_by_role("button", name="Send").click()

    eventually(lambda: log(page, "received"), ["[Durable Object]: Hello"])
    assert log(page, "opened") == [f"ws://127.0.0.1:{server.port}/foo/websocket"]
    assert log(page, "sent") == ["Hello"]


def test_table_follows_the_console(page: Page) -> None:
    connect(page)
    eventually(lambda: table(page), [["foo", "1"]])

    page.get_by_role("button", name="Close").click()

    eventually(lambda: table(page), [["No object has a connection now."]])


def test_console_shows_the_code_and_reason_that_came_back(page: Page) -> None:
    connect(page)
    page.get_by_label("Code").fill("4001")
    page.get_by_label("Reason").fill("bye")

    page.get_by_role("button", name="Close").click()

    eventually(lambda: log(page, "closed"), [f"code 4001, “{REASON}”, clean"])
    assert log(page, "waiting") == []


def test_console_tells_the_rule_for_a_code_that_browsers_do_not_send(page: Page) -> None:
    connect(page)
    page.get_by_label("Code").fill("1001")

    page.get_by_role("button", name="Close").click()

    rule = "Browsers close with code 1000 or 3000 to 4999, and a reason of at most 123 bytes."
    eventually(lambda: log(page, "error"), [rule])
    assert log(page, "closed") == []


def test_console_connects_again_after_a_close(page: Page) -> None:
    connect(page)
    page.get_by_role("button", name="Close").click()
    eventually(lambda: len(log(page, "closed")), 1)

    connect(page, "bar")

    eventually(lambda: ["bar", "1"] in table(page), True)


def test_refused_handshake_is_told_in_words(page: Page) -> None:
    connect(page, "x" * 129)

    refused = (
        "No connection: the server rejected the handshake. Browsers do not show the reason. "
        "Names have 1 to 128 bytes, no slash and no control characters."
    )
    eventually(lambda: log(page, "error"), [refused])
    assert log(page, "closed") == []


@pytest.mark.parametrize("name", ["", "a/b", ".", ".."])
def test_form_refuses_a_name_that_no_path_can_have(page: Page, name: str) -> None:
    connect(page, name)

    assert page.get_by_role("textbox", name="Object").evaluate("input => input.matches(':invalid')")
    assert page.get_by_role("textbox", name="Object").is_enabled()


def test_table_that_cannot_be_had_stays_and_is_told_in_words(page: Page, server: Server) -> None:
    page.route(page.url, lambda route: route.fulfill(status=503, body="The counts are unknown."))

    connect(page)

    stale = "The table could not be refreshed: the server responded with status 503."
    eventually(lambda: log(page, "error"), [stale])
    assert table(page) == [["No object has a connection now."]]


def test_server_that_ends_is_told_in_words(open_page: Open) -> None:
    with Server("runserver", DJANGO_DEBUG="1") as server:
        page = open_page(server)
        connect(page)
        eventually(lambda: table(page), [["foo", "1"]])

    away = "The server does not respond. The table shows the last known counts."
    eventually(lambda: (len(log(page, "closed")), log(page, "error")), (1, [away]))

    page.get_by_role("button", name="Connect").click()

    eventually(lambda: log(page, "error"), [away, away])
    assert len(log(page, "closed")) == 1
    assert page.get_by_role("button", name="Connect").is_enabled()


def test_console_connects_again_to_a_server_that_restarts(
    open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Server("runserver", DJANGO_DEBUG="1") as server:
        page = open_page(server)
        connect(page, "lobby")
        eventually(lambda: len(log(page, "opened")), 1)
        port = server.port
        page.get_by_role("textbox", name="Object").evaluate("field => { field.value = 'other'; }")
        page.get_by_label("Code").focus()
    eventually(lambda: len(log(page, "closed")), 1)
    monkeypatch.setattr("tests.servers.free_port", lambda: port)
    with Server("runserver", DJANGO_DEBUG="1") as server:
        eventually(lambda: len(log(page, "opened")), 2)

        eventually(lambda: table(page), [["lobby", "1"]])
        assert log(page, "opened") == [f"ws://127.0.0.1:{port}/lobby/websocket"] * 2
        assert log(page, "closed") == ["code 1012, “Service Restart”, clean"]
        first = log(page, "waiting")[0]
        assert re.fullmatch(r"The server is restarting\. Connecting again in [01] s\.", first)
        expect(page.get_by_label("Code")).to_be_focused()  # where the user was
        page.get_by_role("button", name="Close").click()
        eventually(lambda: len(log(page, "closed")), 2)
        number = len(log(page, "waiting"))

    assert page.get_by_role("button", name="Connect").is_enabled()
    assert len(log(page, "waiting")) == number


def test_console_waits_longer_after_each_attempt_until_the_user_stops_it(open_page: Open) -> None:
    with Server("runserver", DJANGO_DEBUG="1") as server:
        page = open_page(server)
        page.evaluate("Math.random = () => 0.9")
        connect(page)
        eventually(lambda: len(log(page, "opened")), 1)
        server.process.kill()
        eventually(lambda: len(log(page, "waiting")), 3)
        attempts: list[str] = []
        page.on("websocket", lambda socket: attempts.append(socket.url))

        page.get_by_role("button", name="Close").click()
        page.wait_for_timeout(4000 * SECOND)  # milliseconds; the attempt was due after 3.6 s

    assert log(page, "closed") == [
        "code 1006, no reason, not clean: cut off without a closing handshake"
    ]
    assert log(page, "waiting") == [
        "The connection was cut off. Connecting again in 1 s.",
        "No connection yet. Connecting again in 2 s.",
        "No connection yet. Connecting again in 4 s.",
        "Stopped: not connecting again.",
    ]
    assert attempts == []
    expect(page.get_by_role("textbox", name="Object")).to_be_focused()
    assert page.get_by_role("button", name="Close").is_disabled()


@pytest.mark.parametrize("name", [IMAGE, "\u202eevil", "%2F?#", LONG])
def test_names_of_strangers_are_shown_as_text(page: Page, name: str) -> None:
    connect(page, name)

    eventually(lambda: table(page), [[name, "1"]])
    assert page.locator("img").count() == 0
    count = page.request.get(page.get_by_role("link", name=name).evaluate("link => link.href"))
    assert count.text().startswith("There is 1 WebSocket client connected")


@pytest.mark.parametrize("name", ["\u200b", "\ufeff"])
def test_name_that_cannot_be_seen_has_a_link_that_can_be_clicked(page: Page, name: str) -> None:
    connect(page, name)
    eventually(lambda: table(page), [[name, "1"]])

    page.locator("tbody a").click()

    assert page.inner_text("body").startswith("There is 1 WebSocket client connected")


def test_spaces_of_names_and_texts_are_all_shown(page: Page) -> None:
    connect(page, "two  spaces")
    page.get_by_label("Text").fill("a  b")
    page.get_by_role("button", name="Send").click()

    eventually(lambda: log(page, "received"), ["[Durable Object]: a  b"])
    eventually(lambda: table(page), [["two  spaces", "1"]])  # the texts as they are rendered


def test_console_without_its_script_says_so(open_page: Open, server: Server) -> None:
    said = "The script of the console did not load"
    page = open_page(server)
    expect(page.get_by_text(said)).to_have_count(0)

    for files in ("**/echo/usage.js", "**/static/**"):
        page.route(files, lambda route: route.abort())
        page.reload()
        expect(page.get_by_text(said)).to_be_visible()


def test_page_is_right_without_javascript(open_page: Open, page: Page, server: Server) -> None:
    connect(page, IMAGE)
    eventually(lambda: table(page), [[IMAGE, "1"]])

    still = open_page(server, java_script_enabled=False)

    assert table(still) == [[IMAGE, "1"]]
    assert still.locator("noscript p").is_visible()
    assert not still.locator("#echo-unscripted").is_visible()
    assert not still.get_by_role("button", name="Connect").is_visible()


def test_page_works_under_a_strict_content_security_policy(page: Page, server: Server) -> None:
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))

    def add_policy(route: Route) -> None:
        answer = route.fetch()
        policy = {"content-security-policy": "default-src 'self'"}
        route.fulfill(response=answer, headers={**answer.headers, **policy})

    # A page that Playwright has changed belongs to no network: it may not call this one unasked.
    page.context.grant_permissions(["local-network-access"])
    page.route(f"http://127.0.0.1:{server.port}/", add_policy)
    page.reload()
    connect(page)
    page.get_by_label("Text").fill("Hello")
    page.keyboard.press("Enter")

    eventually(lambda: log(page, "received"), ["[Durable Object]: Hello"])
    eventually(lambda: table(page), [["foo", "1"]])
    assert complaints == []


def complaints_of(page: Page) -> list[str]:
    """Return a list that gets what the browser's console says from now on."""
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    return complaints


@pytest.fixture(scope="module")
def nonce_server() -> Iterator[Server]:
    site = {"DJANGO_SETTINGS_MODULE": "tests.sites.nonce", "DJANGO_DEBUG": "1"}
    with Server("runserver", **site) as server:
        yield server


def test_live_number_and_console_run_under_a_policy_of_nonces(
    open_page: Open, nonce_server: Server
) -> None:
    page = open_page(nonce_server)
    complaints = complaints_of(page)
    response = page.goto(f"{page.url}page")
    assert "script-src 'nonce-" in response.headers["content-security-policy"]
    with Client.opened(nonce_server.port):
        expect(page.locator("p")).to_have_text("1 people are here.")
    expect(page.locator("p")).to_have_text("0 people are here.")

    page.go_back()
    connect(page)
    page.get_by_label("Text").fill("Hello")
    page.get_by_role("button", name="Send").click()

    eventually(lambda: log(page, "received"), ["[Durable Object]: Hello"])
    eventually(lambda: table(page), [["foo", "1"]])
    expect(page.get_by_text("did not run")).to_have_count(0)
    # The admin's own pages, which are the base of this one, have nonces since Django 6.1.
    ours = complaints if django.VERSION >= (6, 1) else [c for c in complaints if "/echo/" in c]
    assert ours == []


def block(page: Page, server: Server, policy: str) -> None:
    """Let the pages of the server have another policy."""

    def replace_policy(route: Route) -> None:
        response = route.fetch()
        headers = {**response.headers, "content-security-policy": policy}
        route.fulfill(response=response, headers=headers)

    page.route(re.compile(f"http://127.0.0.1:{server.port}/(page)?$"), replace_policy)


@pytest.mark.parametrize("policy", ["script-src 'none'", "script-src 'none'; style-src 'none'"])
def test_what_cannot_be_kept_fresh_says_so(
    open_page: Open, nonce_server: Server, policy: str
) -> None:
    page = open_page(nonce_server)
    root = page.url
    block(page, nonce_server, policy)

    page.goto(f"{root}page")
    expect(page.get_by_text("(not up to date)")).to_be_visible()
    assert page.locator("p").inner_text() == "0 (not up to date) people are here."
    page.goto(root)
    expect(page.get_by_text("The table is not updated: its script")).to_be_visible()


def test_mark_of_a_number_takes_no_room_while_its_script_is_awaited(
    open_page: Open, nonce_server: Server
) -> None:
    page = open_page(nonce_server)
    page.route("**/live.js", lambda route: route.abort())
    page.goto(f"{page.url}page")

    styles = page.get_by_text("(not up to date)").evaluate(
        """mark => {
          const copy = mark.cloneNode(true);
          mark.replaceWith(copy); // whose two seconds begin now
          const [late] = copy.getAnimations();
          late.pause();
          return [0, 1999, 2001].map(time => {
            late.currentTime = time;
            const { position, visibility } = getComputedStyle(copy);
            return `${position} ${visibility}`;
          });
        }"""
    )

    assert styles == ["absolute hidden", "absolute hidden", "static visible"]


def test_german_console_and_page_fit_a_telephone(
    open_page: Open, tmp_path_factory: pytest.TempPathFactory
) -> None:
    database = str(tmp_path_factory.mktemp("site") / "db.sqlite3")
    site = {"DJANGO_SETTINGS_MODULE": "tests.sites.german", "ECHO_TEST_DATABASE": database}
    with Server("runserver", DJANGO_DEBUG="1", **site) as server:
        page = open_page(server, locale="de-DE", viewport={"width": 360, "height": 800})
        page.get_by_role("button", name="Verbinden").click()
        page.get_by_label("Text").fill("Grüße")
        page.get_by_role("button", name="Senden").click()
        eventually(lambda: log(page, "received"), ["[Durable Object]: Grüße"])
        page.get_by_role("button", name="Schließen").click()

        eventually(lambda: log(page, "closed"), [f"Code 1000, „{REASON}“, sauber"])
        labels = page.locator("[role=log] b")
        assert labels.all_inner_texts() == ["geöffnet", "gesendet", "empfangen", "geschlossen"]
        assert len({label.bounding_box()["height"] for label in labels.all()}) == 1  # no breaks
        assert page.evaluate(WIDTHS) == [360, 360]

    stale = "Die Tabelle ist nicht aktuell: Der Server antwortet nicht."
    expect(page.get_by_text(stale)).to_be_visible()


def test_keyboard_alone_connects_sends_and_closes(page: Page) -> None:
    page.get_by_role("textbox", name="Object").focus()

    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # Connect
    expect(page.get_by_label("Text")).to_be_focused()
    page.keyboard.type("Hello")
    page.keyboard.press("Enter")
    eventually(lambda: log(page, "received"), ["[Durable Object]: Hello"])
    for _ in ("Send", "Code", "Reason"):
        page.keyboard.press("Tab")
    page.keyboard.type("bye")
    page.keyboard.press("Enter")

    expect(page.get_by_role("textbox", name="Object")).to_be_focused()
    assert len(log(page, "closed")) == 1


@pytest.mark.parametrize("width", [320, 1100])
def test_no_width_and_no_name_scrolls_the_page_sideways(
    open_page: Open, server: Server, width: int
) -> None:
    page = open_page(server, viewport={"width": width, "height": 800})

    for name in (LONG, "x" * 128):
        page.evaluate(CONNECT, f"ws://127.0.0.1:{server.port}/{name}/websocket")
    connect(page, "W" * 128)

    eventually(lambda: ["W" * 128, "1"] in table(page), True)
    scrolled, seen = page.evaluate(WIDTHS)
    assert scrolled <= seen == width


def test_dark_and_light_differ_and_both_have_contrast(open_page: Open, server: Server) -> None:
    pictures = set()
    for scheme in ("light", "dark"):
        page = open_page(server, color_scheme=scheme)
        connect(page)
        eventually(lambda page=page: len(log(page, "opened")), 1)
        page.get_by_role("button", name="Close").click()
        eventually(lambda page=page: len(log(page, "closed")), 1)
        connect(page, "x" * 129)
        eventually(lambda page=page: len(log(page, "error")), 1)

        assert page.evaluate(LOW_CONTRASTS) == []
        pictures.add(page.screenshot())

    assert len(pictures) == 2


def test_table_follows_another_browser_in_less_than_a_second(
    open_page: Open, page: Page, server: Server
) -> None:
    other = open_page(server)
    expect(other.locator("#echo-live[data-known=yes]")).to_be_attached()  # the stream is open

    connect(page)
    eventually(lambda: len(log(page, "opened")), 1)
    eventually(lambda: table(other), [["foo", "1"]], deadline=SECOND)
    page.get_by_role("button", name="Close").click()

    eventually(lambda: table(other), [["No object has a connection now."]], deadline=2 * SECOND)
    assert log(other, "error") == []


def test_visitor_who_may_not_list_sees_a_count_that_keeps_itself_fresh(open_page: Open) -> None:
    env = {"DJANGO_SETTINGS_MODULE": "tests.sites.visitors", "DJANGO_DEBUG": "1"}
    with Server("runserver", **env) as server:
        page = open_page(server)
        expect(page.get_by_text("Connections of foo: 0")).to_be_visible()
        expect(page.get_by_text("You may not see the names of the objects.")).to_be_visible()

        page.get_by_role("button", name="Connect").click()
        expect(page.get_by_text("Connections of foo: 1")).to_be_visible()
        with Client.opened(server.port):
            expect(page.get_by_text("Connections of foo: 2")).to_be_visible()

        expect(page.get_by_text("Connections of foo: 1")).to_be_visible()

    old = page.locator("output")
    expect(old).to_have_text(re.compile(rf"^[01] {re.escape(NOT_UP_TO_DATE)}$"))
    calm = "getComputedStyle(document.querySelector('#echo-objects')).color"
    assert old.evaluate("old => getComputedStyle(old).color") != page.evaluate(calm)


def test_focus_stays_on_a_link_while_the_table_changes(
    open_page: Open, page: Page, server: Server
) -> None:
    with Client.opened(server.port, "foo"):
        eventually(lambda: table(page), [["foo", "1"]])
        page.get_by_role("link", name="foo", exact=True).focus()

        with Client.opened(server.port, "bar"):
            eventually(lambda: table(page), [["bar", "1"], ["foo", "1"]])
            expect(page.get_by_role("link", name="foo", exact=True)).to_be_focused()


def test_page_tells_when_the_table_is_not_kept_fresh(open_page: Open) -> None:
    note = "The table is not up to date: the server does not respond."
    with Server("runserver", DJANGO_DEBUG="1") as server:
        page = open_page(server)
        expect(page.locator("#echo-live[data-known=yes]")).to_be_attached()
        expect(page.get_by_text(note)).to_be_hidden()
        titles = page.get_by_role("heading", level=2).filter(has_text=re.compile("Console|Objects"))
        tops = [title.bounding_box()["y"] for title in titles.all()]

    expect(page.get_by_text(note)).to_be_visible()
    assert [title.bounding_box()["y"] for title in titles.all()] == tops == 2 * [tops[0]]
    assert page.get_by_text(note).bounding_box()["y"] > tops[0]


def test_many_changes_are_few_fetches_and_the_last_is_shown(open_page: Open, page: Page) -> None:
    port = int(page.url.split(":")[-1].strip("/"))
    fetched: list[str] = []
    expect(page.locator("#echo-live[data-known=yes]")).to_be_attached()
    page.on("request", lambda request: fetched.append(request.url))

    start = time.monotonic()
    for number in range(20):
        with Client.opened(port, f"object-{number}"):
            page.wait_for_timeout(0.1 * SECOND * 1000)
    with Client.opened(port, "last"):
        eventually(lambda: table(page), [["last", "1"]])
        took = time.monotonic() - start

    assert 2 <= fetched.count(page.url) <= 2 + took / 0.7


def test_table_that_comes_late_does_not_hide_that_it_is_not_kept_fresh(open_page: Open) -> None:
    held: list[Route] = []
    with Server("runserver", DJANGO_DEBUG="1") as server:
        page = open_page(server)
        expect(page.locator("#echo-live[data-known=yes]")).to_be_attached()
        page.route(page.url, lambda route: held.append(route))
        with Client.opened(server.port, "late"):
            eventually(lambda: page.evaluate("true") and bool(held), True)
            answer = get_page(server)

    note = page.get_by_text("The table is not up to date: the server does not respond.")
    expect(note).to_be_visible()
    for route in held:
        route.fulfill(body=answer, content_type="text/html")

    eventually(lambda: table(page), [["late", "1"]])
    expect(note).to_be_visible()


@pytest.fixture
def live_page(browser: Browser) -> Open:
    """Return a function that opens the page of the site with the template tag."""

    def live_page(server: Server) -> Page:
        page = new_page(browser)
        page.goto(f"http://127.0.0.1:{server.port}/page")
        return page

    return live_page


def counts(page: Page) -> list[str]:
    return page.locator("output").all_inner_texts()


def test_tags_stay_fresh_under_a_strict_policy_and_tell_when_they_are_not(
    live_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    complaints: list[str] = []
    opened: list[str] = []
    site = "tests.sites.live:application"
    with Server("daphne", site) as server:
        page = live_page(server)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("request", lambda request: opened.append(request.url))
        page.reload()
        eventually(lambda: counts(page), ["0", "0", "0"])
        expect(page.locator("output[data-known=yes]")).to_have_count(3)

        with Client.opened(server.port, "foo"):
            eventually(lambda: counts(page), ["1", "1", "0"], deadline=SECOND)
        eventually(lambda: counts(page), ["0", "0", "0"])

        expect(page.locator(".echo-stale")).to_have_count(0)
        page.locator("output").last.evaluate("old => old.removeAttribute('data-stale-mark')")
        assert complaints == []
        # one stream for each object, however many tags: what comes after is a new try
        first, second = [url for url in opened if url.endswith("/connections/live")][:2]
        assert first != second
        port = server.port

    eventually(lambda: counts(page), [f"0 {NOT_UP_TO_DATE}", f"0 {NOT_UP_TO_DATE}", "0 (?)"])
    old = "This number is not up to date: the server does not respond."
    expect(page.locator(f"output.echo-stale[data-stale][title='{old}']")).to_have_count(3)

    monkeypatch.setattr("tests.servers.free_port", lambda: port)
    with Server("daphne", site), Client.opened(port, "foo"):
        eventually(lambda: counts(page), ["1", "1", "0"])
        expect(page.locator(".echo-stale, output[title]")).to_have_count(0)


def test_stream_that_ends_for_its_age_is_no_outage(live_page: Open) -> None:
    opened: list[str] = []
    with Server("daphne", "tests.sites.live:application", MAX_AGE="0.5") as server:
        page = live_page(server)
        page.evaluate(
            "window.told = [];"
            "addEventListener('echo-stale', (event) => told.push(event.detail), true)"
        )
        page.on("request", lambda request: opened.append(request.url))
        eventually(lambda: page.evaluate("true") and len(opened) >= 6, True)
        with Client.opened(server.port, "foo"):
            eventually(lambda: counts(page), ["1", "1", "0"])

        assert page.evaluate("told") == []
