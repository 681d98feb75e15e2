"""The table of faults: each row is a function that returns its result, or fails."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

ROWS: list["Row"] = []


@dataclass
class Row:
    fault: str
    promise: str
    run: Callable[..., str]
    small: dict[str, Any] | None  # arguments with which it takes <= 10 s


def row(fault: str, promise: str, small: dict[str, Any] | None = None) -> Callable[..., Any]:
    """Add the function to the table."""

    def add(run: Callable[..., str]) -> Callable[..., str]:
        ROWS.append(Row(fault, promise, run, small))
        return run

    return add
