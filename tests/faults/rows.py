"""All rows of the table: importing their modules fills it."""

from tests.faults import (  # noqa: F401
    clock,
    failover,
    limit,
    members,
    messages,
    network,
    processes,
    refusals,
    services,
    shares,
    signals,
)
from tests.faults.table import ROWS

__all__ = ["ROWS"]
