"""`python -m benchmarks.deflate`: compressed JSON echoes, and the memory of idle connections.

Speeds are messages per second of the server's CPU time, so that other programs on the machine
matter less. All peers of a round run side by side and are measured in turns.
"""

import argparse
import time
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path

from benchmarks import versions
from benchmarks.deflate.clients import Client, document, echoes, message
from benchmarks.deflate.peers import PEERS
from benchmarks.machine import cores, pinned, raise_open_files, resident_kib
from benchmarks.peers.known import Peer
from benchmarks.server import Server, StartFailed
from benchmarks.spread import number, spread

SIZES = {"1 KiB": 1024, "64 KiB": 65_536}  # bytes of a message
CONNECTIONS = 8  # with one message on its way each
DOCUMENTS = 37  # different messages
WARM_UP = 0.3  # seconds
IDLE = 300  # connections
SETTLING = 1.0  # seconds
REFERENCE = "uvicorn"

Values = dict[tuple[str, str], list[float]]  # of a figure and a peer, one for each round


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.deflate", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    parser.add_argument("--peers", default=",".join(peer.name for peer in PEERS))
    parser.add_argument("--results", type=Path, metavar="FOLDER", help="for deflate.md")
    options = parser.parse_args()
    raise_open_files()
    chosen = [peer for peer in PEERS if peer.name in options.peers.split(",")]
    found: Values = defaultdict(list)
    with pinned(cores()[1]):
        for _ in range(options.rounds):
            _measure(chosen, options.seconds, found)
    told = report(chosen, found, options.rounds)
    print(told)
    if options.results:
        (options.results / "deflate.md").write_text(told + "\n")


def _measure(chosen: list[Peer], seconds: float, found: Values) -> None:
    with ExitStack() as stack:
        servers: dict[str, Server] = {}
        for peer in chosen:
            if peer.prepare is not None:
                peer.prepare()
            try:
                servers[peer.name] = stack.enter_context(Server(peer))
            except StartFailed as error:
                raise SystemExit(f"{peer.name} does not start: {error}") from error
        for compressed in (True, False):
            for label, size in SIZES.items():
                for name, server in servers.items():
                    what = f"{label}, {'compressed' if compressed else 'plain'}"
                    speed, sent = _speed(server, size, compressed, seconds)
                    found[what, name].append(speed)
                    found[f"{what}: bytes", name].append(sent)
    for peer in chosen:  # each in a process of its own: memory that is freed is used again
        for compressed in (True, False):
            with Server(peer) as server:
                what = f"KiB, {'compressed' if compressed else 'plain'}"
                found[what, peer.name].append(_idle(server, compressed))


def _speed(server: Server, size: int, compressed: bool, seconds: float) -> tuple[float, float]:
    """Return messages per second of CPU time, and the bytes of a reply."""
    texts = [document(size, seed) for seed in range(DOCUMENTS)]
    frames = [message(text, compressed) for text in texts]
    clients = [Client(server.port, compressed) for _ in range(CONNECTIONS)]
    for client in clients:
        client.exchange(frames[0], texts[0])
    echoes(clients, frames, WARM_UP)
    received = sum(client.received for client in clients)
    before = _cpu_seconds(server.pid)
    replies = echoes(clients, frames, seconds)
    cpu = _cpu_seconds(server.pid) - before
    sent = (sum(client.received for client in clients) - received) / replies
    for client in clients:
        client.socket.close()
    return replies / cpu, sent


def _cpu_seconds(pid: int) -> float:
    """Return how long the threads of a process have been on a core, to the nanosecond."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def _idle(server: Server, compressed: bool) -> float:
    """Return the KiB of a connection that has echoed one message and is idle."""
    text = document(1024)
    frame = message(text, compressed)
    for _ in range(20):  # what the first connections load stays for all
        client = Client(server.port, compressed)
        client.exchange(frame, text)
        client.socket.close()
    time.sleep(SETTLING)
    before = resident_kib(server.pid)
    clients = [Client(server.port, compressed) for _ in range(IDLE)]
    for client in clients:
        client.exchange(frame, text)
    time.sleep(SETTLING)
    memory = (resident_kib(server.pid) - before) / IDLE
    for client in clients:
        client.socket.close()
    return memory


def report(peers: list[Peer], found: Values, rounds: int) -> str:
    known = ", ".join(f"{name} {version}" for name, version in versions.describe().items())
    lines = [
        "# permessage-deflate",
        "",
        f"Measured on {time.strftime('%Y-%m-%d %H:%M')}, {rounds} rounds in turns. {known}.",
        "",
        f"Echoes of JSON per second of the server's CPU time, {CONNECTIONS} connections; medians. "
        f"Ratios are those of `{REFERENCE}` (our transport on uvicorn) to the peer in each round, "
        "with what they lie between. Bytes are those of an average reply on the wire.",
    ]
    for compressed in ("compressed", "plain"):
        for label in SIZES:
            figure = f"{label}, {compressed}"
            lines += ["", f"## {figure}", "", "| peer | echoes | ratio | bytes |"]
            lines += ["|---|---|---|---|"]
            ours = found[figure, REFERENCE]
            for peer in peers:
                values = found[figure, peer.name]
                ratio = spread(one / other for one, other in zip(ours, values, strict=True))
                sent = number(spread(found[f"{figure}: bytes", peer.name]).median)
                speed = number(spread(values).median)
                lines.append(f"| {peer.name} | {speed} | {ratio} | {sent} |")
    lines += [
        "",
        "## KiB per idle connection",
        "",
        f"The growth of resident memory with {IDLE} connections that have echoed 1 KiB of JSON.",
        "",
        "| peer | compressed | plain |",
        "|---|---|---|",
    ]
    for peer in peers:
        with_, without = (spread(found[f"KiB, {c}", peer.name]) for c in ("compressed", "plain"))
        lines.append(f"| {peer.name} | {with_} | {without} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
