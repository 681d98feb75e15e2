"""`python -m tests.fuzz.live --seconds 300`: random clients against real servers.

On each server and event loop, clients send handshakes and frames of which bytes are changed, cut,
doubled or left out, in random pieces, and end in any way. Afterwards the server must accept and
echo, count 0, and have the descriptors of before. Memory and log lines are printed; a traceback in
the log is a failure. Outside CI. `--seed` repeats a run, as far as timing allows.
"""

import argparse
import os
import random
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from tests.attack.__main__ import SERVERS, SITE
from tests.raw import BINARY, CLOSE, PING, PONG, TEXT, UPGRADE, Client, frame, request
from tests.servers import Server
from tests.waiting import eventually

CLIENTS = 8  # threads, one client each at a time
PATHS = ("/fuzz/websocket", "/loop/fuzz/websocket", "/fuzz/getCurrentConnections", "/%ff")
OPCODES = (
    TEXT,
    BINARY,
    CLOSE,
    PING,
    PONG,
    0,
    3,
    11,
)  # 0 continues a message; 3 and 11 are reserved
SIZES = (0, 1, 2, 125, 126, 127, 1000, 65_535, 65_536, 200_000)
MiB = 1 << 20


def handshake(chance: random.Random) -> bytes:
    headers = dict(UPGRADE)
    if chance.random() < 0.2:
        headers.pop(chance.choice(list(headers)))
    if chance.random() < 0.1:
        headers[chance.choice(["Origin", "Cookie", "X-Forwarded-For", "Content-Length"])] = "\xff1"
    return request(chance.choice(PATHS), headers)


def frames(chance: random.Random) -> Iterator[bytes]:
    for _ in range(chance.randrange(12)):
        payload = chance.randbytes(chance.choice(SIZES))
        if chance.random() < 0.5:
            payload = b"x" * len(payload)
        fin, rsv = chance.random() < 0.8, chance.choice([0] * 9 + [4])
        yield frame(chance.choice(OPCODES), payload, fin=fin, rsv=rsv)


def mutated(data: bytes, chance: random.Random) -> bytes:
    for _ in range(chance.choice([0, 0, 0, 1, 1, 3])):
        place = chance.randrange(len(data) + 1)
        change = chance.randrange(4)
        if change == 0:
            data = data[:place] + chance.randbytes(1) + data[place + 1 :]
        elif change == 1:
            data = data[:place]
        elif change == 2:
            data = data[:place] + data[place : place + 50] + data[place:]
        else:
            data = data[:place] + data[place + 1 :]
    return data


def run_client(port: int, chance: random.Random) -> None:
    with Client(port) as client, suppress(OSError):
        client.socket.settimeout(0.05)
        for data in (handshake(chance), *frames(chance)):
            data = mutated(data, chance)
            step = chance.choice([1 << 20, 1 << 20, 1000, 7])
            for start in range(0, min(len(data), 300 * step), step):
                client.send(data[start : start + step])
            if chance.random() < 0.5:
                with suppress(TimeoutError):
                    client.socket.recv(1 << 16)
        if chance.random() < 0.3:
            client.reset()


def run_clients(port: int, seed: int, end: float) -> int:
    chance = random.Random(seed)
    number = 0
    while time.monotonic() < end:
        run_client(port, chance)
        number += 1
    return number


def descriptors(server: Server) -> int:
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))


def fuzz(kind: str, options: tuple[str, ...], seconds: float, seed: int) -> tuple[str, bool]:
    with Server(kind, SITE, options) as server:
        with Client.opened(server.port, "good") as good:
            good.send_text("hello")
            good.text()
        eventually(lambda: server.count("good"), 0)
        run_clients(server.port, seed, time.monotonic() + 5)  # what is made once is made
        before = descriptors(server), server.memory(), len(server.log().splitlines())
        end = time.monotonic() + seconds
        with ThreadPoolExecutor(CLIENTS) as pool:
            runs = [pool.submit(run_clients, server.port, seed + n, end) for n in range(CLIENTS)]
            clients = sum(run.result() for run in runs)
        eventually(lambda: server.count("fuzz"), 0, 90)  # an unfinished message may take 60 s
        eventually(lambda: descriptors(server) <= before[0] + 3, True, 90)
        with Client.opened(server.port, "good") as good:
            good.send_text("hello")
            works = good.text() == "[Durable Object]: hello"
        log = server.log().splitlines()
        tracebacks = sum("Traceback" in line for line in log)
        row = (
            f"{clients} | {before[0]}, {descriptors(server)} | {before[1] // MiB}, "
            f"{server.memory() // MiB} | {len(log) - before[2]} | {tracebacks} | "
            f"{server.count('fuzz')}"
        )
        if tracebacks:
            print("\n".join(log[-200:]), file=sys.stderr)
        return row, works and not tracebacks


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.live")
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--servers", nargs="+", choices=SERVERS, default=list(SERVERS))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}")
    print("| server | clients | descriptors | MiB | log lines | tracebacks | count |")
    print("|---|---|---|---|---|---|---|", flush=True)
    passed = True
    for name in arguments.servers:
        row, is_sound = fuzz(*SERVERS[name], arguments.seconds, arguments.seed)
        print(f"| {name} | {row} |", flush=True)
        passed = passed and is_sound
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
