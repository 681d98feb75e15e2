"""An idle socket on the channel layers of channels_redis, with the settings that the docs give."""

import asyncio
import re
from typing import Any

import pytest
from channels.layers import ChannelLayerManager
from pytest_django import Settings

from tests.servers import ROOT
from tests.waiting import DEADLINE

IDLE = 6  # seconds: longer than redis-py 8 waits by default, which no slow machine changes
PUBSUB = {
    "default": {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {"hosts": ["redis://localhost:6379/0"]},
    }
}


def documented() -> dict[str, Any]:
    page = (ROOT / "docs" / "howto" / "many-processes.md").read_text()
    [block] = re.findall(r"```python\n(CHANNEL_LAYERS = [^`]*socket_timeout[^`]*)```", page)
    names: dict[str, Any] = {}
    exec(block, names)
    return names["CHANNEL_LAYERS"]


def at(url: str, host: Any) -> Any:
    """Return that host of the settings, at the Redis of the tests."""
    return {**host, "address": url} if isinstance(host, dict) else url


@pytest.mark.slow
@pytest.mark.parametrize("layers", [documented(), PUBSUB], ids=["core", "pub/sub"])
async def test_message_comes_after_a_long_silence(
    settings: Settings, redis_url: str, layers: dict[str, Any]
) -> None:
    hosts = [at(redis_url, host) for host in layers["default"]["CONFIG"]["hosts"]]
    settings.CHANNEL_LAYERS = {"default": {**layers["default"], "CONFIG": {"hosts": hosts}}}
    layer = ChannelLayerManager()["default"]
    channel = await layer.new_channel()
    await layer.group_add("group", channel)

    receiving = asyncio.create_task(layer.receive(channel))
    done, _ = await asyncio.wait([receiving], timeout=IDLE)
    assert not done, receiving.exception()
    await layer.group_send("group", {"type": "hello"})

    async with asyncio.timeout(DEADLINE):
        assert await receiving == {"type": "hello"}
    await layer.flush()
