"""The members of objects as server-sent events: the whole list first, then its differences.

A stream remembers the list that its client has. The difference from that list to the latest one is
computed when the stream sends it, so a slow client misses no change, and only once for all streams
whose clients have the same list.
"""

import asyncio
import itertools
import json
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from echo.conf import conf
from echo.exceptions import StateUnavailable
from echo.live.stream import UNKNOWN_EVENT, Stream
from echo.live.watcher import Shown, Watcher
from echo.members import (
    MemberList,
    Presence,
    first_members,
    member_data,
    parse_presence,
    split_entry,
)
from echo.state.follower import Changes, MemberChanges

_revisions = itertools.count()


class ShownList:
    """The part of the members of an object that streams show, at one moment."""

    def __init__(self, name: str, connections: int, members: dict[str, Presence], more: int):
        self.name, self.connections, self.members, self.more = name, connections, members, more
        self.revision = next(_revisions)
        self._texts: dict[int | None, str] = {}  # by the revision of the earlier list

    def text_after(self, earlier: "ShownList | None") -> str:
        """Return the events that turn the earlier list into this one; "" if nothing changed."""
        key = None if earlier is None else earlier.revision
        if key not in self._texts:
            self._texts[key] = self._whole() if earlier is None else self._difference(earlier)
        return self._texts[key]

    def _whole(self) -> str:
        data = {"name": self.name, **self._numbers(self.more), "members": _data(self.members)}
        return f"data: {json.dumps(data)}\n\n"

    def _difference(self, earlier: "ShownList") -> str:
        was, now = earlier.members, self.members
        changed = {
            "left": {key: was[key]._replace(connections=0) for key in was if key not in now},
            "joined": {key: now[key] for key in now if key not in was},
            # A member that has left and joined again has another `since`; that is no event.
            "updated": {key: now[key] for key in now if key in was and _differ(now[key], was[key])},
        }
        # After each event, the list of the client and `more` add up to all members.
        more = {"left": self.more + len(changed["joined"])}
        text = "".join(
            self._event(kind, more.get(kind, self.more), members=_data(members))
            for kind, members in changed.items()
            if members
        )
        has_changed = (self.connections, self.more) != (earlier.connections, earlier.more)
        return text or (self._event("connections", self.more) if has_changed else "")

    def _event(self, kind: str, more: int, **data: Any) -> str:
        return f"event: {kind}\ndata: {json.dumps({**self._numbers(more), **data})}\n\n"

    def _numbers(self, more: int) -> dict[str, int]:
        numbers = {"connections": self.connections}
        return {**numbers, "more": more} if more else numbers


def _differ(one: Presence, other: Presence) -> bool:
    return (one.connections, one.info) != (other.connections, other.info)


def _data(members: dict[str, Presence]) -> list[dict[str, Any]]:
    return [member_data(key, presence) for key, presence in members.items()]


UNKNOWN = ShownList("", 0, {}, 0)


class MemberStream(Stream[ShownList]):
    """The stream of one client: the members of one object."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._sent = UNKNOWN  # the list that the client has

    def text(self, event: ShownList) -> str:
        earlier, self._sent = self._sent, event
        if event is UNKNOWN:
            return UNKNOWN_EVENT
        return event.text_after(None if earlier is UNKNOWN else earlier)


class WatchedMembers(Shown[ShownList]):
    """The members of the object that some streams show.

    Keeps all members, so that it can distinguish the first connection of a member from further
    ones. The streams show the first ECHO_MAX_MEMBERS_SHOWN members and the number of the others:
    otherwise an object with twice as many members would cause four times as many events.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._limit = conf.ECHO_MAX_MEMBERS_SHOWN
        self._members: dict[str, Presence] | None = None  # None: unknown
        self._connections = 0
        self._shown: dict[str, Presence] | None = None  # None: to be sorted again
        self._last_since = 0  # of the last one shown

    def is_known(self) -> bool:
        return self._members is not None

    def set(self, members: MemberList | None) -> bool:
        """Replace the members by those of a read; return whether they have changed."""
        if members is None:
            has_changed, self._members = self.is_known(), None
            return has_changed
        has_changed = (members.connections, members.members) != (self._connections, self._members)
        self.number, self._connections, self._members = members
        self._shown = None
        return has_changed

    def update(self, count: tuple[int, int], members: dict[str, tuple[int, str]]) -> bool:
        """Apply changes, unless the last read included them; return whether any has been applied.

        They are numbers of changes, and the new count and presences.
        """
        if self._members is None:
            return False
        has_changed = False
        if count[0] > self.number and count[1] != self._connections:
            self._connections = count[1]
            has_changed = True
        for key, (number, text) in members.items():
            if number > self.number:
                self._put(self._members, key, parse_presence(text))
                has_changed = True
        return has_changed

    def _put(self, members: dict[str, Presence], key: str, presence: Presence | None) -> None:
        if presence is None:
            members.pop(key, None)
        else:
            members[key] = presence
        # Sorting 10,000 members takes milliseconds: avoid it if a member changes that is not shown.
        is_later = presence is None or presence.since > self._last_since
        if self._shown is not None and (
            key in self._shown or len(self._shown) != self._limit or not is_later
        ):
            self._shown = None

    def event(self) -> ShownList:
        if self._members is None:
            return UNKNOWN
        if self._shown is None:
            self._shown = first_members(self._members, self._limit)
            self._last_since = max((each.since for each in self._shown.values()), default=0)
        more = len(self._members) - len(self._shown)
        return ShownList(str(self.name), self._connections, self._shown, more)


NO_CHANGE = 0, 0
# After a read, new streams of the object wait for that many times its duration until the next read:
# if thousands of clients of a large object reconnect one after the other, most share a read.
READ_PAUSE, MAX_READ_PAUSE = 10, 1.0  # the latter in seconds


class MemberWatcher(Watcher[WatchedMembers]):
    """Follows the members."""

    def _watch(self, name: str | None) -> WatchedMembers:
        return WatchedMembers(str(name))

    def _follows(self, name: str) -> bool:
        return split_entry(name)[0] in self._watched

    def _apply(self, changes: Changes, members: MemberChanges) -> Iterator[WatchedMembers]:
        by_name: defaultdict[str, dict[str, tuple[int, str]]] = defaultdict(dict)
        for entry, change in members.items():
            name, key = split_entry(entry)
            by_name[name][key] = change
        for name in {*changes, *by_name}:
            if name in self._watched:
                watched = self._watched[name]
                if watched.update(changes.get(name, NO_CHANGE), by_name[name]):
                    yield watched

    async def _read_state(self, to_read: list[WatchedMembers]) -> list[bool]:
        began = self._loop.time()
        read = await asyncio.gather(*(self._members(str(each.name)) for each in to_read))
        now = self._loop.time()
        for watched in to_read:
            watched.next_read = now + min(MAX_READ_PAUSE, READ_PAUSE * (now - began))
        return [watched.set(members) for watched, members in zip(to_read, read, strict=True)]

    async def _members(self, name: str) -> MemberList | None:
        try:
            return await self._state.amembers(name)
        except StateUnavailable:
            return None
