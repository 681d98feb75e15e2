"""The cases of `tests/data/wire.json`, and the bytes that they stand for.

The file tells what Cloudflare's original was seen to do on raw sockets (`observed`), and what
is done here where that differs on purpose (`ours`, with a `why`). A case without `requests`
upgrades on an object of its own, named by its id; `{own}` is the path of that object.
"""

import json
import zlib
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.raw import BINARY, CLOSE, PING, PONG, TEXT, UPGRADE, Answer, close_payload, frame

Case = dict[str, Any]

FILE = Path(__file__).parent.parent / "data" / "wire.json"
OPCODES = {
    "continuation": 0,
    "text": TEXT,
    "binary": BINARY,
    "close": CLOSE,
    "ping": PING,
    "pong": PONG,
}
NAMES = {opcode: name for name, opcode in OPCODES.items()}
HANDSHAKE = [f"{name}: {value}" for name, value in UPGRADE.items()]
SHOWN = 1000  # bytes of a payload; of longer ones only the size and a checksum are told

_file = json.loads(FILE.read_text())
ANSWERS: dict[str, Case] = _file["answers"]
CASES: list[Case] = _file["cases"]


def expected(case: Case) -> Case:
    """Return what a server of ours must do: as observed, but for what differs on purpose."""
    return {**case["observed"], **case.get("ours", {})}


def own_path(case: Case) -> str:
    return f"/{quote(case['id'], safe='')}/websocket"


def object_name(case: Case) -> str:
    """Return the object whose connections the case makes."""
    own = "requests" not in case or "{own}" in case["requests"][-1][0]
    return case["id"] if own else "foo"


def requests(case: Case, port: int) -> list[bytes]:
    """Return the requests of a case, in their order, as they go out."""
    heads = case.get("requests", [["GET {own} HTTP/1.1", *HANDSHAKE]])
    return [request([head[0].replace("{own}", own_path(case)), *head[1:]], port) for head in heads]


def request(lines: list[str], port: int) -> bytes:
    """Return the request of these lines; what follows an empty one is the body."""
    if not any(line.lower().startswith("host:") for line in lines):
        lines = [lines[0], f"Host: 127.0.0.1:{port}", *lines[1:]]
    text = "\r\n".join(lines)
    return (text if "" in lines else text + "\r\n\r\n").encode()


def sent_frame(described: Case) -> bytes:
    """Return a client's frame, or several that are alike."""
    if "bytes" in described:
        return bytes.fromhex(described["bytes"])
    data = frame(
        OPCODES.get(described["op"], described["op"]),
        _payload(described),
        fin=described.get("fin", True),
        rsv=described.get("rsv", 0),
        mask=bytes.fromhex(described["mask"]) if "mask" in described else None,
    )
    return data * described.get("times", 1)


def _payload(described: Case) -> bytes:
    if "code" in described:
        return close_payload(described["code"], described.get("reason", ""))
    return _content(described.get("payload", ""))


def _content(payload: str | Case) -> bytes:
    if isinstance(payload, str):
        return payload.encode()
    if "hex" in payload:
        return bytes.fromhex(payload["hex"])
    if "deflated" in payload:
        compressor = zlib.compressobj(wbits=-15)  # RFC 7692 §7.2.1, and the four bytes it cuts
        data = compressor.compress(_content(payload["deflated"]))
        return (data + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
    return (payload.get("prefix", "") + payload["repeat"] * payload["times"]).encode()


def frame_to_come(described: Case) -> Case:
    """Return how `frame_seen` must tell a frame of the server's."""
    if described["op"] == "close":
        return {"reason": "", **described} if "code" in described else described
    return {**described, "payload": _brief(_payload(described))}


def frame_seen(opcode: int, payload: bytes) -> Case:
    if opcode != CLOSE:
        return {"op": NAMES.get(opcode, opcode), "payload": _brief(payload)}
    if not payload:
        return {"op": "close"}
    code = int.from_bytes(payload[:2], "big")
    return {"op": "close", "code": code, "reason": payload[2:].decode()}


def _brief(payload: bytes) -> str:
    if len(payload) <= SHOWN:
        return payload.decode()
    return f"{len(payload)} bytes, checksum {zlib.crc32(payload)}"


def says(reason: str, wanted: str | Case) -> bool:
    """Return whether a Close's reason is the wanted one, or has the wanted words."""
    if isinstance(wanted, str):
        return reason == wanted
    return len(reason.encode()) <= 123 and all(word in reason for word in wanted["has"])


def answer_problems(answer: Answer, name: str) -> list[str]:
    """Return how an answer differs from the one of that name; more headers are no difference."""
    if name == "well-formed":
        return [] if is_well_formed(answer) else [f"not well-formed: {answer}"]
    wanted = ANSWERS[name]
    problems = []
    if answer.status_line != wanted["status_line"]:
        problems.append(f"{answer.status_line!r}, not {wanted['status_line']!r}")
    for header in wanted["headers"]:
        key, _, value = header.partition(": ")
        if not same_value(key, answer.header(key), value):
            problems.append(f"{key}: {answer.header(key)!r}, not {value!r}")
    if answer.body.decode() != wanted.get("body", ""):
        problems.append(f"{answer.body!r}, not {wanted.get('body', '')!r}")
    return problems


def same_value(key: str, seen: str | None, wanted: str) -> bool:
    if key in ("Connection", "Upgrade") and seen is not None:  # RFC 6455 §4.1: of any case
        return seen.lower() == wanted.lower()
    return seen == wanted


def is_well_formed(answer: Answer) -> bool:
    version, status, phrase = answer.status_line.split(" ", 2)
    return (
        version in ("HTTP/1.0", "HTTP/1.1")
        and status.isdecimal()
        and bool(phrase)
        and all(": " in header for header in answer.headers)
        and b"Traceback" not in answer.body
    )
