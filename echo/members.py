"""Members: the people, or other identities, behind the connections of an object."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from heapq import nsmallest
from typing import Any, NamedTuple
from uuid import UUID

from echo.names import has_control_character, visible

MAX_KEY_BYTES = 128
MAX_INFO_BYTES = 1024  # of JSON

Key = str | int | UUID


class Member(NamedTuple):
    """A person, or another identity, with one or more connections to an object.

    A `member` function of `counted` sets `key` and `info` only.
    """

    key: Key  # a string in each Member that echo returns
    info: Mapping[str, Any] = {}
    connections: int = 0
    since: datetime | None = None  # UTC; since when the member has been connected


NewMember = tuple[str, str]  # a valid key, and valid info as JSON


class Presence(NamedTuple):
    """The connections of one member, in one process or in all of them. Times are in µs."""

    connections: int
    since: int
    changed: int  # when `info` was set; the newest counts
    info: str  # JSON

    def member(self, key: str) -> Member:
        return _make_member(key, self, json.loads(self.info))

    def __str__(self) -> str:
        return f"{self.connections} {self.since} {self.changed} {self.info}"


class MemberList(NamedTuple):
    """The connections and the members of an object, of the same moment."""

    number: int  # of the last change
    connections: int
    members: dict[str, Presence]  # by key


def sorted_members(members: MemberList) -> list[Member]:
    """Return the members, those with the longest presence first."""
    present = first_members(members.members, None)
    # One call for all infos: a call for each takes ten times as long.
    infos = json.loads(f"[{','.join([presence.info for presence in present.values()])}]")
    return [
        _make_member(key, presence, info)
        for (key, presence), info in zip(present.items(), infos, strict=True)
    ]


def _make_member(key: str, presence: Presence, info: Mapping[str, Any]) -> Member:
    since = datetime.fromtimestamp(presence.since / 1_000_000, UTC)
    return Member(key, info, presence.connections, since)


def member_name(member: Member) -> str:
    """Return the name in the member's info, else the key, with invisible characters escaped."""
    name = member.info.get("name")
    return visible(name if isinstance(name, str) and name else str(member.key))


def first_members(members: Mapping[str, Presence], limit: int | None) -> dict[str, Presence]:
    """Return at most `limit` members, those with the longest presence, in that order."""
    return dict(nsmallest(limit or len(members), members.items(), key=_order))


def _order(member: tuple[str, Presence]) -> tuple[int, str]:
    key, presence = member
    return presence.since, key


def list_data(name: str, members: MemberList, limit: int | None) -> dict[str, Any]:
    """Return the list as data for JSON, with the number of members that it leaves out, if any."""
    shown = first_members(members.members, limit)
    data = [member_data(key, presence) for key, presence in shown.items()]
    more = len(members.members) - len(shown)
    listed = {"name": name, "connections": members.connections, "members": data}
    return {**listed, "more": more} if more else listed


def member_data(key: str, presence: Presence) -> dict[str, Any]:
    """Return the member as data for JSON."""
    since = datetime.fromtimestamp(presence.since // 1_000_000, UTC)
    return {
        "key": key,
        "info": json.loads(presence.info),
        "connections": presence.connections,
        "since": f"{since:%Y-%m-%dT%H:%M:%SZ}",
    }


def parse_presence(text: str) -> Presence | None:
    """Return the Presence of which `text` is the string; None for "0", of a member that left."""
    if text == "0":
        return None
    connections, since, changed, info = text.split(" ", 3)
    return Presence(int(connections), int(since), int(changed), info)


def entry_name(name: str, key: str) -> str:
    """Return the name under which states store the member: object names contain no slash."""
    return f"{name}/{key}"


def split_entry(entry: str) -> tuple[str, str]:
    """Return the name of the object and the key of the member."""
    name, _, key = entry.partition("/")
    return name, key


def check_member(member: Member) -> NewMember:
    """Return key and info if both are valid. Raises as `check_key` and `encode_info` do."""
    if not isinstance(member, Member):
        raise TypeError(f"Expected a Member or None, not {_type(member)}.")
    return check_key(member.key), encode_info(member.info)


# The errors contain neither keys nor infos: they are personal data, and errors are logged.


def check_key(key: Key) -> str:
    """Return the key as a string if it is valid: 1 to 128 bytes of UTF-8, no control characters.

    Raises TypeError or ValueError with the rule that it breaks.
    """
    if isinstance(key, bool) or not isinstance(key, Key):
        raise TypeError(f"A member key is a string, an integer or a UUID, not {_type(key)}.")
    try:
        encoded = str(key).encode()
    except UnicodeEncodeError:
        raise ValueError("The member key is not UTF-8.") from None
    size, key = len(encoded), encoded.decode()  # a plain string: templates escape it
    if not 1 <= size <= MAX_KEY_BYTES:
        rule = f"A member key has 1 to {MAX_KEY_BYTES} bytes of UTF-8"
        raise ValueError(f"{rule}; this one has {size}.")
    if has_control_character(key):
        raise ValueError("The member key has a control character.")
    return key


def encode_info(info: Mapping[str, Any]) -> str:
    """Return the info as JSON. Raises TypeError or ValueError with the rule that it breaks."""
    if not isinstance(info, Mapping):
        raise TypeError(f"The info of a member is a dict, not {_type(info)}.")
    try:
        text = json.dumps(dict(info), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        size = len(text.encode())
    except UnicodeEncodeError:
        raise ValueError("The info of the member is not UTF-8.") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"The info of the member is not JSON: {error}") from error
    if size > MAX_INFO_BYTES:
        rule = f"The info of a member has at most {MAX_INFO_BYTES} bytes of JSON"
        raise ValueError(f"{rule}; this one has {size}.")
    return text


def _type(value: object) -> str:
    return type(value).__name__
