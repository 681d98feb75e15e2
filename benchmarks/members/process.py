"""`python -m benchmarks.members.process FIRST NUMBER URL`: a process with members.

Prints "ready" when they have joined. At each line of its input, lists the members of the object,
and prints the milliseconds, the number of members, and the error if there was one.
"""

import asyncio
import json
import sys
import time

from django.conf import settings

NAME = "lobby"
CONCURRENT = 100


def info(key: str) -> str:
    """Return the info of a member as JSON."""
    return json.dumps({"name": f"Member {key}"}, separators=(",", ":"))


async def join(first: int, number: int) -> None:
    from echo.state import get_state

    state, keys = get_state(), iter(range(first, first + number))

    async def join_each() -> None:
        for key in keys:
            await state.join(NAME, member=(str(key), info(str(key))))

    await asyncio.gather(*(join_each() for _ in range(CONCURRENT)))
    await state.settled()


def listed() -> dict[str, object]:
    from echo.exceptions import StateUnavailable
    from echo.objects import get_object

    found, error = 0, ""
    began = time.perf_counter()
    try:
        found = len(get_object(NAME).members())
    except StateUnavailable as unavailable:
        error = str(unavailable)
    return {"ms": (time.perf_counter() - began) * 1000, "found": found, "error": error}


def main() -> None:
    first, number, url = sys.argv[1:]
    settings.configure(USE_I18N=False, ECHO_STATE_URL=url)
    asyncio.run(join(int(first), int(number)))
    print("ready", flush=True)
    for _line in sys.stdin:
        print(json.dumps(listed()), flush=True)


if __name__ == "__main__":
    main()
