"""What medclip costs beside its peers, and how the cost grows: docs/performance.md.

    make .venv-bench/ready                                              # the others, as PYTHON = .venv-bench/bin/python
    python benchmarks/performance.py --peers PYTHON --images FOLDER retrieval search     # some parts
    python benchmarks/performance.py --peers PYTHON --images FOLDER --towers FOLDER all  # make bench
    python benchmarks/performance.py                                    # writes the tables once more

The folder of images is any, for `frozen` radiology/images of ROCO; that of towers is real_towers.py's. A part's results
become lines of docs/performance.jsonl, in the place of those of the same work and peer; the tables are of these lines.
What is compared is processor time, user and system, which other work on the machine moves little:
runs of ours and of the peer in turn, each on one core, a ratio for every round.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import shlex
import statistics
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np

from medclip.atomic_io import write_text
from medclip.folder_locks import lock_folder
from medclip.versions import CHANGES, source_commit

PARTS = (
    "help", "cold_search", "retrieval", "search", "query", "embed", "preparation", "frozen", "training", "index_build",
    "clock", "growth",
)  # fmt: skip
PACKAGES = (
    "torch", "transformers", "open_clip_torch", "sentence-transformers", "faiss-cpu", "autofaiss", "datasets",
    "img2dataset", "clip-benchmark", "llm",
)  # fmt: skip
ROOT = Path(__file__).parents[1]
LINES, PAGE = ROOT / "docs" / "performance.jsonl", ROOT / "docs" / "performance.md"
START, END = "<!-- {}: made by benchmarks/performance.py -->", "<!-- end of {} -->"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, "all", []])
    parser.add_argument("--peers", help="the Python in which the others are installed")
    parser.add_argument("--images", type=Path, help="a folder of images")
    parser.add_argument("--towers", type=Path, help="the folder that real_towers.py wrote, for the part frozen")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="of all sizes; below 1 for a quick look")
    parser.add_argument("--folder", type=Path, help="where to work; left out: a temporary folder")
    args = parser.parse_args()
    if args.parts and not (args.peers and args.images):
        parser.error("parts need --peers and --images")
    for part in PARTS if "all" in args.parts else args.parts:
        measure(part, args)
    write_page()


def measure(part: str, args: argparse.Namespace) -> None:
    """Run a part in a folder of its own; each result is kept as soon as it is there."""
    from performance.record import Bounds

    with tempfile.TemporaryDirectory(prefix=f"performance-{part}-", dir=args.folder) as folder:
        towers = args.towers and args.towers.resolve()
        bounds = Bounds(Path(folder), args.peers, args.images.resolve(), args.rounds, args.scale, towers)
        for result in importlib.import_module(f"performance.{part}").measure(bounds):
            line = {"part": part, **asdict(result), "command": command(part, args), "origin": origin(args.peers)}
            print(json.dumps(line, ensure_ascii=False), flush=True)
            keep(line)


def command(part: str, args: argparse.Namespace) -> str:
    """What repeats a part's results."""
    bounds = [f"--rounds {args.rounds}", *([f"--scale {args.scale:g}"] if args.scale != 1 else [])]
    return shlex.join(["performance.py", part]) + " " + " ".join(bounds)


def origin(peers: str) -> dict[str, object]:
    """The machine, how busy it was, and the versions of ours and of the peers."""
    script = f"""import json
from importlib.metadata import PackageNotFoundError, version
versions = {{}}
for name in {PACKAGES}:
    try: versions[name] = version(name)
    except PackageNotFoundError: pass
print(json.dumps(versions))"""
    printed = subprocess.run([peers, "-c", script], stdout=subprocess.PIPE, check=True).stdout
    cpus = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    machine = f"{len(cpus)} × {cpus[0].partition(': ')[2]}" if cpus else platform.machine()
    return {
        "machine": machine, "load": round(os.getloadavg()[0], 1), "commit": short_commit(),
        "versions": json.loads(printed),
    }  # fmt: skip


def short_commit() -> str:
    """The first digits of the commit, with the mark of files that differ from it."""
    commit = source_commit() or ""
    return commit[:7] + (CHANGES if commit.endswith(CHANGES) else "")


def keep(line: dict) -> None:
    """Put a line in the place of that of the same work, peer and cost; several parts may run at once."""

    def key(line: dict) -> tuple:
        return line["part"], line["work"], line.get("peer"), line.get("cost"), line.get("size")

    with lock_folder(LINES.parent, wait_s=60):
        lines = [other for other in read_lines() if key(other) != key(line)] + [line]
        lines.sort(key=lambda line: PARTS.index(line["part"]))
        write_text(LINES, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def read_lines() -> list[dict]:
    return [json.loads(line) for line in LINES.read_text(encoding="utf-8").splitlines()] if LINES.exists() else []


def write_page() -> None:
    """The tables of the lines, between the page's marks."""
    text = PAGE.read_text(encoding="utf-8")
    lines = read_lines()
    tables = {"peers": peers_table, "clock": clock_table, "growth": growth_table, "origins": origins}
    for name, rows in ((name, table(lines)) for name, table in tables.items()):
        start, end = START.format(name), END.format(name)
        before, _, rest = text.partition(start)
        text = f"{before}{start}\n" + "\n".join(rows) + f"\n{end}{rest.partition(end)[2]}"
    write_text(PAGE, text)


def peers_table(lines: list[dict]) -> Iterator[str]:
    yield "| work | peer | cost | peer's ÷ ours | goal | equal before | counted limit | command |"
    yield "|---|---|---|---:|---|---|---|---|"
    for line in lines:
        if ratios := line.get("ratios"):
            goal, median = line["goal"], statistics.median(ratios)
            verdict = "–" if goal is None else f"{goal:g}: {'reached' if median >= goal else '**missed**'}"
            spread = f"{min(ratios):.2f}–{max(ratios):.2f}, {len(ratios)} rounds" if len(ratios) > 1 else "one round"
            shown = f"**{median:.2f}** ({spread})"
            cells = [line["work"], line["peer"], line["cost"], shown, verdict, line["checked"] or "–"]
            yield row([*cells, line["limit"] or "–", f"`{line['command']}`"])


def clock_table(lines: list[dict]) -> Iterator[str]:
    yield "| work | seconds | goal | command |"
    yield "|---|---:|---|---|"
    for line in lines:
        if seconds := line.get("seconds"):
            median, limit = statistics.median(seconds), line["limit_s"]
            shown = f"**{median:.2f}** ({min(seconds):.2f}–{max(seconds):.2f}, {len(seconds)} runs)"
            verdict = f"below {limit:g}: {'reached' if median < limit else '**missed**'}"
            yield row([line["work"], shown, verdict, f"`{line['command']}`"])


def growth_table(lines: list[dict]) -> Iterator[str]:
    if not any(line.get("sizes") for line in lines):
        yield "Not measured here yet: `performance.py growth`."
        return
    yield "| work | by | cost, the smallest being 1 | exponent | counted |"
    yield "|---|---|---|---:|---|"
    for line in lines:
        if sizes := line.get("sizes"):
            costs = np.array(line["costs"]) / line["costs"][0]
            shown = ", ".join(f"{size:,}: {cost:.2f}" for size, cost in zip(sizes, costs, strict=True))
            yield row([line["work"], line["size"], shown, f"{exponent(sizes, costs):.2f}", line["expected"]])


def exponent(sizes: list[int], costs: np.ndarray) -> float:
    """The slope of log cost over log size, by least squares."""
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def origins(lines: list[dict]) -> Iterator[str]:
    """Where and with what each part was measured."""
    yield "| part | machine | load | commit | versions |"
    yield "|---|---|---:|---|---|"
    for part in PARTS:
        if of_part := [line["origin"] for line in lines if line["part"] == part]:
            loads = sorted({origin["load"] for origin in of_part})
            load = "–".join(f"{load:g}" for load in dict.fromkeys((loads[0], loads[-1])))
            versions = (", ".join(f"{name} {number}" for name, number in each["versions"].items()) for each in of_part)
            commits = (f"`{each['commit']}`" for each in of_part)
            machines = (each["machine"] for each in of_part)
            yield row([part, *("; ".join(dict.fromkeys(values)) for values in (machines, [load], commits, versions))])


def row(cells: list[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


if __name__ == "__main__":
    main()
