"""`python -m tests.autobahn [cases]`: our transport before Autobahn|Testsuite.

Without cases ("6.*", "7.7.1") it runs all of the suite; 12 and 13 are about compression.
It exits with 1 where a case fails, or a connection stays counted. The suite needs Python
2.7; its environment and reports stay in `build/autobahn/`.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from tests.servers import ROOT, Server
from tests.waiting import SECOND

HERE = Path(__file__).parent
BUILD = ROOT / "build" / "autobahn"
VIRTUALENV = "virtualenv==20.21.1"  # the last that makes environments for Python 2.7
SECTIONS = (1, 2, 3, 4, 5, 6, 7, 9, 10, 12, 13)  # the suite has no others
ALL_CASES = [f"{section}.*" for section in SECTIONS]
BINARY_CASES = [
    *("1.2.*", "9.2.*", "9.4.*", "9.6.*", "9.8.*"),
    *("12.2.*", "12.3.*", "12.5.*"),
]
MAX_SIZE = str(64 * 1024 * 1024)  # bytes: section 9 sends 16 MiB
OPTIONS = {
    "daphne": (
        *("--websocket-max-message-size", MAX_SIZE, "--websocket-max-frame-size", MAX_SIZE),
        "--websocket-deflate",
    ),
    "uvicorn": ("--ws-max-size", MAX_SIZE),  # compression is on by default
}
EXCLUDED = {"loop": [], "extension": BINARY_CASES}  # by path of the site


def main(cases: list[str]) -> int:
    python = find_python()
    if python is None:
        print("Not run: no python2.7 in PATH or ~/.pyenv/versions, which Autobahn needs.")
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that wstest and the server are ended
    wstest = install(python)
    held = [run(wstest, kind, path, cases) for kind in OPTIONS for path in EXCLUDED]
    return 0 if all(held) else 1


def find_python() -> str | None:
    installed = sorted((Path.home() / ".pyenv" / "versions").glob("2.7*/bin/python2.7"))
    # pyenv's own `python2.7` in PATH is a shim, which may refuse to run.
    return str(installed[-1]) if installed else shutil.which("python2.7")


def install(python: str) -> Path:
    """Return the suite's command, in an environment that is made at the first call."""
    wstest = BUILD / "venv" / "bin" / "wstest"
    if not wstest.exists():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", BUILD / "virtualenv"]
        subprocess.run([*pip, VIRTUALENV], check=True)
        subprocess.run(
            [sys.executable, "-m", "virtualenv", "--quiet", "-p", python, BUILD / "venv"],
            env={**os.environ, "PYTHONPATH": str(BUILD / "virtualenv")},
            check=True,
        )
        own_pip = [wstest.with_name("pip"), "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*own_pip, "-r", HERE / "requirements.txt"], check=True)
    return wstest


def run(wstest: Path, kind: str, path: str, cases: list[str]) -> bool:
    """Print what the suite finds; return whether no case fails and no connection stays counted."""
    began = time.monotonic()
    with Server(kind, "tests.autobahn.site:application", OPTIONS[kind]) as server:
        report = fuzz(wstest, server, path, cases)
        seconds = time.monotonic() - began
        time.sleep(SECOND)
        connections = server.count(path)
    print(f"{kind} /{path}: {len(report)} cases in {seconds:.0f} s, then {connections} connections")
    for aspect in ("behavior", "behaviorClose"):
        verdicts = Counter(case[aspect] for case in report.values())
        shown = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.most_common())
        print(f"  {aspect}: {shown}", flush=True)
    failed = [name for name, case in report.items() if has_failed(case)]
    for name in failed:
        print(f"  {name}: {BUILD / f'{kind}-{path}' / report[name]['reportfile']}", flush=True)
    return bool(report) and not failed and connections == 0


def fuzz(wstest: Path, server: Server, path: str, cases: list[str]) -> dict[str, dict[str, str]]:
    """Return the suite's index: case -> its verdicts."""
    agent = f"{server.kind}-{path}"
    folder = BUILD / agent
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    specification = {
        "outdir": str(folder),
        "servers": [{"agent": agent, "url": f"ws://127.0.0.1:{server.port}/{path}"}],
        "cases": cases or ALL_CASES,
        "exclude-cases": EXCLUDED[path],
        "exclude-agent-cases": {},
    }
    (folder / "specification.json").write_text(json.dumps(specification))
    command = [wstest, "-m", "fuzzingclient", "-s", folder / "specification.json"]
    with (folder / "log.txt").open("w") as log:
        subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=True)
    return json.loads((folder / "index.json").read_text()).get(agent, {})


def has_failed(case: dict[str, str]) -> bool:
    passed = {"OK", "NON-STRICT", "INFORMATIONAL"}
    return not {case["behavior"], case["behaviorClose"]} <= passed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
