"""What becomes of inputs that people really have, in two checkouts of medclip: docs/inputs.md.

    git worktree add OLD 8b7545a                # the last commit of 0.1
    PYTHONPATH=src:tests python benchmarks/inputs.py OLD . > docs/inputs.md

Every row is made anew in a temporary folder and goes through the commands of both checkouts, with the Python and the
libraries that run this script; most rows are one `medclip prepare`. `--only WORD` prints the rows that hold the word,
or whose section does.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from input_rows import SECTIONS, Input

from support.input_runs import Checkout

MAX_SHOWN = 200


def result_of(row: Input, checkout: Checkout) -> str:
    with tempfile.TemporaryDirectory() as folder:
        text = " ".join(row.result(checkout, Path(folder)).split()).replace(folder, "…").replace("source/", "")
    text = re.sub(r"[|*_\[]", r"\\\g<0>", unicodedata.normalize("NFC", text))
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path, help="a checkout of 0.1")
    parser.add_argument("new", type=Path, help="the checkout to compare")
    parser.add_argument("--only", default="", help="rows that hold this word, or whose section does")
    arguments = parser.parse_args()
    checkouts = [Checkout(path.resolve()) for path in (arguments.old, arguments.new)]
    print(HEADING, end="")
    with ThreadPoolExecutor(2) as threads:
        for section, rows in SECTIONS.items():
            print(f"\n## {section}\n\n| input | 0.1 | now | test |\n|---|---|---|---|", flush=True)
            for row in rows():
                if arguments.only in f"{section}: {row.name}":
                    old, new = threads.map(result_of, [row, row], checkouts)
                    file, test = row.test.split("::")
                    print(f"| {row.name} | {old} | {new} | [{test}](../{file}) |", flush=True)


HEADING = """# Inputs as people have them

What 0.1 (commit 8b7545a) did with them, and what happens now. Every row went through the commands of both, mostly
`medclip prepare`. The last column links the test that holds what happens now. `python
benchmarks/inputs.py OLD NEW` makes the inputs and writes this page. A gray value is right within 2 of what is worked
out by hand from DICOM PS3.3 (JPEG moves it by 1 or 2).
"""


if __name__ == "__main__":
    main()
