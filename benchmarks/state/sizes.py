"""How much of everything there is while a figure is measured."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """The sizes of a run."""

    processes: tuple[int, ...]  # that share a Redis, each with all of SHARED objects
    objects: tuple[int, ...]  # each in one of SPREAD_OVER processes
    written: tuple[int, ...]  # objects in one write
    connected: int  # objects while one more is occupied
    idle: int  # processes
    subscribers: tuple[int, ...]  # of the change feed


SHARED = 1000  # objects
SPREAD_OVER = 100  # processes
FULL = Sizes(
    processes=(1, 4, 100, 400),
    objects=(1000, 100_000, 1_000_000),
    written=(1, 10, 100, 1000),
    connected=100_000,
    idle=10,
    subscribers=(0, 100, 400),
)
SHORT = Sizes(
    processes=(1, 4),
    objects=(1000,),
    written=(1, 10),
    connected=1000,
    idle=2,
    subscribers=(0, 10),
)
