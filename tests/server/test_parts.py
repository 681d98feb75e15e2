"""The parts of a connection by themselves: its receive queue, flow control and time limits."""

import asyncio
from math import inf
from typing import Any

import pytest

from echo.server import flow_control
from echo.server.flow_control import SLOW_READER_TIMEOUT, FlowControl
from echo.server.receive_queue import MAX_QUEUED_BYTES, MAX_QUEUED_EVENTS, ReceiveQueue
from echo.server.timeouts import PING_TOLERANCE, Limits, Timeouts


class Transport:
    """Records what is written. Its buffer has the size that a test sets."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.calls: list[str] = []
        self.buffered = 0

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def pause_reading(self) -> None:
        self.calls.append("pause")

    def resume_reading(self) -> None:
        self.calls.append("resume")

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return self.buffered


def queue() -> Any:
    queue: Any = ReceiveQueue(asyncio.new_event_loop())
    queue._loop.close()
    queue.transport = Transport()
    return queue


@pytest.mark.parametrize(
    ("message", "size"),
    [("abc", 3), ("äöü€", 9), ("", 0), (b"abc", 3), (b"\xff\x00", 2), ("😀", 4)],
)
def test_queue_size_is_that_of_the_payloads(message: str | bytes, size: int) -> None:
    received = queue()

    received.extend([message, message])
    assert received.size == 2 * size

    assert received.pop() == {"type": "websocket.connect"}
    assert received.size == 2 * size
    key = "text" if isinstance(message, str) else "bytes"
    assert received.pop() == {"type": "websocket.receive", key: message}
    assert received.size == size
    received.pop()
    assert received.size == 0


@pytest.mark.parametrize("unit", ["x", "ä", b"x"])
def test_queue_is_full_at_its_bytes(unit: str | bytes) -> None:
    count = MAX_QUEUED_BYTES // len(unit.encode() if isinstance(unit, str) else unit)
    received = queue()

    received.extend([unit * (count - 1)])
    assert not received.is_full()
    received.extend([unit])
    assert received.is_full()

    received.clear()
    assert not received.is_full()


def test_queue_is_full_at_its_events() -> None:
    received = queue()  # websocket.connect is one

    received.extend([""] * (MAX_QUEUED_EVENTS - 2))
    assert not received.is_full()
    received.extend([""])
    assert received.is_full()


def test_reading_is_paused_and_resumed_once() -> None:
    received = queue()

    received.pause_reading()
    received.pause_reading()
    received.resume_reading()
    received.resume_reading()

    assert received.transport.calls == ["pause", "resume"]


async def test_application_is_woken() -> None:
    received = ReceiveQueue(asyncio.get_running_loop())
    assert not received.is_awaited()
    waiting = received.wait()
    assert received.is_awaited()

    received.wake()
    received.wake()

    await asyncio.wait_for(waiting, 1)
    assert not received.is_awaited()


async def flow() -> Any:
    flow: Any = FlowControl(asyncio.get_running_loop())
    flow.transport = Transport()
    return flow


async def test_frames_of_one_turn_are_written_together() -> None:
    written = await flow()

    written.start_batch(b"a")
    written.batch.append(b"b")
    assert written.transport.written == []
    await asyncio.sleep(0)
    assert written.transport.written == [b"ab"]


async def test_written_data_follow_the_batch() -> None:
    written = await flow()

    written.start_batch(b"a")
    written.write(b"b")
    written.write(b"c")
    await asyncio.sleep(0)

    assert written.transport.written == [b"ab", b"c"]


async def test_next_batch_is_written_in_the_next_turn() -> None:
    written = await flow()

    written.start_batch(b"a")
    written.flush()
    written.start_batch(b"b")
    await asyncio.sleep(0)

    assert written.transport.written == [b"a", b"b"]


async def test_sender_waits_for_a_slow_reader() -> None:
    written = await flow()
    written.pause()
    sending = asyncio.ensure_future(written.wait_until_writable())
    await asyncio.sleep(0)
    assert written.is_paused
    assert not sending.done()

    written.resume()

    await asyncio.wait_for(sending, 1)
    assert not written.is_paused


async def test_reader_is_stalled_if_nothing_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_control, "_unacknowledged", lambda transport: 0)
    written = await flow()
    written.pause()
    now = asyncio.get_running_loop().time()

    stalled = []
    for after, buffered in [
        (0, 100),
        (SLOW_READER_TIMEOUT, 90),  # it has read
        (2 * SLOW_READER_TIMEOUT - 1, 90),
        (2 * SLOW_READER_TIMEOUT + 1, 90),
    ]:
        written.transport.buffered = buffered
        stalled.append(written.is_stalled(now + after))

    assert stalled == [False, False, False, True]
    written.resume()
    assert not written.is_stalled(now + 100)


def test_ping_is_due_after_silence_and_its_pong_overdue_later() -> None:
    times = Timeouts(Limits(ping_interval=20, ping_timeout=10), 100.0)

    times.received(100.0)
    assert not times.has_received
    assert not times.is_ping_due(119.0)
    assert times.is_ping_due(120.0 - PING_TOLERANCE)
    assert not times.is_pong_overdue(1000.0)

    times.pinged_at = 120.0
    assert not times.is_ping_due(140.0)
    assert not times.is_pong_overdue(129.9)
    assert times.is_pong_overdue(130.0)

    times.received(130.0)
    assert not times.is_pong_overdue(1000.0)


def test_without_an_interval_no_ping_is_due() -> None:
    assert not Timeouts(Limits(ping_interval=inf), 0.0).is_ping_due(1000.0)


def test_time_in_which_the_loop_was_blocked_does_not_count() -> None:
    limits = Limits(handshake_timeout=5, max_age=5, application_timeout=5, ping_timeout=5)
    times = Timeouts(limits, 0.0)
    times.pinged_at = 0.0

    def overdue(now: float) -> list[bool]:
        return [
            times.is_handshake_overdue(now),
            times.is_too_old(now),
            times.is_application_overdue(now),
            times.is_pong_overdue(now),
        ]

    assert overdue(6.0) == [True] * 4
    times.postpone(3.0)
    assert overdue(6.0) == [False] * 4
    assert overdue(9.0) == [True] * 4
