"""The counts of one process."""

import asyncio
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from echo.state.memory import MemoryState


@given(st.lists(st.tuples(st.booleans(), st.sampled_from("abc"))))
def test_counts_are_joins_minus_leaves(steps):
    async def run():
        state, here = MemoryState(), Counter()
        for joins, name in steps:
            if joins:
                await state.join(name)
                here[name] += 1
            elif here[name]:
                state.leave(name)
                here[name] -= 1
            assert state.counts() == dict(+here)
            assert state.count(name) == here[name]

    asyncio.run(run())
