"""`python -m benchmarks.profile`: where our servers spend their time, into benchmarks/profiles/."""

import re
import subprocess
import tempfile
import threading
from collections import Counter
from pathlib import Path

from benchmarks import figures, machine
from benchmarks.measure import put_load
from benchmarks.peers.known import PEERS
from benchmarks.server import Server

FOLDER = Path(__file__).parent / "profiles"
RUNS = (
    ("echo-50x1", "daphne"),
    ("echo-50x16", "daphne"),
    ("echo-50x16", "daphne-loop"),
    ("handshakes-50", "daphne"),
    ("handshakes-50", "uvicorn"),
    ("count-50", "uvicorn"),
)
SECONDS = 6
RATE = 500  # samples a second
LINES = 25

Stacks = Counter[tuple[str, ...]]  # how often each was seen; the outermost function is first


def main() -> None:
    machine.raise_open_files()
    FOLDER.mkdir(exist_ok=True)
    for figure, peer in RUNS:
        stacks = _sampled(figure, peer)
        path = FOLDER / f"{figure}-{peer}.txt"
        path.write_text(_text(f"{figure} of {peer}", stacks))
        print(path)


def _sampled(figure: str, peer: str) -> Stacks:
    with Server(PEERS[peer]) as server, tempfile.NamedTemporaryFile() as file:
        arguments = (figures.parse(figure), PEERS[peer], server.port, 1.0, SECONDS + 1.0)
        load = threading.Thread(target=put_load, args=arguments)
        load.start()
        command = ["py-spy", "record", "--format", "raw", "--rate", str(RATE), "--nonblocking"]
        options = ["--duration", str(SECONDS), "--output", file.name, "--pid", str(server.pid)]
        with machine.pinned(machine.cores()[1]):
            subprocess.run([*command, *options], check=True, capture_output=True)
        load.join()
        return _read(Path(file.name).read_text().splitlines())


def _read(lines: list[str]) -> Stacks:
    """Return the stacks of py-spy's raw format: `outer (file:line);inner (file:line) 12`."""
    stacks: Stacks = Counter()
    for line in lines:
        stack, _, number = line.rpartition(" ")
        # other frames than Python's, such as the names of threads, have no line
        frames = tuple(re.sub(r":\d+\)$", ")", f) for f in stack.split(";") if f.endswith(")"))
        if frames:
            stacks[frames] += int(number)
    return stacks


def _text(title: str, stacks: Stacks) -> str:
    itself: Counter[str] = Counter()
    below: Counter[str] = Counter()
    for stack, number in stacks.items():
        itself[stack[-1]] += number
        below.update(dict.fromkeys(stack, number))
    parts = [f"{title}: {stacks.total()} samples, in percent"]
    for heading, counter in (("In the function itself", itself), ("With what it calls", below)):
        rows = [
            f"{100 * number / stacks.total():6.1f}  {frame}"
            for frame, number in counter.most_common(LINES)
        ]
        parts.append("\n".join([heading, *rows]))
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    main()
