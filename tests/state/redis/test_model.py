"""The scripts and a model of them; `python -m tests.state.redis.model` runs many more steps."""

from copy import copy

import pytest

from tests.state.redis import model

STEPS, LENGTH = 400, 50


@pytest.fixture
def server(own_redis):
    model.configure(own_redis.url)
    return own_redis


@pytest.mark.usefixtures("server")
def test_all_steps_agree_with_the_model():
    seen = model.run(STEPS, LENGTH, seed=1)

    assert seen["steps"] >= STEPS
    assert min(seen[each] for each in ("write: applied", "(read: known)", "(epoch)")) > 0


MISTAKES = {
    "a dead process is counted": (
        "COUNTS",
        "if #dead > 0 then",
        "if false then",
    ),
    "nobody is awaited": (
        "WRITE",
        "  redis.call('SADD', awaited, process)\n",
        "",
    ),
    "a late write is applied": (
        "WRITE",
        "  if current > sequence then return false end\n",
        "",
    ),
    "a slice is subtracted, and stays in the share": (
        "WRITE",
        "        redis.call('HDEL', bucket_key(key, bucket), name)\n",
        "",
    ),
    "names stay in the bucket that was split": (
        "WRITE",
        "  if #delete > 2 then redis.call(unpack(delete)) end\n",
        "",
    ),
    "a number in a further bucket of a dead process is counted": (
        "COUNTS",
        "tonumber(fields[2] or 1)",
        "1",
    ),
    "a change is not published": (
        "REMOVE",
        "  return publish()\nend\nunlink_share(share)\n",
        "  return 1\nend\nunlink_share(share)\n",
    ),
    "a member of a dead process is listed": (
        "MEMBERS",
        "  elseif #dead > 0 then\n",
        "  elseif false then\n",
    ),
    "a member of a dead process is found": (
        "MEMBER",
        "total = live(name .. '/' .. key, tonumber(total))\n",
        "total = tonumber(total)\n",
    ),
    "members of dead processes are in their number": (
        "MEMBER_COUNT",
        "if #ids('-inf', text(now), 'LIMIT', 0, 1) > 0 then return {-1} end\n",
        "",
    ),
    "members of an earlier epoch are listed": (
        "MEMBERS",
        "if redis.call('HGET', hash, '') ~= epoch then\n",
        "if not redis.call('HGET', hash, '') then\n",
    ),
    "members of an earlier epoch are kept": (
        "WRITE",
        "    if redis.call('HGET', hash, '') ~= epoch then\n",
        "    if not redis.call('HGET', hash, '') then\n",
    ),
    "older info replaces newer info": (
        "WRITE",
        "new_info and tonumber(new_changed_at) > tonumber(changed_at)\n",
        "new_info\n",
    ),
    "the time of the last connection is listed": (
        "WRITE",
        "tonumber(new_since) < tonumber(since)\n",
        "tonumber(new_since) > tonumber(since)\n",
    ),
    "info changes only with the number of connections": (
        "WRITE",
        "if count ~= previous or presence or not is_valid then\n",
        "if count ~= previous or not is_valid then\n",
    ),
    "the count does not change with the members of its object": (
        "WRITE",
        "    if difference ~= 0 and not counted[name] then\n",
        "    if false then\n",
    ),
    "the parts of a whole share count twice": (
        "WRITE",
        "local slash = more == '' and",
        "local slash = begin == '0' and",
    ),
    "connections that have left, but are still counted, make room": (
        "RESERVE",
        "limit - math.max(count, previous) - others",
        "limit - count - others",
    ),
    "connections that are not written yet make room": (
        "RESERVE",
        "limit - math.max(count, previous) - others",
        "limit - previous - others",
    ),
    "only the limit of the first object holds": (
        "RESERVE",
        "      if free < granted then",
        "      if n == 0 and free < granted then",
    ),
    "a limit is named that is not reached": (
        "RESERVE",
        "full = free, n end",
        "full = free, 0 end",
    ),
    "a connection of several objects counts several times": (
        "RESERVE",
        "if further > 0 then add(extra, further) end\n",
        "",
    ),
    "groups have the room of an object each": (
        "RESERVE",
        "      count = count + (reserved[name] or 0)\n",
        "",
    ),
    "only the last group of a connection of several objects counts once": (
        "RESERVE",
        "further = further + (objects - 1) * granted",
        "further = (objects - 1) * granted",
    ),
    "a member that has left is not published": (
        "WRITE",
        "  changed[#changed + 1] = entry\n",
        "  if total == 0 then return end\n  changed[#changed + 1] = entry\n",
    ),
    "members of a removed share stay": (
        "REMOVE",
        "      if string.sub(entries[i], 1, 1) ~= '/' then",
        "      if not string.find(entries[i], '/') then",
    ),
}


# The model needs more than 8 seconds to find these.
LONG = {
    "a connection of several objects counts several times",
    "a limit is named that is not reached",
    "a member that has left is not published",
    "a slice is subtracted, and stays in the share",
    "connections that are not written yet make room",
    "connections that have left, but are still counted, make room",
    "members of an earlier epoch are listed",
    "only the limit of the first object holds",
    "groups have the room of an object each",
    "only the last group of a connection of several objects counts once",
    "a member of a dead process is found",
    "members of dead processes are in their number",
    "a change is not published",
    "members of a removed share stay",
    "a dead process is counted",
    "the count does not change with the members of its object",
    "a member of a dead process is listed",
    "a number in a further bucket of a dead process is counted",
    "info changes only with the number of connections",
    "the parts of a whole share count twice",
}


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize(
    "mistake",
    [
        pytest.param(each, marks=[pytest.mark.slow, pytest.mark.long] if each in LONG else [])
        for each in MISTAKES
    ],
)
def test_model_finds_a_mistake(monkeypatch, mistake):
    name, line, replacement = MISTAKES[mistake]
    script = copy(getattr(model, name))
    assert script.text.count(line) == 1
    script.set_text(script.text.replace(line, replacement))
    monkeypatch.setattr(model, name, script)

    with pytest.raises((AssertionError, ExceptionGroup)):
        model.run(20 * STEPS, LENGTH, seed=1, shrink=False)
