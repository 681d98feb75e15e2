"""Coverage-guided fuzzing of the framing, against `websockets`' judgement of the same bytes.

    pip install atheris==3.0.0
    python -m tests.fuzz -max_total_time=300

The options are libFuzzer's; `-runs=0` only runs what is in `build/fuzz/`, where inputs that
reach new code are kept. An input that it ends with is `crash-…` in `build/fuzz-found/`:
`python -m tests.fuzz build/fuzz-found/crash-…` runs that one alone. Make a test of it.
"""

import sys

import atheris

with atheris.instrument_imports(include=["echo.server.framing"]):
    from echo.server.framing import REPLY_BATCH_SIZE, Close, Failure, Framing

from tests.raw import BINARY, CLOSE, PING, TEXT, close_payload, frame
from tests.reference import cut, expected, observed
from tests.servers import ROOT

CORPUS, FOUND = ROOT / "build" / "fuzz", ROOT / "build" / "fuzz-found"
MAX_SIZES = (0, 1, 5, 125, 126, 300, 1000, 1 << 62)  # bytes


def try_input(data: bytes) -> None:
    """Read three bytes as the circumstances, and the others as the client's.

    The circumstances: which limit, where the bytes are cut, how many events are taken at once.
    """
    if len(data) < 3:
        return
    max_size = MAX_SIZES[data[0] % len(MAX_SIZES)]
    step, room = data[1], data[2] % 4 + 1
    stream = data[3:]
    places = list(range(step, len(stream), step)) if step else []
    pieces = cut(stream, places)

    wanted = expected(stream, max_size)
    outcome = observed(Framing(max_size), pieces, room)
    assert outcome == wanted, (outcome, wanted)
    answer_all(pieces, max_size, wanted.messages)


def answer_all(pieces: list[bytes], max_size: int, messages: list[str | bytes]) -> None:
    """The same with replies: each message is answered once, in order."""
    framing = Framing(max_size)
    seen: list[str | bytes] = []

    def reply(message: str | bytes) -> str:
        seen.append(message)
        return "x" * (len(message) * 2)

    for piece in pieces:
        ends = framing.receive(piece, reply=reply, binary_reply=reply)
        while framing.has_more:
            assert sum(map(len, framing.replies)) >= REPLY_BATCH_SIZE
            framing.replies.clear()
            ends += framing.receive(b"", reply=reply, binary_reply=reply)
        framing.replies.clear()
        assert all(isinstance(end, Close | Failure) for end in ends)
    assert seen == messages


def seeds() -> list[bytes]:
    """Return inputs from which it can begin."""
    mask = bytes(4)
    text = "é€😀".encode()
    streams = [
        frame(TEXT, text, mask=mask) * 3,
        frame(TEXT, text[:4], fin=False, mask=mask)
        + frame(PING, b"p", mask=mask)
        + frame(0, text[4:], mask=mask),
        frame(BINARY, bytes(126), fin=False, mask=mask) + frame(0, bytes(200), mask=mask),
        frame(CLOSE, mask=mask),
        frame(CLOSE, close_payload(1000, "é"), mask=mask),
        frame(TEXT, b"a", mask=b""),
    ]
    return [bytes([size, step, 1]) + s for s in streams for size in (4, 5, 7) for step in (0, 3)]


def main() -> None:
    CORPUS.mkdir(parents=True, exist_ok=True)
    FOUND.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds()):
        (CORPUS / f"seed-{number}").write_bytes(seed)
    own = [f"-artifact_prefix={FOUND}/", "-max_len=2000"]
    inputs = [] if any(not option.startswith("-") for option in sys.argv[1:]) else [str(CORPUS)]
    atheris.Setup([sys.argv[0], *own, *sys.argv[1:], *inputs], try_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
