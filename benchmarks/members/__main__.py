"""`python -m benchmarks.members`: what it costs to know the members, as Markdown tables."""

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.members import run
from benchmarks.members.report import report

RAW = "members.json"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.members", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--parts", default=",".join(run.PARTS))
    parser.add_argument(
        "--results", type=Path, metavar="FOLDER", help="for members.md, .json, .svg"
    )
    parser.add_argument(
        "--redraw", action="store_true", help="measure nothing, write from the JSON in FOLDER"
    )
    options = parser.parse_args()
    if options.redraw:
        return _write(json.loads((options.results / RAW).read_text()), options.results)
    raw = run.measure(options.parts.split(","), options.rounds)
    print(report(raw), flush=True)
    if options.results:
        _write(raw, options.results)


def _write(raw: dict[str, Any], folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    (folder / RAW).write_text(json.dumps(raw, indent=1) + "\n")
    (folder / "members.md").write_text(report(raw))
    try:
        from benchmarks.charts import draw_members
    except ImportError:
        print("No chart: pip install -r benchmarks/requirements.txt")
    else:
        draw_members(raw, folder / "members.svg")


if __name__ == "__main__":
    main()
