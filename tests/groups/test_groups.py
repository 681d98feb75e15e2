import asyncio
import logging
import random
import time
from collections import defaultdict
from itertools import count
from threading import Thread

import pytest
import redis
from channels.layers import get_channel_layer

from echo import log
from echo.groups import connection, subscription
from echo.groups.connection import GroupConnection
from echo.groups.group import get_groups, send_to_group
from echo.groups.subscription import JOIN_TIMEOUT
from echo.names import group_name
from echo.objects import get_object
from tests.faults.link import Link
from tests.redis_server import RedisServer
from tests.waiting import DEADLINE, SECOND, eventually

BACKENDS = {
    "memory": "channels.layers.InMemoryChannelLayer",
    "redis": "channels_redis.core.RedisChannelLayer",
    "pubsub": "channels_redis.pubsub.RedisPubSubChannelLayer",
}


def text(content):
    return {"type": "websocket.send", "text": str(content)}


async def until(read, expected, deadline=DEADLINE):
    await asyncio.to_thread(eventually, read, expected, deadline)


class Peer:
    """A connection in a group, and what was sent to it."""

    def __init__(self, started=True):
        self.got = []
        self.member = GroupConnection(self._send)
        if started:
            self.member.start()

    async def _send(self, event):
        self.got.append(event)


async def join(name, member):
    """Join as a handshake does."""
    subscribed = get_groups().join(name, member)
    if subscribed is not None:
        await asyncio.wait([subscribed], timeout=JOIN_TIMEOUT)


async def joined(name="foo"):
    peer = Peer()
    await join(name, peer.member)
    return peer


def left(peer, name="foo"):
    get_groups().leave(name, peer.member)


class Layer:
    """A channel layer behind the groups, and what it knows of them."""

    def __init__(self, kind, url=None):
        self.kind = kind
        self.url = url

    @property
    def setting(self):
        return self.setting_at(self.url)

    def setting_at(self, url):
        config = {"hosts": [{"address": url, "socket_timeout": None}]} if url else {}
        return {"default": {"BACKEND": BACKENDS[self.kind], "CONFIG": config}}

    def memberships(self, name="foo"):
        """Return how many times this process is in the group, in the eyes of the layer."""
        group = group_name(name)
        if self.kind == "memory":
            return len(get_channel_layer().groups.get(group, {}))
        with redis.Redis.from_url(self.url) as client:
            if self.kind == "redis":
                return client.zcard(f"asgi:group:{group}")
            return client.pubsub_numsub(f"asgi__group__{group}")[0][1]

    def send_from_another_process(self, name, event, key=None, exclude=None):
        """Send through a layer, a loop and connections of its own, as another process would."""
        thread = Thread(target=asyncio.run, args=(send_to_group(name, event, key, exclude),))
        thread.start()
        thread.join()


@pytest.fixture(autouse=True)
async def no_task_is_left():
    yield
    if tasks := asyncio.all_tasks() - {asyncio.current_task()}:
        for task in tasks:
            task.cancel()
        _, unfinished = await asyncio.wait(tasks, timeout=DEADLINE)
        assert unfinished == set()
    layer = get_channel_layer()
    if hasattr(layer, "close_pools"):
        await layer.close_pools()
    elif layer is not None and hasattr(layer, "_layers"):
        for each in layer._layers.values():
            await each.flush()


@pytest.fixture(params=BACKENDS)
def layer(request, settings, no_task_is_left):
    url = None if request.param == "memory" else request.getfixturevalue("redis_url")
    layer = Layer(request.param, url)
    settings.CHANNEL_LAYERS = layer.setting
    return layer


@pytest.fixture(params=["redis", "pubsub"])
def frail(request, settings, no_task_is_left):
    """A layer on a Redis that only this test has, so that it may fail."""
    with RedisServer() as server:
        layer = Layer(request.param, server.url)
        layer.server = server
        settings.CHANNEL_LAYERS = layer.setting
        yield layer


@pytest.fixture
def link(frail, settings):
    """The link to the Redis of the layer."""
    with Link(frail.server.port, 0.01) as link:
        settings.CHANNEL_LAYERS = frail.setting_at(f"redis://127.0.0.1:{link.port}/0")
        yield link


@pytest.fixture
def impatient(monkeypatch):
    """Probes that follow each other sooner, and calls that fail sooner."""
    monkeypatch.setattr(subscription, "PROBE_INTERVAL", 0.2 * SECOND)
    monkeypatch.setattr(subscription, "PROBE_ATTEMPTS", 7)
    monkeypatch.setattr(subscription, "CALL_TIMEOUT", 0.5 * SECOND)


def warnings(caplog):
    return [r.getMessage() for r in caplog.records if r.name == "echo.groups.subscription"]


async def test_process_is_in_a_group_once_whatever_the_number_of_members(layer):
    peers = [await joined() for _ in range(20)]

    assert layer.memberships() == 1
    for peer in peers:
        left(peer)


async def test_message_to_a_group_reaches_all_its_members_in_order(layer):
    peers = [await joined() for _ in range(10)]
    other = await joined("bar")

    for number in range(50):
        await send_to_group("foo", text(number))

    expected = [text(number) for number in range(50)]
    for peer in peers:
        await until(lambda peer=peer: peer.got, expected)
        left(peer)
    assert other.got == []
    left(other, "bar")


async def test_message_to_a_member_reaches_its_connections_only(layer):
    peers = {key: await joined() for key in ("ada", "bob", "a/b")}
    visitor = await joined()
    for key, peer in peers.items():
        peer.member.key = key

    for key in peers:
        await send_to_group("foo", text(f"to {key}"), key)
    await send_to_group("foo", text("to nobody"), "eve")
    await send_to_group("foo", text("to all"))

    for key, peer in peers.items():
        await until(lambda peer=peer: peer.got, [text(f"to {key}"), text("to all")])
        left(peer)
    await until(lambda: visitor.got, [text("to all")])
    left(visitor)


async def test_message_does_not_reach_the_connection_that_is_excluded(layer):
    sender, *others = [await joined() for _ in range(3)]
    sender.member.key = others[0].member.key = "ada"

    await send_to_group("foo", text("hello"), exclude=sender.member.id)
    await send_to_group("foo", text("to ada"), "ada", sender.member.id)
    await send_to_group("foo", text("to all"))

    await until(lambda: others[0].got, [text(each) for each in ("hello", "to ada", "to all")])
    await until(lambda: others[1].got, [text("hello"), text("to all")])
    await until(lambda: sender.got, [text("to all")])
    for peer in (sender, *others):
        left(peer)


@pytest.mark.parametrize("layer", ["redis", "pubsub"], indirect=True)
async def test_message_of_another_process_reaches_one_member_or_all_but_one_connection(layer):
    ada, bob = await joined(), await joined()
    ada.member.key, bob.member.key = "ada", "bob"
    send = layer.send_from_another_process

    await asyncio.to_thread(send, "foo", text("to ada"), "ada")
    await asyncio.to_thread(send, "foo", text("not to ada"), None, ada.member.id)

    await until(lambda: ada.got, [text("to ada")])
    await until(lambda: bob.got, [text("not to ada")])
    left(ada)
    left(bob)


@pytest.mark.parametrize("layer", ["redis", "pubsub"], indirect=True)
async def test_message_of_another_process_reaches_all_members(layer):
    peers = [await joined() for _ in range(3)]

    await asyncio.to_thread(layer.send_from_another_process, "foo", text("hello"))

    for peer in peers:
        await until(lambda peer=peer: peer.got, [text("hello")])
        left(peer)


async def test_message_reaches_a_member_that_has_just_joined(layer):
    """What is sent after `join` has returned and before the handshake is answered waits."""
    peer = Peer(started=False)
    await join("foo", peer.member)

    await send_to_group("foo", text("hello"))
    await asyncio.sleep(0.1 * SECOND)
    assert peer.got == []
    peer.member.start()

    await until(lambda: peer.got, [text("hello")])
    left(peer)


async def test_layer_that_cannot_be_made_is_logged_and_keeps_nobody_out(settings, caplog):
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": "missing.package.Layer"}}
    log._last.clear()

    peers = [await joined() for _ in range(3)]

    (record,) = [record for record in caplog.records if record.name == "echo.groups.layer"]
    assert record.getMessage() == (
        "CHANNEL_LAYERS cannot be used, messages reach no connection: "
        "Cannot import BACKEND 'missing.package.Layer' specified for default"
    )
    for peer in peers:
        left(peer)
    settings.CHANNEL_LAYERS = {}


async def test_group_is_left_with_its_last_member(layer):
    one, other = await joined(), await joined()

    left(one)
    await send_to_group("foo", text("hello"))
    await until(lambda: other.got, [text("hello")])
    assert (layer.memberships(), one.got) == (1, [])

    left(other)
    await until(layer.memberships, 0)


async def test_member_that_has_left_can_leave_again(layer):
    peer = await joined()
    other = await joined()

    left(peer)
    left(peer)
    left(Peer())

    assert layer.memberships() == 1
    left(other)


async def test_group_can_be_joined_again(layer):
    for number in range(5):
        peer = await joined()
        await send_to_group("foo", text(number))
        await until(lambda peer=peer: peer.got, [text(number)])
        left(peer)


@pytest.mark.parametrize("seed", range(5))
async def test_layer_knows_who_is_there_after_any_sequence(layer, seed):
    """Joins and leaves of 40 connections in 3 groups, interleaved at will."""
    chance = random.Random(seed)
    stays = defaultdict(list)

    async def come_and_go(name):
        peer = Peer()
        joining = asyncio.ensure_future(join(name, peer.member))
        for _ in range(chance.randrange(10)):
            await asyncio.sleep(0)
        if chance.random() < 0.3:
            joining.cancel()
        await asyncio.wait([joining])
        if joining.cancelled() or chance.random() < 0.7:
            left(peer, name)
        else:
            stays[name].append(peer)

    async def turns():
        for _ in range(10):
            calls = [come_and_go(chance.choice("abc")) for _ in range(4)]
            await asyncio.gather(*calls)
            while stays and chance.random() < 0.6:
                name = chance.choice(list(stays))
                left(stays[name].pop(), name)
                if not stays[name]:
                    del stays[name]

    await turns()

    expected = {name: int(name in stays) for name in "abc"}
    await until(lambda: {name: layer.memberships(name) for name in "abc"}, expected)
    for name in stays:
        await send_to_group(name, text("hello"))
    for name, peers in stays.items():
        for peer in peers:
            await until(lambda peer=peer: peer.got, [text("hello")])
            left(peer, name)


async def test_names_that_were_used_once_leave_nothing_behind(layer):
    for number in range(200):
        left(await joined(f"name-{number}"), f"name-{number}")

    this = get_groups()
    await until(lambda: {*this._subscription._added, *this._subscription._pending}, set())
    assert this._connections == {}
    if layer.kind == "memory":
        assert get_channel_layer().groups == {}
    elif layer.kind == "redis":
        with redis.Redis.from_url(layer.url) as client:
            assert client.keys("asgi:group:*") == []
    else:
        with redis.Redis.from_url(layer.url) as client:
            assert client.pubsub_channels("asgi__group__*") == []


class SlowPeer(Peer):
    """A connection whose client does not read: a send takes until `reads.set()`."""

    def __init__(self):
        super().__init__()
        self.reads = asyncio.Event()

    async def _send(self, event):
        await self.reads.wait()
        await super()._send(event)


async def test_slow_member_delays_nobody(layer):
    slow = SlowPeer()
    await join("foo", slow.member)
    fast = await joined()

    for number in range(20):
        await send_to_group("foo", text(number))

    await until(lambda: len(fast.got), 20)
    assert slow.got == []
    slow.reads.set()
    await until(lambda: slow.got, fast.got)
    left(slow)
    left(fast)


async def test_member_that_lets_too_much_wait_is_closed(monkeypatch, settings):
    monkeypatch.setattr(connection, "MAX_QUEUED_EVENTS", 10)
    slow, fast = SlowPeer(), Peer()
    for peer in (slow, fast):
        await join("foo", peer.member)

    for number in range(15):
        await send_to_group("foo", text(number))
        await until(lambda: len(fast.got), number + 1)

    slow.reads.set()
    close = {"type": "websocket.close", "code": 1008, "reason": "Reads too slowly"}
    await until(lambda: slow.got[:2], [text(0), close])
    left(slow)
    left(fast)


async def test_member_whose_connection_is_closed_disturbs_nobody():
    class ClosedPeer(Peer):
        async def _send(self, event):
            raise OSError("closed")

    closed = ClosedPeer()
    await join("foo", closed.member)
    peer = await joined()

    for number in range(3):
        await send_to_group("foo", text(number))

    await until(lambda: peer.got, [text(number) for number in range(3)])
    left(closed)
    left(peer)


async def test_member_is_sent_nothing_after_it_has_left():
    slow = SlowPeer()
    await join("foo", slow.member)
    await send_to_group("foo", text("hello"))
    await asyncio.sleep(0)

    left(slow)
    slow.reads.set()
    await asyncio.sleep(0.05 * SECOND)

    assert slow.got == []


async def noticed(caplog, number):
    """Return when this outage, the `number`-th, is known: the pub/sub layer needs some calls."""
    warned = 2 * number - 1
    for attempt in range(int(DEADLINE / (0.1 * SECOND))):
        left(await joined(f"attempt-{attempt}"), f"attempt-{attempt}")
        if len(warnings(caplog)) >= warned:
            break
        await asyncio.sleep(0.1 * SECOND)
    assert len(warnings(caplog)) == warned


async def messages_flow(layer, peer, deadline=DEADLINE):
    """Return when a message to the group reaches the member: some before it may be lost."""
    numbers = count()

    def sent_and_received():
        try:
            layer.send_from_another_process("foo", text(next(numbers)))
        except Exception:
            return False
        time.sleep(0.05)
        return bool(peer.got)

    peer.got.clear()
    await until(sent_and_received, True, deadline)


async def test_connections_outlive_an_outage_of_the_layer(frail, caplog):
    """One warning when it begins, one when it ends, and messages flow again."""
    peer = await joined()
    await messages_flow(frail, peer)

    frail.server.stop()
    await noticed(caplog, 1)
    other = await joined("bar")
    late = await joined()
    await asyncio.sleep(0.5 * SECOND)  # several tries
    frail.server.start()

    await until(lambda: len(warnings(caplog)), 2)
    await messages_flow(frail, peer)
    assert late.got
    failing, working = warnings(caplog)
    assert failing.startswith("Channel layer error, retrying: ")
    assert working == "The channel layer works again."
    for each, name in ((peer, "foo"), (late, "foo"), (other, "bar")):
        left(each, name)
    await until(lambda: (frail.memberships("foo"), frail.memberships("bar")), (0, 0))


async def test_messages_flow_again_after_an_outage_without_any_join(frail):
    peer = await joined()
    await messages_flow(frail, peer)

    frail.server.stop()
    await asyncio.sleep(0.2 * SECOND)
    frail.server.start()

    await messages_flow(frail, peer)
    left(peer)


async def test_each_outage_is_told_once(frail, caplog):
    peer = await joined()

    for number in range(1, 3):
        frail.server.stop()
        await noticed(caplog, number)
        await asyncio.sleep(0.3 * SECOND)
        frail.server.start()
        await until(lambda n=number: len(warnings(caplog)), 2 * number)

    await messages_flow(frail, peer)
    left(peer)


async def test_join_during_a_known_outage_does_not_wait(frail, caplog):
    peer = await joined()
    frail.server.stop()
    await noticed(caplog, 1)

    start = time.monotonic()
    for number in range(20):
        left(await joined(f"name-{number}"), f"name-{number}")
    taken = time.monotonic() - start

    assert taken < JOIN_TIMEOUT
    left(peer)


async def test_layer_that_is_away_from_the_start_delays_a_join_only_a_moment(frail, caplog):
    frail.server.stop()

    start = time.monotonic()
    peer = await joined()
    taken = time.monotonic() - start

    assert taken < JOIN_TIMEOUT + 0.2 * SECOND
    frail.server.start()
    await messages_flow(frail, peer)
    left(peer)


async def test_layer_that_hangs_delays_a_join_only_a_moment(frail):
    peer = await joined()
    frail.server.hang()

    try:
        start = time.monotonic()
        other = await joined("bar")
        taken = time.monotonic() - start
    finally:
        frail.server.resume()

    assert taken < JOIN_TIMEOUT + 0.2 * SECOND
    await messages_flow(frail, peer)
    await until(lambda: frail.memberships("bar"), 1)
    left(peer)
    left(other, "bar")


async def test_layer_that_goes_on_hanging_is_known_to_be_down(frail, caplog, monkeypatch):
    monkeypatch.setattr(subscription, "CALL_TIMEOUT", 0.5 * SECOND)
    peer = await joined()
    frail.server.hang()

    try:
        other = await joined("bar")
        await until(lambda: len(warnings(caplog)), 1)
        start = time.monotonic()
        late = await joined("baz")
        taken = time.monotonic() - start
    finally:
        frail.server.resume()

    assert taken < JOIN_TIMEOUT / 2
    await messages_flow(frail, peer)
    await until(lambda: [frail.memberships(name) for name in ("foo", "bar", "baz")], [1, 1, 1])
    for each, name in ((peer, "foo"), (other, "bar"), (late, "baz")):
        left(each, name)
    await until(lambda: [frail.memberships(name) for name in ("foo", "bar", "baz")], [0, 0, 0])


async def test_membership_is_renewed_before_the_layer_forgets_it(layer, monkeypatch):
    """Also what makes it right after FLUSHALL."""
    monkeypatch.setattr(subscription, "RENEWAL_INTERVAL", 0.2 * SECOND)
    peer = await joined()

    if layer.kind == "memory":
        get_channel_layer().groups.clear()
    elif layer.kind == "redis":
        with redis.Redis.from_url(layer.url) as client:
            client.flushall()

    await until(layer.memberships, 1)
    left(peer)


async def test_without_a_layer_a_message_reaches_the_members_of_this_process():
    assert get_channel_layer() is None
    peers = [await joined() for _ in range(3)]

    for number in range(3):
        await send_to_group("foo", text(number))

    for peer in peers:
        await until(lambda peer=peer: peer.got, [text(number) for number in range(3)])
        left(peer)


async def test_without_a_layer_a_message_of_another_thread_arrives():
    peer = await joined()

    await asyncio.to_thread(get_object("foo").send, "hello")
    thread = Thread(target=get_object("foo").send, args=("from a thread of its own",))
    thread.start()
    await asyncio.to_thread(thread.join)

    await until(lambda: peer.got, [text("hello"), text("from a thread of its own")])
    left(peer)


async def test_without_a_layer_a_message_reaches_every_event_loop():
    peer, far, ready = await joined(), [], asyncio.Event()

    async def elsewhere(loop):
        other = await joined()
        loop.call_soon_threadsafe(ready.set)
        while not other.got:
            await asyncio.sleep(0.01)
        far.extend(other.got)
        left(other)

    running = asyncio.create_task(
        asyncio.to_thread(asyncio.run, elsewhere(asyncio.get_running_loop()))
    )
    await ready.wait()
    await send_to_group("foo", text("hello"))
    async with asyncio.timeout(DEADLINE):
        await running

    await until(lambda: peer.got, [text("hello")])
    assert far == [text("hello")]
    left(peer)


async def test_message_of_another_thread_arrives_through_a_layer(layer):
    peer = await joined()

    await asyncio.to_thread(get_object("foo").send, "hello")

    await until(lambda: peer.got, [text("hello")])
    left(peer)


async def test_message_fails_loudly_when_the_layer_is_away(frail):
    """Who sends is told: only connections do not notice."""
    frail.server.stop()

    with pytest.raises(redis.ConnectionError):
        await send_to_group("foo", text("hello"))


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
async def test_messages_flow_again_after_a_network_has_lost_the_connections(frail, link, caplog):
    peer = await joined()
    await messages_flow(frail, peer)

    link.drop()

    await messages_flow(frail, peer, 3 * DEADLINE)
    await until(lambda: len(warnings(caplog)), 2)
    failing, working = warnings(caplog)
    assert failing.startswith("Channel layer error, retrying: ")
    assert working == "The channel layer works again."
    left(peer)


@pytest.mark.usefixtures("impatient")
async def test_health_view_names_a_layer_that_hangs(frail, client, settings, caplog):
    settings.ROOT_URLCONF = "tests.sites.operations_urls"
    caplog.set_level(logging.CRITICAL, "django.request")

    def health():
        response = client.get("/operations/health")
        return response.status_code, response.json()

    peer = await joined()
    await messages_flow(frail, peer)
    assert health() == (200, {"status": "ok", "state": "process"})

    frail.server.hang()
    try:
        failing = {"status": "unavailable", "state": "process", "layer": "unavailable"}
        await until(health, (503, failing))
    finally:
        frail.server.resume()

    await until(health, (200, {"status": "ok", "state": "process"}))
    left(peer)


@pytest.mark.usefixtures("impatient")
async def test_process_sends_probes_while_it_has_groups(frail):
    command = {"redis": "zadd", "pubsub": "publish"}[frail.kind]

    def sent():
        with redis.Redis.from_url(frail.url) as client:
            return client.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})["calls"]

    peer = await joined()
    before = sent()
    await until(lambda: sent() > before + 2, True)

    left(peer)
    await asyncio.sleep(SECOND / 2)
    before = sent()
    await asyncio.sleep(SECOND)
    assert sent() == before


@pytest.fixture
def farther_link(frail, link, settings):
    """The link to a second host of the layer, which is the same Redis."""
    with Link(frail.server.port, 0.05) as farther_link:
        hosts = settings.CHANNEL_LAYERS["default"]["CONFIG"]["hosts"]
        hosts.append({**hosts[0], "address": f"redis://127.0.0.1:{farther_link.port}/0"})
        yield farther_link


@pytest.mark.parametrize("links", ["link", "farther_link"])
@pytest.mark.parametrize("frail", ["pubsub"], indirect=True)
async def test_message_arrives_right_after_a_join_if_redis_is_far_away(frail, links, request):
    """The sender is near Redis: its messages overtake a SUBSCRIBE that is on its way."""
    request.getfixturevalue(links)
    firsts = [f"first-{number}" for number in range(8)]
    peers = [await joined(name) for name in firsts]  # connects to all hosts
    await until(lambda: {frail.memberships(name) for name in firsts}, {1})

    with redis.Redis.from_url(frail.url) as near:

        async def joined_and_sent(name):
            peer = await joined(name)
            message = {"type": "echo.event", "name": name, "event": text("hello")}
            channel = f"asgi__group__{group_name(name)}"
            near.publish(channel, get_channel_layer().serialize(message))
            return peer

        names = [f"name-{number}" for number in range(10)]
        peers += [await joined_and_sent(name) for name in names[:5]]
        peers += await asyncio.gather(*map(joined_and_sent, names[5:]))

    await until(lambda: [peer.got for peer in peers[8:]], 10 * [[text("hello")]])
    for peer, name in zip(peers, firsts + names, strict=True):
        left(peer, name)


@pytest.mark.parametrize("layer", ["redis"], indirect=True)
async def test_many_groups_are_joined_at_once_without_an_outage(layer, caplog):
    names = [f"name-{number}" for number in range(300)]

    peers = await asyncio.gather(*map(joined, names))

    await until(lambda: sum(map(layer.memberships, names)), 300)
    assert warnings(caplog) == []
    for peer, name in zip(peers, names, strict=True):
        left(peer, name)


@pytest.mark.parametrize("layer", ["memory", "redis"], indirect=True)
async def test_membership_is_renewed_while_others_come_and_go(layer, monkeypatch):
    monkeypatch.setattr(subscription, "RENEWAL_INTERVAL", 0.3 * SECOND)
    peer = await joined()

    async def come_and_go():
        while True:
            left(await joined("bar"), "bar")
            await asyncio.sleep(0.05 * SECOND)

    others = asyncio.create_task(come_and_go())
    if layer.kind == "memory":
        get_channel_layer().groups.clear()
    else:
        with redis.Redis.from_url(layer.url) as client:
            client.flushall()

    await until(layer.memberships, 1)
    others.cancel()
    await asyncio.wait([others])
    left(peer)
