"""What the client of each message case sends, by the case's id."""

import re

from tests.raw import BINARY, CLOSE, PING, PONG, TEXT, close_payload, frame

MIB = 1 << 20
CONTINUATION = 0
ZERO = bytes(4)  # a mask that changes nothing


def text(payload: str | bytes, **how: object) -> bytes:
    data = payload.encode("utf-8", "surrogatepass") if isinstance(payload, str) else payload
    return frame(TEXT, data, **how)  # type: ignore[arg-type]


def huge(size: int) -> bytes:
    """Return the header of a text of that size, without its payload."""
    return b"\x81\xff" + size.to_bytes(8, "big") + ZERO


SENT: dict[str, bytes] = {
    "msg.text.utf8": text("héllo ✓ 日本 😀"),
    "msg.text.newline": text("a\nb\r\nc"),
    "msg.text.nul": text("a\0b"),
    "msg.text.json": text('{"a": 1}'),
    "msg.text.bom": text("\ufeffx"),
    "msg.text.noncharacter": text("\uffff\U0010ffff"),
    "msg.text.html": text("<b>&amp;</b>"),
    "msg.text.len108": text("x" * 108),
    "msg.text.len127": text("x" * 127),
    "msg.binary.hello": frame(BINARY, b"hello"),
    "msg.binary.empty": frame(BINARY),
    "msg.binary.ff": frame(BINARY, b"\xff\xfe\0\x80"),
    "msg.binary.1MiB": frame(BINARY, b"x" * MIB, mask=ZERO),
    "msg.frag.two": text("hel", fin=False) + frame(CONTINUATION, b"lo"),
    "msg.frag.three": text("a", fin=False)
    + frame(CONTINUATION, b"b", fin=False)
    + frame(CONTINUATION, b"c"),
    "msg.frag.split-utf8": text(b"\xe2\x82", fin=False) + frame(CONTINUATION, b"\xac"),
    "msg.frag.empty-frags": text("", fin=False)
    + frame(CONTINUATION, fin=False)
    + frame(CONTINUATION),
    "msg.frag.binary": frame(BINARY, b"a", fin=False) + frame(CONTINUATION, b"b"),
    "msg.frag.close-between": text("hel", fin=False) + frame(CLOSE, close_payload(1000, "bye")),
    "msg.ping.payload": frame(PING, b"hi"),
    "msg.ping.125": frame(PING, b"p" * 125),
    "msg.ping.three": frame(PING, b"1") + frame(PING, b"2") + frame(PING, b"3"),
    "msg.ping.then-text": frame(PING, b"p") + text("t"),
    "msg.pong.empty": frame(PONG),
    "msg.bytewise": text("hello"),
    "msg.binary.33MiB": b"\x82\xff" + (33 * MIB).to_bytes(8, "big") + ZERO,
    "msg.header-only.33MiB": huge(33 * MIB),
    "msg.header-only.129MiB": huge(129 * MIB),
    "msg.header-only.2^62": huge(1 << 62),
    "msg.bad.utf8.ff": text(b"\xff\xfe"),
    "msg.bad.utf8.mid": text(b"a\xffb"),
    "msg.bad.utf8.truncated": text(b"a\xe2\x82"),
    "msg.bad.utf8.toolarge": text(b"\xf4\x90\x80\x80"),
    "msg.bad.rsv2": text("x", rsv=2),
    "msg.bad.rsv3": text("x", rsv=1),
    "msg.bad.rsv-ping": frame(PING, b"x", rsv=4),
    "msg.bad.unmasked": text("x", mask=b""),
    "msg.bad.unmasked-close": frame(CLOSE, close_payload(1000), mask=b""),
    "msg.bad.unmasked-ping": frame(PING, b"x", mask=b""),
    "msg.bad.opcode7": frame(7, b"x"),
    "msg.bad.opcode11": frame(11, b"x"),
    "msg.bad.pong126": frame(PONG, b"x" * 126),
    "msg.bad.close126": frame(CLOSE, close_payload(1000, "x" * 124)),
    "msg.bad.ping-fragmented": frame(PING, b"x", fin=False),
    "msg.bad.close-fragmented": frame(CLOSE, close_payload(1000), fin=False),
    "msg.bad.cont-first": frame(CONTINUATION, b"x"),
    "msg.bad.cont-nofin": frame(CONTINUATION, b"x", fin=False),
    "msg.bad.text-inside-frag": text("a", fin=False) + text("b"),
    "msg.bad.nonminimal16": b"\x81\xfe\0\x02" + ZERO + b"hi",
    "msg.bad.nonminimal64": b"\x81\xff" + (2).to_bytes(8, "big") + ZERO + b"hi",
    "msg.bad.http-on-ws": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "msg.bad.garbage": b"\xff" * 32,
    "msg.bad.text-then-bad": text("ok") + frame(3, b"x"),
    "many.mixed-order": text("1") + frame(PING, b"p") + frame(BINARY, b"b") + text("2"),
    "handshake.deflate.use": text("plain") + text(b"abc", rsv=4),
    "handshake.deflate.bomb": text(b"x" * 33000, rsv=4),
    "handshake.deflate.broken": text(b"\xff" * 4, rsv=4),
    "handshake.no-greeting": b"",
    "close.nocode": frame(CLOSE),
    "close.1000.empty-reason": frame(CLOSE, close_payload(1000)),
    "close.1000.reason123": frame(CLOSE, close_payload(1000, "r" * 123)),
    "close.1000.reason-badutf8": frame(CLOSE, close_payload(1000) + b"\xff\xfe"),
    "close.1byte": frame(CLOSE, b"\x03"),
    "close.text-then-close": text("last") + frame(CLOSE, close_payload(1000)),
    "close.100texts-then-close": b"".join(text(str(i)) for i in range(20))
    + frame(CLOSE, close_payload(1000)),
    "close.close-then-text": frame(CLOSE, close_payload(1000)) + text("late"),
    "close.close-twice": frame(CLOSE, close_payload(1000, "a"))
    + frame(CLOSE, close_payload(1001, "b")),
    "close.ping-then-close": frame(PING, b"p") + frame(CLOSE, close_payload(1000)),
}

# Texts of many bytes, made when they are sent: id -> size of each frame of the message.
LARGE = {
    "msg.text.65518": [65518],
    "msg.text.64KiB": [1 << 16],
    "msg.text.1MiB": [MIB],
    "msg.text.16MiB": [16 * MIB],
    "msg.text.32MiB-1": [32 * MIB - 1],
    "msg.text.32MiB": [32 * MIB],
    "msg.fragmented.32MiB": [MIB] * 32,
    "msg.fragmented.33MiB": [MIB] * 33,
}


def sent(case: str, actions: str) -> bytes:
    """Return the bytes that the client of the case sends after its handshake."""
    if case in SENT:
        return SENT[case]
    if case in LARGE:
        sizes = LARGE[case]
        last = len(sizes) - 1
        return b"".join(
            frame(CONTINUATION if i else TEXT, b"x" * size, fin=i == last, mask=ZERO)
            for i, size in enumerate(sizes)
        )
    code, reason = re.fullmatch(r"close (\d+) '(.*)'", actions).groups()  # type: ignore[union-attr]
    return frame(CLOSE, close_payload(int(code), reason))
