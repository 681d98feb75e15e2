"""The counts of this process, in memory."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from threading import Lock

from echo.members import MemberList, NewMember, Presence, entry_name, split_entry
from echo.state.base import EXTRA, Listener, Objects, State
from echo.state.ledger import Ledger

NO_MEMBERS: Mapping[str, str] = {}


class MemoryState(State):
    """Counts the connections of this process. A name without connections takes no memory."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self._counts: dict[str, int] = {}
        self._members: dict[str, dict[str, Presence]] = {}  # by name and key
        self._changes = 0
        self.connections = 0  # of all objects; one that has several counts once
        self._lock = Lock()
        self._listeners: tuple[Listener, ...] = ()

    async def join_all(self, objects: Objects, member: NewMember | None = None) -> str | None:
        return self.add(objects, member)

    def add(self, objects: Objects, member: NewMember | None = None) -> str | None:
        """Sync version of `join_all`."""
        with self._lock:
            counts = self._counts
            for name, limit in objects:
                if limit is not None and counts.get(name, 0) >= limit:
                    return name
            for name, _ in objects:
                counts[name] = counts.get(name, 0) + 1
            if len(objects) > 1:
                counts[EXTRA] = counts.get(EXTRA, 0) + len(objects) - 1
            if member is not None:
                for name, _ in objects:
                    self._add_member(name, member)
            self.connections += 1
            self._changes += 1
            if self._listeners:
                self._notify([name for name, _ in objects], None if member is None else member[0])
        return None

    def _add_member(self, name: str, member: NewMember) -> None:
        (key, info), now = member, _now()
        present = self._members.setdefault(name, {})
        old = present.get(key) or Presence(0, now, 0, "")
        presence = Presence(old.connections + 1, old.since, max(now, old.changed + 1), info)
        present[key] = presence

    def leave_all(self, names: Sequence[str], key: str | None = None) -> None:
        with self._lock:
            for name in names:
                self._subtract(name, 1)
            if len(names) > 1:
                self._subtract(EXTRA, len(names) - 1)
            if key is not None:
                for name in names:
                    self._remove_member(name, key)
            self.connections -= 1
            self._changes += 1
            if self._listeners:
                self._notify(names, key)

    def _subtract(self, name: str, number: int) -> None:
        count = self._counts[name] - number
        if count:
            self._counts[name] = count
        else:
            del self._counts[name]

    def _remove_member(self, name: str, key: str) -> None:
        present = self._members[name]
        presence = present[key]
        if presence.connections > 1:
            present[key] = presence._replace(connections=presence.connections - 1)
        else:
            del present[key]
            if not present:
                del self._members[name]

    def set_info(self, name: str, key: str, info: str, newer_than: int = 0) -> bool:
        with self._lock:
            presence = self.member(name, key)
            if presence is None:
                return False
            changed = max(_now(), presence.changed + 1, newer_than + 1)
            presence = presence._replace(info=info, changed=changed)
            self._members[name][key] = presence
            self._changes += 1
            self._notify([name], key)
        return True

    def local_member(self, name: str, key: str) -> Presence | None:
        return self.member(name, key)

    def member(self, name: str, key: str) -> Presence | None:
        return self._members.get(name, {}).get(key)

    def member_count(self, name: str) -> int:
        return len(self._members.get(name, ()))

    def _notify(self, names: Sequence[str], key: str | None) -> None:
        """Call the listeners, with the lock held, so that the numbers are in order.

        `key`: the member of these objects that has changed.
        """
        changed = names if len(names) == 1 else [*names, EXTRA]
        counts = {name: self._counts.get(name, 0) for name in changed}
        members = NO_MEMBERS
        if key is not None:
            entries = [entry_name(name, key) for name in names]
            members = {entry: str(self._value(entry)) for entry in entries}
        for listener in self._listeners:
            listener(self._changes, counts, members)

    def count(self, name: str) -> int:
        return self._counts.get(name, 0)

    def snapshot(self, name: str | None = None) -> tuple[int, dict[str, int]]:
        with self._lock:
            if name is None:
                return self._changes, dict(self._counts)
            return self._changes, {name: self._counts.get(name, 0)}

    def members(self, name: str) -> MemberList:
        with self._lock:
            members = dict(self._members.get(name, {}))
            return MemberList(self._changes, self._counts.get(name, 0), members)

    def values(self, names: Iterable[str] | None = None) -> dict[str, int | str]:
        """Return counts and presences, of one moment, by name or entry name; None: all."""
        with self._lock:
            if names is None:
                entries = {entry: self._value(entry) for entry in self._entry_names()}
                return {**self._counts, **entries}
            get = self._counts.get
            return {name: self._value(name) if "/" in name else get(name, 0) for name in names}

    def entry_names(self) -> list[str]:
        """Return the entry names of all members."""
        with self._lock:
            return self._entry_names()

    def _entry_names(self) -> list[str]:
        return [entry_name(name, key) for name, keys in self._members.items() for key in keys]

    def _value(self, entry: str) -> int | str:
        presence = self.member(*split_entry(entry))
        return 0 if presence is None else str(presence)

    async def settled(self) -> None:
        """Return at once: each change is visible immediately."""

    def listen(self, listener: Listener) -> Callable[[], None]:
        with self._lock:
            self._listeners = (*self._listeners, listener)

        def stop() -> None:
            with self._lock:
                self._listeners = tuple(each for each in self._listeners if each is not listener)

        return stop


def _now() -> int:
    return time.time_ns() // 1000
