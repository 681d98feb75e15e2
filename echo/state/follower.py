"""Collects the changes of a state for one thread or task."""

from collections.abc import Callable, Mapping
from threading import Lock

from echo.state.base import EXTRA, State

MAX_CHANGES = 100_000  # names; if more have changed, all counts are read instead
MEMBER_WEIGHT = 10  # a changed member, with an info of up to 1 KiB, counts as that many names

Changes = dict[str, tuple[int, int]]  # name -> number of its last change, and count
# Entry name of a member -> number of its last change, and presence as a string, "0" if it has left
MemberChanges = dict[str, tuple[int, str]]


def is_object(name: str) -> bool:
    """Return whether the name in a change is that of an object, and not of a member or EXTRA."""
    return name != EXTRA and "/" not in name


class Follower:
    """Collects the changes of the followed names until they are taken. Thread-safe.

    Calls `wake`, in any thread, at the first change after those that were taken.
    """

    def __init__(
        self,
        state: State,
        wake: Callable[[], object],
        follows: Callable[[str], bool] = is_object,
    ) -> None:
        self._wake, self._follows = wake, follows
        self._lock = Lock()
        self._must_read = True
        self._changes: Changes = {}
        self._members: MemberChanges = {}
        self.stop = state.listen(self._on_change)

    def take(self) -> tuple[bool, Changes, MemberChanges]:
        """Return whether to read the counts, because changes may be missing, and the changes.

        A count that was read after change 7 includes all changes up to number 7.
        """
        with self._lock:
            must_read, self._must_read = self._must_read, False
            changes, self._changes = self._changes, {}
            members, self._members = self._members, {}
        return must_read, changes, members

    def read_again(self) -> None:
        """Have the counts read at the next step, because the last one failed."""
        self._on_change(0, None, {})

    def _on_change(
        self, number: int, changes: Mapping[str, int] | None, members: Mapping[str, str]
    ) -> None:
        with self._lock:
            had_any = self._must_read or bool(self._changes or self._members)
            for name, count in (changes or {}).items():
                if self._follows(name):
                    self._changes[name] = number, count
            for entry, presence in members.items():
                if self._follows(entry):
                    self._members[entry] = number, presence
            if (
                changes is None
                or len(self._changes) + MEMBER_WEIGHT * len(self._members) > MAX_CHANGES
            ):
                self._must_read = True
                self._changes.clear()
                self._members.clear()
            if not had_any and (self._must_read or self._changes or self._members):
                self._wake()
