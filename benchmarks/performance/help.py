"""What `--help` costs in a new process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial

from performance.record import Bounds, Comparison, Result, in_turn, ratios, run


def measure(bounds: Bounds) -> Iterator[Result]:
    peers = {
        "`llm --help`": [bounds.peers, "-c", "from llm.cli import cli; cli()", "--help"],
        "open_clip's `open_clip_train --help`": [bounds.peers, "-m", "open_clip_train.main", "--help"],
    }
    commands = {"ours": [sys.executable, "-m", "medclip.cli.main", "--help"], **peers}
    for command in commands.values():
        run(command)  # compiles modules
    for peer, command in peers.items():
        runs = in_turn(bounds.rounds, {"ours": partial(run, commands["ours"]), "peer": partial(run, command)})
        yield Comparison("`medclip --help`, new process", peer, ratios(runs["peer"], runs["ours"]), goal=1)
