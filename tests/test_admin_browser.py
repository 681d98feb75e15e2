"""The operators' page in a real browser, on real servers, under a strict policy."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from urllib.parse import quote, urlencode

import django
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser import new_page
from tests.pages import IMAGE, LONG, LOW_CONTRASTS, WIDTHS
from tests.raw import Client
from tests.servers import ROOT, Server
from tests.waiting import DEADLINE, SECOND, eventually

OBJECTS = "/admin/echo/object/"
# Two clicks, and which of them the page did not let through.
CLICK_TWICE = """button => {
  const prevented = [];
  addEventListener('submit', event => prevented.push(event.defaultPrevented));
  button.click();
  button.click();
  return prevented;
}"""
# Where the content of an element ends, without its padding.
TEXT_END = """element => element.getBoundingClientRect().right
  - parseFloat(getComputedStyle(element).paddingRight)"""
# How often the page has fetched itself.
FETCHES = "performance.getEntriesByName(location.href, 'resource').length"
Enter = Callable[..., Page]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a site whose new database has one operator."""
    env = {
        "DJANGO_SETTINGS_MODULE": "tests.sites.admin",
        "DJANGO_DEBUG": "1",
        "ECHO_TEST_DATABASE": str(tmp_path_factory.mktemp("site") / "db.sqlite3"),
    }
    operator = {
        "DJANGO_SUPERUSER_USERNAME": "operator",
        "DJANGO_SUPERUSER_PASSWORD": "secret",
        "DJANGO_SUPERUSER_EMAIL": "operator@example.com",
    }
    for command in (["migrate", "-v", "0"], ["createsuperuser", "--noinput", "-v", "0"]):
        command = [sys.executable, "manage.py", *command]
        subprocess.run(command, cwd=ROOT, env={**os.environ, **env, **operator}, check=True)
    return env


@pytest.fixture(scope="module")
def server(site: dict[str, str]) -> Iterator[Server]:
    with Server("runserver", **site) as server:
        yield server


@pytest.fixture
def complaints() -> list[str]:
    """What the browser's console said."""
    return []


@pytest.fixture
def enter(browser: Browser, complaints: list[str]) -> Enter:
    """Return a function that logs in to a server and opens the page of the objects."""

    def enter(server: Server, path: str = OBJECTS, **options: object) -> Page:
        page = new_page(browser, **options)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"http://127.0.0.1:{server.port}{path}")
        log_in(page)
        return page

    return enter


def log_in(page: Page) -> None:
    page.get_by_label("Username").fill("operator")
    page.get_by_label("Password").fill("secret")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_label("Password")).to_have_count(0)
    page.wait_for_load_state()


def rows(page: Page) -> list[list[str]]:
    return [
        row.locator("th, td").all_inner_texts()
        for row in page.locator("#result_list tbody tr").all()
    ]


def members(page: Page) -> list[list[str]]:
    return [row[:3] for row in rows(page)]


def opened_as(server: Server, key: str, name: str = "foo") -> Client:
    return Client.opened(server.port, path=f"/{name}/websocket?member={quote(key, safe='')}")


def message(page: Page) -> str:
    return page.locator(".messagelist").inner_text()


@pytest.mark.parametrize("script", [True, False], ids=["script", "no script"])
def test_operator_sends_a_text_and_closes_the_connections(
    enter: Enter, server: Server, complaints: list[str], script: bool
) -> None:
    with Client.opened(server.port) as foo, Client.opened(server.port, "bar") as bar:
        page = enter(server, "/admin/", java_script_enabled=script)
        page.locator("#content").get_by_role("link", name="Objects").click()
        eventually(lambda: rows(page), [["bar", "1"], ["foo", "1"]])

        page.get_by_role("link", name="foo").click()
        page.get_by_role("textbox", name="Text").fill("Hello")
        page.get_by_role("button", name="Send").click()

        assert foo.text() == "Hello"
        assert message(page) == "The text was sent to the connections of foo."
        page.reload()
        page.get_by_label("Code").fill("4001")
        page.get_by_label("Reason").fill("bye")
        page.get_by_role("button", name="Close…").click()
        expect(page.locator("#content")).to_contain_text("It has 1 connection now.")
        page.get_by_role("button", name="Yes, close them").click()

        # no second text came before
        assert foo.closing() == (4001, "bye")
        assert message(page) == "All connections of foo are being closed."
        bar.send_text("still here")
        assert bar.text() == "[Durable Object]: still here"
    assert complaints == []


@pytest.mark.parametrize("script", [True, False], ids=["script", "no script"])
def test_operator_closes_the_connections_of_one_member(
    enter: Enter, server: Server, complaints: list[str], script: bool
) -> None:
    with opened_as(server, "a/da") as ada, opened_as(server, "bob") as bob:
        page = enter(server, f"{OBJECTS}object/?name=foo", java_script_enabled=script)
        page.get_by_role("link", name="A/Da").click()
        expect(page.locator("dl")).to_contain_text('"name": "A/Da"')
        page.get_by_label("Code").fill("4001")
        page.get_by_label("Reason").fill("bye")
        page.get_by_role("button", name="Close…").click()
        expect(page.locator("#content")).to_contain_text("The member has 1 connection now.")
        page.get_by_role("button", name="Yes, close them").click()

        assert ada.closing() == (4001, "bye")
        assert message(page) == "All connections of a/da to foo are being closed."
        bob.send_text("still here")
        assert bob.text() == "[Durable Object]: still here"
    assert complaints == []


def test_members_are_kept_fresh(enter: Enter, server: Server, complaints: list[str]) -> None:
    page = enter(server, f"{OBJECTS}object/?name=foo&q=a")
    page.get_by_role("textbox", name="Text").fill("A draft")
    with opened_as(server, "ada"), opened_as(server, "bob"):
        eventually(lambda: members(page), [["Ada", "ada", "1"]])
        page.get_by_role("link", name="Ada").focus()
        with opened_as(server, "ada"):
            eventually(lambda: members(page), [["Ada", "ada", "2"]])
            expect(page.get_by_role("link", name="Ada")).to_be_focused()
        eventually(lambda: members(page), [["Ada", "ada", "1"]])
    eventually(lambda: rows(page), [["No connected member has this in the name or key."]])

    expect(page.get_by_role("textbox", name="Text")).to_have_value("A draft")
    assert complaints == []


@pytest.mark.parametrize("path", ["", "object/?name=foo"])
def test_chart_draws_the_connections_and_tells_them_as_text(
    enter: Enter, server: Server, complaints: list[str], path: str
) -> None:
    with Client.opened(server.port):
        page = enter(server, f"{OBJECTS}{path}")
        chart = page.locator(".echo-chart")
        expect(chart).to_contain_text("Connections: 1 now, 1 to 1 in the last 1 min")
        with Client.opened(server.port):
            expect(chart).to_contain_text("Connections: 2 now, 1 to 2 in the last 1 min")
        expect(chart).to_contain_text("Connections: 1 now, 1 to 2 in the last 1 min")

    line = page.locator(".echo-chart > svg > [data-series=connections]").get_attribute("d")
    assert re.fullmatch(r"M[\d.]+ [\d.]+(H[\d.]+V[\d.]+)+H[\d.]+", line)
    expect(page.get_by_role("img", name="Numbers since this page was opened")).to_be_visible()
    assert complaints == []


def test_chart_of_an_object_draws_its_members_too(
    enter: Enter, server: Server, complaints: list[str]
) -> None:
    with opened_as(server, "ada"), opened_as(server, "ada"):
        page = enter(server, f"{OBJECTS}object/?name=foo")
        chart = page.locator(".echo-chart")
        expect(chart).to_contain_text("Connections: 2 now")
        expect(chart).to_contain_text("Members: 1 now, 1 to 1 in the last 1 min")
        with opened_as(server, "bob"):
            expect(chart).to_contain_text("Members: 2 now, 1 to 2 in the last 1 min")
        expect(chart).to_contain_text("Members: 1 now, 1 to 2 in the last 1 min")

    dashes = [
        page.locator(f".echo-chart > svg > [data-series={series}]").evaluate(
            "path => getComputedStyle(path).strokeDasharray"
        )
        for series in ("connections", "people")
    ]
    assert dashes[0] == "none" != dashes[1]  # readable without colors
    assert complaints == []


def test_info_that_changes_is_kept_fresh_at_the_same_count(enter: Enter, server: Server) -> None:
    with opened_as(server, "ada") as ada, opened_as(server, "bob"):
        page = enter(server, f"{OBJECTS}object/?name=foo")
        eventually(lambda: members(page), [["Ada", "ada", "1"], ["Bob", "bob", "1"]])

        ada.send_text("away")

        eventually(lambda: members(page)[0], ["Ada (away)", "ada", "1"])


def test_chart_has_a_gap_while_the_numbers_are_unknown(enter: Enter, site: dict[str, str]) -> None:
    with Server("runserver", **site) as server, Client.opened(server.port):
        page = enter(server)
        chart = page.locator(".echo-chart")
        expect(chart).to_contain_text("Connections: 1 now")

    expect(chart).to_contain_text("Connections: unknown now, ")


def test_table_and_count_are_kept_fresh_and_tell_when_they_are_not(
    enter: Enter, site: dict[str, str], complaints: list[str]
) -> None:
    note = "The table is not up to date: the server does not respond."
    with Server("runserver", **site) as server:
        page = enter(server)
        eventually(lambda: rows(page), [["No object has a connection now."]])
        with Client.opened(server.port), Client.opened(server.port, "bar"):
            eventually(lambda: rows(page), [["bar", "1"], ["foo", "1"]], deadline=2 * SECOND)
            page.get_by_role("link", name="foo").focus()
            with Client.opened(server.port, "baz"):
                eventually(lambda: len(rows(page)), 3, deadline=2 * SECOND)
                expect(page.get_by_role("link", name="foo")).to_be_focused()
            page.get_by_role("link", name="foo").click()
            expect(page.locator("output")).to_have_text("1")
            with Client.opened(server.port):
                eventually(lambda: page.locator("output").inner_text(), "2", deadline=SECOND)
        page.go_back()
        eventually(lambda: rows(page), [["No object has a connection now."]])
        expect(page.get_by_text(note)).to_be_hidden()
        assert complaints == []

    expect(page.get_by_text(note)).to_be_visible()


def test_count_of_an_object_says_when_it_is_not_fresh(
    enter: Enter, site: dict[str, str], complaints: list[str]
) -> None:
    with Server("runserver", **site) as server, Client.opened(server.port):
        page = enter(server, f"{OBJECTS}object/?name=foo")
        expect(page.locator("output[data-known=yes]")).to_have_text("1")
        assert complaints == []

    expect(page.locator("output")).to_have_text(re.compile(r"^[01] \(not up to date\)$"))


@pytest.mark.parametrize("ending", ["logged out", "error"])
def test_table_tells_that_it_is_not_kept_fresh_where_its_page_cannot_be_had(
    enter: Enter, server: Server, ending: str
) -> None:
    note = "The table is not up to date"
    page = enter(server)
    # The first count lets the page fetch its table, which could show what is connected later.
    eventually(lambda: page.evaluate(FETCHES) > 0, True)
    cookies = page.context.cookies()
    if ending == "logged out":
        page.context.clear_cookies(name="sessionid")
    else:
        page.route(page.url, lambda route: route.fulfill(status=500, body="An error"))

    with Client.opened(server.port, "unseen"):
        expect(page.get_by_text(note)).to_be_visible()
        assert rows(page) == [["No object has a connection now."]]
        page.context.add_cookies(cookies)
        page.unroute_all()

        with Client.opened(server.port, "seen"):
            eventually(lambda: rows(page), [["seen", "1"], ["unseen", "1"]])
            expect(page.get_by_text(note)).to_be_hidden()


def test_header_of_counts_ends_where_they_end_and_a_blank_name_can_be_clicked(
    enter: Enter, server: Server
) -> None:
    with Client.opened(server.port, "%E2%80%8B"):
        page = enter(server)
        ends = [
            page.locator(f"#result_list {cell}").evaluate(TEXT_END)
            for cell in ("thead .echo-count a", "tbody .echo-count")
        ]
        page.locator("#result_list tbody a").click()

        assert ends[0] == pytest.approx(ends[1], abs=1)
        expect(page.locator("output")).to_have_text("1")


def test_pages_look_like_the_admin_of_every_django(enter: Enter, server: Server) -> None:
    """Its markup is not the same in 5.2, 6.0 and 6.1."""
    with Client.opened(server.port):
        page = enter(server, viewport={"width": 1280, "height": 900})
        toolbar, table = (page.locator(id).bounding_box() for id in ("#toolbar", "#result_list"))
        page.get_by_role("link", name="foo").click()
        crumbs = page.locator(".breadcrumbs")
        colors = [
            part.evaluate("part => getComputedStyle(part).backgroundColor")
            for part in (crumbs, page.locator("#header"), page.locator("body"))
        ]

    assert toolbar["y"] + toolbar["height"] <= table["y"]
    assert (toolbar["x"], toolbar["width"]) == (table["x"], table["width"])
    assert crumbs.inner_text().split() == ["Home", "Connections", "Objects", "foo"]
    assert crumbs.bounding_box()["width"] == 1280
    assert len(set(colors)) == 3


@pytest.fixture(scope="module")
def nonce_server(site: dict[str, str]) -> Iterator[Server]:
    with Server("runserver", **{**site, "DJANGO_SETTINGS_MODULE": "tests.sites.nonce"}) as server:
        yield server


def test_pages_are_kept_fresh_under_a_policy_of_nonces(
    enter: Enter, nonce_server: Server, complaints: list[str]
) -> None:
    page = enter(nonce_server)
    with Client.opened(nonce_server.port):
        eventually(lambda: rows(page), [["foo", "1"]])
        page.get_by_role("link", name="foo").click()
        expect(page.locator("output[data-known=yes]")).to_have_text("1")
        with Client.opened(nonce_server.port):
            expect(page.locator("output")).to_have_text("2")

    # The admin's own pages have nonces since Django 6.1.
    ours = complaints if django.VERSION >= (6, 1) else [c for c in complaints if "/echo/" in c]
    assert ours == []


def test_pages_whose_script_is_missing_say_that_they_are_not_fresh(
    enter: Enter, server: Server
) -> None:
    with Client.opened(server.port):
        page = enter(server)
        page.route("**/echo/*.js", lambda route: route.abort())
        page.reload()
        expect(page.get_by_text("The table is not updated: its script")).to_be_visible()

        page.get_by_role("link", name="foo").click()
        expect(page.get_by_text("(not up to date)")).to_be_visible()


def test_two_clicks_send_one_text(enter: Enter, server: Server) -> None:
    with Client.opened(server.port) as foo:
        page = enter(server, f"{OBJECTS}object/?name=foo")
        page.get_by_role("textbox", name="Text").fill("Hello")
        prevented = page.get_by_role("button", name="Send").evaluate(CLICK_TWICE)
        expect(page.locator(".messagelist")).to_be_visible()

        page.get_by_role("textbox", name="Text").fill("Bye")
        page.get_by_role("button", name="Send").click()

        assert [foo.text(), foo.text()] == ["Hello", "Bye"]
        assert prevented == [False, True]


def test_two_clicks_without_script_send_one_text(enter: Enter, server: Server) -> None:
    with Client.opened(server.port) as foo:
        page = enter(server, f"{OBJECTS}object/?name=foo", java_script_enabled=False)

        assert click(page, [server, server], "Hello") == [302, 302]
        assert click(page, [server], "Bye") == [302]

        assert [foo.text(), foo.text()] == ["Hello", "Bye"]


def click(page: Page, servers: list[Server], text: str) -> list[int]:
    """Send the page's form to all the servers at once, as clicks without script would."""
    token = page.locator(".echo-once [name=csrfmiddlewaretoken]").input_value()
    cookies = "; ".join(f"{c['name']}={c['value']}" for c in page.context.cookies())
    headers = {"Cookie": cookies, "Content-Type": "application/x-www-form-urlencoded"}
    body = urlencode({"csrfmiddlewaretoken": token, "text": text})

    def send(server: Server) -> int:
        with closing(HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE)) as connection:
            connection.request("POST", f"{OBJECTS}object/?name=foo", body, headers)
            return connection.getresponse().status

    with ThreadPoolExecutor(len(servers)) as threads:
        return list(threads.map(send, servers))


def test_operator_who_was_logged_out_comes_back_to_the_question(
    enter: Enter, server: Server, site: dict[str, str]
) -> None:
    with Client.opened(server.port, "%2E%2E") as client:
        page = enter(server)
        page.get_by_role("link", name="..").click()
        page.get_by_label("Code").fill("4001")
        page.get_by_role("button", name="Close…").click()
        expect(page.get_by_role("heading", name="Are you sure?")).to_be_visible()
        page.context.clear_cookies(name="sessionid")

        page.get_by_role("button", name="Yes, close them").click()
        log_in(page)

        assert server.count("..") == 1
        page.get_by_role("button", name="Yes, close them").click()
        assert client.closing() == (4001, "")


def test_keyboard_alone_finds_an_object_and_sends(enter: Enter, server: Server) -> None:
    with Client.opened(server.port, "foo") as foo, Client.opened(server.port, "bar"):
        page = enter(server)
        page.get_by_label("Names that begin with").focus()
        page.keyboard.type("f")
        page.keyboard.press("Enter")
        expect(page.locator("#result_list tbody tr")).to_have_count(1)
        page.get_by_role("link", name="foo").focus()
        page.keyboard.press("Enter")
        page.get_by_role("textbox", name="Text").focus()
        page.keyboard.type("Hello")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")

        assert foo.text() == "Hello"


def test_operator_reaches_the_connections_of_another_process(
    enter: Enter, site: dict[str, str], redis_url: str
) -> None:
    shared = {**site, "ECHO_STATE_URL": redis_url}
    with (
        Server("daphne", **shared) as near,
        Server("daphne", **shared) as far,
        Client.opened(far.port) as client,
    ):
        page = enter(near)
        eventually(lambda: (page.reload(), rows(page))[1], [["foo", "1"]])
        expect(page.locator("#content")).to_contain_text("of all processes")

        page.get_by_role("link", name="foo").click()
        page.get_by_role("textbox", name="Text").fill("Hello")
        page.get_by_role("button", name="Send").click()

        assert client.text() == "Hello"


def test_two_clicks_that_reach_two_processes_send_one_text(
    enter: Enter, site: dict[str, str], redis_url: str
) -> None:
    shared = {**site, "ECHO_STATE_URL": redis_url}
    with (
        Server("daphne", **shared) as near,
        Server("daphne", **shared) as far,
        Client.opened(far.port) as client,
    ):
        page = enter(near, f"{OBJECTS}object/?name=foo", java_script_enabled=False)

        assert click(page, [near, far], "Hello") == [302, 302]
        assert click(page, [far], "Bye") == [302]

        assert [client.text(), client.text()] == ["Hello", "Bye"]


@pytest.mark.parametrize("width", [320, 1100])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_names_of_strangers_fit_and_can_be_read(
    enter: Enter, server: Server, complaints: list[str], width: int, scheme: str
) -> None:
    names = [LONG, "W" * 128, IMAGE, "\u202eevil"]
    for name in names:
        Client.opened(server.port, quote(name, safe=""))
    page = enter(server, viewport={"width": width, "height": 900}, color_scheme=scheme)
    opened_as(server, "k" * 128, "W" * 128)
    member = f"name={'W' * 128}&member={'k' * 128}"
    pages = [
        *(f"object/?name={'W' * 128}", f"close/?name={'W' * 128}&code=4001&reason={'x' * 123}"),
        *(f"member/?{member}", f"close/?{member}&code=4001&reason={'x' * 123}"),
    ]

    for path in ("", *pages):
        page.goto(f"http://127.0.0.1:{server.port}{OBJECTS}{path}")
        scrolled, seen = page.evaluate(WIDTHS)
        assert scrolled <= seen == width
        assert page.evaluate(LOW_CONTRASTS.replace(".echo *", "#content *")) == []

    assert page.locator("img").count() == 0
    assert complaints == []
