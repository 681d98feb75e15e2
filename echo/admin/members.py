"""The members that the admin pages show."""

import json
from typing import Any

from echo.exceptions import StateUnavailable
from echo.members import MemberList, Presence, first_members, member_name
from echo.names import visible
from echo.state import get_state


def read_members(name: str) -> MemberList | None:
    """Return the members of the object, None if they are unknown."""
    try:
        return get_state().members(name)
    except StateUnavailable:
        return None


def rows_of(present: MemberList | None, search: str, sort: str) -> list[tuple[str, Presence]]:
    """Return the members whose name or key contains the text, with the longest presence first.

    `sort` may be "name", or "count" for those with the most connections first. The infos are parsed
    only where names are needed: parsing 10,000 takes longer than reading them.
    """
    rows = [] if present is None else list(first_members(present.members, None).items())
    if search:
        text = search.casefold()
        rows = [
            (key, presence)
            for key, presence in rows
            if text in key.casefold() or text in _name_of(key, presence)
        ]
    if sort == "name":
        rows.sort(key=lambda row: _name_of(*row))
    elif sort == "count":
        rows.sort(key=lambda row: -row[1].connections)
    return rows


def _name_of(key: str, presence: Presence) -> str:
    return member_name(presence.member(key)).casefold()


def member_context(name: str, key: str) -> dict[str, Any]:
    """Return the context of a member: `member` is None if it has no connection.

    If that is unknown, `known` is False.
    """
    try:
        presence, known = get_state().member(name, key), True
    except StateUnavailable:
        presence, known = None, False
    member = None if presence is None else presence.member(key)
    return {
        "key": key,
        "member": member,
        "member_name": visible(key) if member is None else member_name(member),
        "info": "" if member is None else json.dumps(member.info, ensure_ascii=False, indent=2),
        "known": known,
    }
