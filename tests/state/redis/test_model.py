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
        "          redis.call('HDEL', key, name)\n",
        "",
    ),
    "a change is not published": (
        "REMOVE",
        "  end\n  return publish()\nend\n",
        "  end\n  return 1\nend\n",
    ),
}


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("mistake", MISTAKES)
def test_model_finds_a_mistake(monkeypatch, mistake):
    name, line, replacement = MISTAKES[mistake]
    script = copy(getattr(model, name))
    assert script.text.count(line) == 1
    script.set_text(script.text.replace(line, replacement))
    monkeypatch.setattr(model, name, script)

    with pytest.raises((AssertionError, ExceptionGroup)):
        model.run(20 * STEPS, LENGTH, seed=1, shrink=False)
