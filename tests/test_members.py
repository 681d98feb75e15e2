"""Keys and infos of members, and how states store them."""

import json
import math
from datetime import UTC, datetime
from uuid import UUID

import pytest
from django.utils.safestring import mark_safe

from echo.members import (
    MAX_INFO_BYTES,
    Member,
    MemberList,
    Presence,
    check_key,
    check_member,
    encode_info,
    entry_name,
    parse_presence,
    sorted_members,
    split_entry,
)

ID = UUID("12345678123456781234567812345678")
SECRET = "s3cret"


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("ada", "ada"),
        (7, "7"),
        (-1, "-1"),
        (ID, str(ID)),
        ("a/b", "a/b"),
        ("<script>", "<script>"),
        ("\u2028", "\u2028"),
        (mark_safe("ada"), "ada"),
        ("é" * 64, "é" * 64),
    ],
)
def test_valid_key_is_a_string(key, expected):
    checked = check_key(key)

    assert (checked, type(checked)) == (expected, str)


@pytest.mark.parametrize(
    ("key", "rule"),
    [
        (None, "A member key is a string, an integer or a UUID, not NoneType."),
        (True, "A member key is a string, an integer or a UUID, not bool."),
        (1.5, "A member key is a string, an integer or a UUID, not float."),
        (SECRET.encode(), "A member key is a string, an integer or a UUID, not bytes."),
        ("", "A member key has 1 to 128 bytes of UTF-8; this one has 0."),
        ("x" * 10_240, "A member key has 1 to 128 bytes of UTF-8; this one has 10240."),
        ("é" * 64 + "x", "A member key has 1 to 128 bytes of UTF-8; this one has 129."),
        (f"{SECRET}\ud800", "The member key is not UTF-8."),
        (f"{SECRET}\n", "The member key has a control character."),
        (f"{SECRET}\0", "The member key has a control character."),
        (f"{SECRET}\x85", "The member key has a control character."),
    ],
)
def test_invalid_key_is_an_error_that_does_not_contain_it(key, rule):
    with pytest.raises((TypeError, ValueError)) as raised:
        check_key(key)

    assert str(raised.value) == rule
    assert raised.value.__cause__ is None


def test_key_with_very_many_digits_is_an_error():
    with pytest.raises(ValueError):
        check_key(10**5000)


@pytest.mark.parametrize(
    "info",
    [
        {},
        {"name": "Ada"},
        {"a": {"b": [1, None, True, {"c": 1.5}]}},
        {"lines": "a\nb\r\u2028\u2029\x85\0"},
        {"html": "</script><b>&amp;"},
        {"x": "é" * ((MAX_INFO_BYTES - len('{"x":""}')) // 2)},
    ],
)
def test_valid_info_is_json_in_one_line(info):
    text = encode_info(info)

    assert json.loads(text) == info
    assert "\n" not in text


class Unprintable:
    def __repr__(self):
        return SECRET


@pytest.mark.parametrize(
    ("info", "rule"),
    [
        (None, "The info of a member is a dict, not NoneType."),
        ([SECRET], "The info of a member is a dict, not list."),
        (SECRET, "The info of a member is a dict, not str."),
        ({"x": math.nan}, "The info of the member is not JSON"),
        ({"x": math.inf}, "The info of the member is not JSON"),
        ({"x": {1, 2}}, "The info of the member is not JSON"),
        ({"x": Unprintable()}, "The info of the member is not JSON"),
        ({"x": datetime.now(UTC)}, "The info of the member is not JSON"),
        ({(SECRET,): 1}, "The info of the member is not JSON"),
        ({"x": f"{SECRET}\ud800"}, "The info of the member is not UTF-8."),
        (
            {"x": SECRET + "x" * 1024},
            "The info of a member has at most 1024 bytes of JSON; this one has 1038.",
        ),
    ],
)
def test_invalid_info_is_an_error_that_does_not_contain_it(info, rule):
    with pytest.raises((TypeError, ValueError)) as raised:
        encode_info(info)

    assert str(raised.value).startswith(rule)
    assert SECRET not in str(raised.value)


def test_nested_info_is_an_error_not_a_crash():
    deep = {}
    for _ in range(100_000):
        deep = {"x": deep}
    circle = {}
    circle["x"] = circle

    for info in (deep, circle):
        with pytest.raises(ValueError, match="The info of the member is not JSON"):
            encode_info(info)


@pytest.mark.parametrize("junk", ["ada", 7, True, {}, [], ("ada", {}), object(), Member])
def test_what_is_no_member_is_an_error(junk):
    with pytest.raises(TypeError, match=r"Expected a Member or None, not \w+\."):
        check_member(junk)


def test_member_has_a_key_and_perhaps_info():
    assert check_member(Member(7)) == ("7", "{}")
    assert check_member(Member(7, {"name": "Ada"}, 3)) == ("7", '{"name":"Ada"}')


@pytest.mark.parametrize("info", ["{}", '{"a b":" 1 2 "}', '{"x":"\u2028"}'])
def test_presence_is_stored_as_a_string(info):
    presence = Presence(2, 1_700_000_000_000_001, 1_700_000_000_000_002, info)

    assert parse_presence(str(presence)) == presence
    assert parse_presence("0") is None


@pytest.mark.parametrize("key", ["ada", "a/b", "/", "//"])
def test_entry_name_has_name_and_key(key):
    assert split_entry(entry_name("foo", key)) == ("foo", key)


def test_members_with_the_longest_presence_are_first():
    second, first = Presence(1, 2_000_001, 3, "{}"), Presence(2, 1_000_000, 9, '{"n":1}')
    found = sorted_members(MemberList(1, 4, {"b": second, "a": second, "c": first}))

    assert found == [
        Member("c", {"n": 1}, 2, datetime.fromtimestamp(1, UTC)),
        Member("a", {}, 1, datetime(1970, 1, 1, 0, 0, 2, 1, tzinfo=UTC)),
        Member("b", {}, 1, datetime(1970, 1, 1, 0, 0, 2, 1, tzinfo=UTC)),
    ]
