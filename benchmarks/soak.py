"""Faults at random, in every stage and reader, for as long as one likes: docs/reliability.md.

    python benchmarks/soak.py kills --times 50
    python benchmarks/soak.py fuzz --seconds 60      # of each parser; needs atheris
    python benchmarks/soak.py                        # writes the table once more

Each kind of fault makes a line of JSON, of how often it was really tried; the lines of docs/reliability.jsonl are the
table, and a later try of the same fault takes the place of the one before. `--only WORD` tries the kinds whose name
holds the word. Mounts small disks (`disks`), so that needs root. Exit 1 where anything failed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from soak import damage, hostile, sizes, writing
from soak.record import Bounds, Record

from medclip.atomic_io import write_text
from medclip.folder_locks import lock_folder

ROOT = Path(__file__).parents[1]
LINES, PAGE = ROOT / "docs" / "reliability.jsonl", ROOT / "docs" / "reliability.md"
START, END = "<!-- faults: made by benchmarks/soak.py -->", "<!-- end of faults -->"
PARTS: dict[str, Callable[[Bounds], Iterator[Record]]] = {
    "kills": writing.kills,
    "disks": writing.disks,
    "writers": writing.writers,
    "steps": writing.steps,
    "flips": damage.flips,
    "folders": hostile.folders,
    "images": hostile.images,
    "fuzz": hostile.fuzz,
    "load": sizes.load,
    "table": sizes.table,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--times", type=int)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--only", default="")
    parser.add_argument("--folder", type=Path, help="where to work; left out: a temporary folder")
    args = parser.parse_args()
    failed = False
    for part in args.parts:
        folder = Path(tempfile.mkdtemp(prefix=f"soak-{part}-", dir=args.folder))
        for record in PARTS[part](Bounds(folder, args.seed, args.times, args.seconds, args.only)):
            line = asdict(record) | {"part": part, "command": command(part, record.only, args)}
            print(json.dumps(line, ensure_ascii=False), flush=True)
            failed |= bool(record.failures) or not record.times
            keep(line)
        if not failed:
            shutil.rmtree(folder)
    write_page()
    sys.exit(failed)


def command(part: str, only: str, args: argparse.Namespace) -> str:
    """What repeats a record."""
    given = {name: getattr(args, name) for name in ("times", "seconds")}
    bounds = [f"--{name} {str(value).removesuffix('.0')}" for name, value in given.items() if value is not None]
    words = ["python benchmarks/soak.py", part, *([f'--only "{only}"'] if only else []), *bounds, f"--seed {args.seed}"]
    return " ".join(words)


def keep(line: dict) -> None:
    """Put a line in the place of the one of the same fault; several parts may run at once."""
    with lock_folder(LINES.parent, wait_s=60):
        others = [other for other in read_lines() if (other["part"], other["fault"]) != (line["part"], line["fault"])]
        lines = sorted([*others, line], key=lambda line: list(PARTS).index(line["part"]))
        write_text(LINES, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def read_lines() -> list[dict]:
    return [json.loads(line) for line in LINES.read_text(encoding="utf-8").splitlines()] if LINES.exists() else []


def write_page() -> None:
    """The table of the lines, between the page's marks."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(START)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{START}\n{table()}\n{END}{after}", encoding="utf-8")


def table() -> str:
    rows = ["| fault | times tried | outcome | data lost | command |", "|---|---:|---|---|---|"]
    for line in read_lines():
        failures = f"; **{len(line['failures'])} failed**: {line['failures'][0]}" if line["failures"] else ""
        outcome, command = line["outcome"] + failures, f"`{line['command']}`"
        cells = [line["fault"], f"{line['times']:,}", outcome, line["data_lost"], command]
        rows.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join(rows)


if __name__ == "__main__":
    main()
