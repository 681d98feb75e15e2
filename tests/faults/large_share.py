"""`python -m tests.faults.large_share <names>`: a process with connections of many objects.

It has one each of "foo" and "name-1", "name-2", ... It prints a line when they are counted, and
exits in order at the end of its input.
"""

import asyncio
import sys

from echo.state import get_state


async def join_all(names: int) -> None:
    state = get_state()
    await state.join("foo")
    for first in range(1, names, 5000):
        numbers = range(first, min(first + 5000, names))
        await asyncio.gather(*(state.join(f"name-{number}") for number in numbers))


if __name__ == "__main__":
    asyncio.run(join_all(int(sys.argv[1])))
    print("All are counted.", flush=True)
    sys.stdin.read()
