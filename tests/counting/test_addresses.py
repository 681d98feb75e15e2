"""`by_address`: which address names the object of a connection."""

import pytest

from echo.counting import by_address
from echo.names import check_name

PROXIES = ["10.0.0.0/8", "192.0.2.1", "2001:db8:ffff::/48"]


def scope(client, *forwarded):
    headers = [(b"x-forwarded-for", each.encode("latin-1")) for each in forwarded]
    return {
        "type": "websocket",
        "client": client and [client, 4711],
        "headers": [(b"host", b"example.com"), *headers],
    }


@pytest.mark.parametrize(
    ("client", "name"),
    [
        ("203.0.113.7", "ip-203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "ip-2001:db8:1:2::"),
        ("2001:db8:1:2::ffff", "ip-2001:db8:1:2::"),
        ("2001:DB8:1:3::", "ip-2001:db8:1:3::"),
        ("::ffff:203.0.113.7", "ip-203.0.113.7"),
        ("::1", "ip-::"),
        ("fe80::1%eth0", "ip-fe80::"),
        (None, "ip-unknown"),
        ("", "ip-unknown"),
        ("/run/site.sock", "ip-unknown"),
    ],
)
def test_object_is_that_of_the_peer(client, name):
    assert by_address(scope(client)) == check_name(name)


def test_scope_without_a_client_has_an_object():
    assert by_address({"type": "websocket", "headers": []}) == "ip-unknown"


def test_header_of_a_peer_that_is_not_trusted_is_ignored(settings):
    assert by_address(scope("203.0.113.7", "198.51.100.1")) == "ip-203.0.113.7"

    settings.ECHO_TRUSTED_PROXIES = PROXIES

    assert by_address(scope("203.0.113.7", "198.51.100.1")) == "ip-203.0.113.7"
    assert by_address(scope("203.0.113.7", "10.0.0.1")) == "ip-203.0.113.7"


@pytest.mark.parametrize("client", ["10.1.2.3", "192.0.2.1", "::ffff:10.1.2.3", "2001:db8:ffff::1"])
@pytest.mark.parametrize(
    ("forwarded", "name"),
    [
        (["203.0.113.7"], "ip-203.0.113.7"),
        (["203.0.113.7, 10.9.9.9"], "ip-203.0.113.7"),
        (["203.0.113.7", "10.9.9.9,192.0.2.1"], "ip-203.0.113.7"),
        (["198.51.100.1, 203.0.113.7"], "ip-203.0.113.7"),  # the client has sent the first
        (["10.0.0.1, 203.0.113.7, 10.9.9.9"], "ip-203.0.113.7"),
        (["garbage, 203.0.113.7"], "ip-203.0.113.7"),
        (["203.0.113.7:4711"], "ip-203.0.113.7"),
        (["[2001:db8:1:2::3]:4711"], "ip-2001:db8:1:2::"),
        (["[2001:db8:1:2::3]"], "ip-2001:db8:1:2::"),
        (["2001:db8:1:2::3, 2001:db8:ffff::9"], "ip-2001:db8:1:2::"),
        (["::ffff:203.0.113.7"], "ip-203.0.113.7"),
        ([" 203.0.113.7 "], "ip-203.0.113.7"),
        (["10.9.9.9"], "ip-10.9.9.9"),  # all are proxies: the farthest
    ],
)
def test_object_is_that_of_the_last_address_that_is_no_proxy(settings, client, forwarded, name):
    settings.ECHO_TRUSTED_PROXIES = PROXIES

    assert by_address(scope(client, *forwarded)) == check_name(name)


@pytest.mark.parametrize(
    "forwarded", ["", ",", "unknown", "_hidden", "203.0.113.7,garbage", "1.2.3", "é", "[::1", "%"]
)
def test_garbage_ends_the_search_at_the_proxy_that_has_added_it(settings, forwarded):
    settings.ECHO_TRUSTED_PROXIES = PROXIES
    wanted = "ip-::" if forwarded == "[::1" else "ip-10.1.2.3"

    assert by_address(scope("10.1.2.3", forwarded)) == wanted
    assert by_address(scope("10.1.2.3")) == "ip-10.1.2.3"


def test_peer_on_a_unix_socket_is_a_proxy_if_there_are_any(settings):
    assert by_address(scope(None, "203.0.113.7")) == "ip-unknown"

    settings.ECHO_TRUSTED_PROXIES = PROXIES

    assert by_address(scope(None, "203.0.113.7")) == "ip-203.0.113.7"
    assert by_address(scope(None, "198.51.100.1, 203.0.113.7, 10.0.0.1")) == "ip-203.0.113.7"
    assert by_address(scope(None, "garbage")) == "ip-unknown"
    assert by_address(scope(None)) == "ip-unknown"
