"""`python -m benchmarks.profile`: where our servers spend their time, into benchmarks/profiles/."""

import subprocess
import tempfile
import threading
from collections import Counter
from pathlib import Path

from benchmarks import figures, machine
from benchmarks.peers.known import PEERS
from benchmarks.server import Server

FOLDER = Path(__file__).parent / "profiles"
RUNS = [
    ("echo-50x16", "daphne"),
    ("echo-50x16", "daphne-loop"),
    ("handshakes-50", "daphne"),
    ("handshakes-50", "uvicorn"),
    ("count-50", "uvicorn"),
    ("count-50", "uvicorn-count-first"),
]
SECONDS = 6
RATE = 500  # samples a second
LINES = 25


def main() -> None:
    machine.raise_open_files()
    FOLDER.mkdir(exist_ok=True)
    for name, peer in RUNS:
        stacks = sampled(name, peer)
        (FOLDER / f"{name}-{peer}.txt").write_text(text(name, peer, stacks))


def sampled(name: str, peer: str) -> Counter[tuple[str, ...]]:
    """Return the stacks that py-spy saw, the outermost function first, and how often each."""
    figure = figures.parse(name)
    with Server(PEERS[peer], fanout=False) as server, tempfile.NamedTemporaryFile() as file:
        under_load = threading.Thread(
            target=figures.put_load, args=(figure, server, SECONDS + 2.0), daemon=True
        )
        under_load.start()
        command = ["py-spy", "record", "--format", "raw", "--rate", str(RATE), "--nonblocking"]
        options = ["--duration", str(SECONDS), "--output", file.name, "--pid", str(server.pid)]
        with machine.pinned(machine.cores()[1]):
            subprocess.run([*command, *options], check=True, capture_output=True)
        under_load.join()
        lines = Path(file.name).read_text().splitlines()
    stacks: Counter[tuple[str, ...]] = Counter()
    for line in lines:
        stack, _, number = line.rpartition(" ")
        frames = [frame.rpartition(":")[0] for frame in stack.split(";")]
        stacks[tuple(frame for frame in frames if frame)] += int(number)
    return stacks


def text(name: str, peer: str, stacks: Counter[tuple[str, ...]]) -> str:
    own: Counter[str] = Counter()
    below: Counter[str] = Counter()
    for stack, number in stacks.items():
        own[stack[-1]] += number
        below.update(dict.fromkeys(stack, number))
    total = stacks.total()
    parts = [f"{name} of {peer}: {total} samples, in percent"]
    for title, counter in (("In the function itself", own), ("With what it calls", below)):
        rows = [f"{100 * n / total:6.1f}  {frame})" for frame, n in counter.most_common(LINES)]
        parts.append("\n".join([title, *rows]))
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    main()
