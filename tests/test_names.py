from itertools import pairwise

import pytest
from channels.layers import BaseChannelLayer
from hypothesis import given
from hypothesis import strategies as st

from echo.exceptions import InvalidName
from echo.names import MAX_NAME_BYTES, check_name, group_name, visible

ALLOWED = [
    "f",
    "foo",
    "foo bar",
    " ",
    ".",
    "..",
    "%2F",
    "a\\b",
    "été",
    "房间",
    "\N{PILE OF POO}",
    "<script>alert(1)<script>",
    "\N{RIGHT-TO-LEFT OVERRIDE}",
    "x" * 128,
    "é" * 64,
    "\N{PILE OF POO}" * 32,
]

REFUSED = [
    ("", "A name has 1 to 128 bytes of UTF-8; this one has 0."),
    ("x" * 129, "A name has 1 to 128 bytes of UTF-8; this one has 129."),
    ("é" * 65, "A name has 1 to 128 bytes of UTF-8; this one has 130."),
    ("a/b", "The name 'a/b' has a slash."),
    ("/", "The name '/' has a slash."),
    ("a\nb", r"The name 'a\nb' has a control character."),
    ("a\x00", r"The name 'a\x00' has a control character."),
    ("\x7f", r"The name '\x7f' has a control character."),
    ("é\x85", r"The name 'é\x85' has a control character."),
    ("\ud800", r"The name '\ud800' is not UTF-8."),
    (7, "The name 7 is not a string."),
    (None, "The name None is not a string."),
    (("a", "b"), "The name ('a', 'b') is not a string."),
    (b"foo", "The name b'foo' is not a string."),
]


@pytest.mark.parametrize("name", ALLOWED)
def test_name_within_the_rules_is_returned_as_it_is(name):
    assert check_name(name) is name


@pytest.mark.parametrize(("name", "message"), REFUSED)
def test_name_outside_the_rules_is_told_which_rule(name, message):
    with pytest.raises(InvalidName) as raised:
        check_name(name)

    assert str(raised.value) == message


@pytest.mark.parametrize("code", [*range(0x20), *range(0x7F, 0xA0)])
def test_name_has_no_control_character(code):
    with pytest.raises(InvalidName):
        check_name(f"a{chr(code)}b")


@given(st.text(max_size=150))
def test_name_is_allowed_exactly_by_the_three_rules(name):
    sized = 1 <= len(name.encode()) <= MAX_NAME_BYTES
    controls = [c for c in name if ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0]

    try:
        allowed = check_name(name) == name
    except InvalidName:
        allowed = False

    assert allowed == (sized and not controls and "/" not in name)


@given(st.text())
def test_group_name_is_legal_for_channels_whatever_the_name(name):
    assert BaseChannelLayer().require_valid_group_name(group_name(name))


def test_group_names_differ_where_names_differ():
    names = [*ALLOWED, "Foo", "foo ", "e\N{COMBINING ACUTE ACCENT}te", *map(str, range(10_000))]

    assert len({group_name(name) for name in names}) == len(set(names))


def test_group_name_stays_the_same_in_every_process():
    """Processes of different releases meet in one group while a site is deployed."""
    expected = "echo.2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"

    assert group_name("foo") == expected


@given(st.lists(st.text(), min_size=2))
def test_group_names_are_equal_for_equal_names_only(names):
    for one, other in pairwise(names):
        assert (group_name(one) == group_name(other)) == (one == other)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\u202eb", "a\\u202eb"),
        ("foo\u200b", "foo\\u200b"),
        ("\ufefffoo", "\\ufefffoo"),
        ("Maß 🚀", "Maß 🚀"),
    ],
)
def test_characters_that_mislead_are_shown(name, shown):
    assert visible(name) == shown
