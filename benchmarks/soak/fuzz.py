"""Coverage-guided fuzzing of the parsers of tests/support/parsers.py with atheris, for benchmarks/soak.py.

    PYTHONPATH=tests python benchmarks/soak/fuzz.py FOLDER PARSER… --seconds 60 --seed 0

FOLDER/PARSER/corpus grows; FOLDER/PARSER/faults gets one input of each error that is no refusal, named by where it was
raised, and what crashed or hung the process. Each parser prints a line of JSON: its name, how many inputs it was given,
and its faults. Needs `pip install atheris` (Python 3.11 to 3.13, Linux), which is no dependency of medclip. JSON is
changed field by field as well as byte by byte, as its scanner is C, which atheris does not follow.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import random
import re
import sys
import tempfile
import time
import traceback
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["medclip"], enable_loader_override=False):
    from medclip.atomic_io import CHECKSUM, canonical_json
    from support.hostile_folders import HOSTILE_VALUES
    from support.parsers import PARSERS, Parser, fuzz_once

MAX_BYTES, TIMEOUT_S, MEMORY_MB = 200_000, 60, 4000


def fault_name(error: BaseException) -> str:
    """The kind of an error and the last line of medclip that it came through."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/src/medclip/" in frame.filename]
    place = f"{Path(frames[-1].filename).stem}-{frames[-1].lineno}" if frames else "elsewhere"
    return f"{type(error).__name__}-{place}"


def change_json(content: bytes, rng: random.Random) -> bytes:
    """JSON, or lines of it, with one value replaced, removed or repeated; as it is where it is none."""
    lines = content.split(b"\n")
    number = rng.randrange(len(lines)) if len(lines) > 1 and lines[0].endswith(b"}") else None
    try:
        value = json.loads(content if number is None else lines[number])
    except (ValueError, RecursionError):
        return content
    node, key, parent = value, None, None
    while isinstance(node, dict | list) and node and (parent is None or rng.random() < 0.8):
        parent, key = node, rng.choice(list(node) if isinstance(node, dict) else range(len(node)))
        node = parent[key]
    if parent is None:
        return content
    chosen = rng.random()
    if chosen < 0.1:
        del parent[key]
    elif chosen < 0.2 and isinstance(parent, list):
        parent.insert(key, node)
    else:
        parent[key] = rng.choice(HOSTILE_VALUES)
    if isinstance(value, dict) and CHECKSUM in value:  # a hostile one has a right checksum
        content_alone = {name: item for name, item in value.items() if name != CHECKSUM}
        value[CHECKSUM] = hashlib.sha256(canonical_json(content_alone)).hexdigest()
    try:
        changed = json.dumps(value).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError):
        return content
    return changed if number is None else b"\n".join([*lines[:number], changed, *lines[number + 1 :]])


def mutate(content: bytes, max_size: int, seed: int) -> bytes:
    """libFuzzer's custom mutator."""
    rng = random.Random(seed)
    changed = change_json(content, rng) if rng.random() < 0.5 else content
    return atheris.Mutate(content, max_size) if changed == content or len(changed) > max_size else changed


def fuzz(parser: Parser, folder: Path, seconds: float, seed: int) -> None:
    """Fuzz a parser in this process, which ends with it."""
    corpus, faults = folder / "corpus", folder / "faults"
    work = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    for made in (corpus, faults):
        made.mkdir(parents=True, exist_ok=True)
    parser.make(work)
    whole = (work / parser.file).read_bytes()
    (corpus / hashlib.sha256(whole).hexdigest()[:16]).write_bytes(whole)

    def test(content: bytes) -> None:
        try:
            fuzz_once(parser, work, content)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            if not (path := faults / fault_name(error)).exists():
                path.write_bytes(content)
                (folder / "errors").open("a").write("".join(traceback.format_exception(error, limit=-4)))

    options = {"max_total_time": max(1, int(seconds)), "seed": seed + 1, "max_len": max(MAX_BYTES, 2 * len(whole))}
    options |= {"timeout": TIMEOUT_S, "rss_limit_mb": MEMORY_MB, "artifact_prefix": f"{faults}/"}
    words = [sys.argv[0], "-print_final_stats=1", *(f"-{name}={value}" for name, value in options.items()), str(corpus)]
    atheris.Setup(words, test, custom_mutator=mutate)
    atheris.Fuzz()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("parsers", nargs="+", choices=PARSERS, metavar="PARSER")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    logging.disable()
    for name in args.parsers:
        folder, units, start = args.folder / name.replace("/", "-"), 0, time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)
        while (left := args.seconds - (time.monotonic() - start)) > 1:  # anew where an input ended the process
            log = folder / "log"
            if (pid := os.fork()) == 0:
                descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                os.dup2(descriptor, 1)
                os.dup2(descriptor, 2)
                fuzz(PARSERS[name], folder, left, args.seed)
                os._exit(0)
            os.waitpid(pid, 0)
            counts = re.findall(rb"number_of_executed_units: (\d+)|^#(\d+)", log.read_bytes(), re.M)
            units += max((int(a or b) for a, b in counts), default=0)
        faults = sorted(path.name for path in (folder / "faults").iterdir())
        print(json.dumps({"parser": name, "inputs": units, "faults": faults}), flush=True)


if __name__ == "__main__":
    main()
