"""Kills, full disks and second writers over every stage that writes; a long training with saves."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from medclip.data.dataset import Split
from medclip.search.stores.faiss import MIN_SEGMENT_ROWS
from soak.commands import (
    Command,
    Ended,
    digest,
    folder_bytes,
    in_fork,
    leftovers,
    run,
    run_whole,
    write_roco,
    write_rows,
)
from soak.record import Bounds, Record, sentence

TRAIN = "train --data {data} --preset tiny --steps 12 --batch-size 8 --num-evals 4 --out {out}"
LARGE = "index build --model {run} --data {large} --split train --embeddings {vectors} --out {out}"
MAX_TRIES_PER_KILL = 5
NUM_LARGE = MIN_SEGMENT_ROWS * 10 // 9 + 10  # nine tenths are for training
INDEX = "segments/*/embeddings.npy segments/*/rows.arrow segments/*/*.faiss"  # index.json holds a name of its own


class Stage(NamedTuple):
    """A command that writes {out}, and what makes it whole after a fault."""

    words: str
    compared: str
    """Patterns of the files that must be as a run writes them that nothing disturbs."""
    again: str = ""
    """Left out: the same words."""
    before: str = ""
    """What {out} holds first: a folder of the work place."""
    then: str = ""
    """A command that must read the folder right after a kill."""


STAGES = {
    "prepare": Stage("prepare {roco} --num-workers 1 --out {out}", "*.arrow dataset.json dropped.jsonl report.html"),
    "train": Stage(TRAIN, "model/*.safetensors model/config.json model/tokenizer.json", f"{TRAIN} --resume"),
    "train --resume": Stage(f"{TRAIN} --resume", "model/*.safetensors model/config.json", before="started"),
    "embed": Stage("embed --model {run} --data {data} --out {out}", "*.npy"),
    "index build": Stage("index build --model {run} --data {data} --out {out}", INDEX),
    "index add": Stage(
        "index add --index {out} --model {run} --data {data} --split train",
        INDEX,
        before="index",
        then="search --index {out} chest --model {run}",
    ),
    "index purge": Stage(
        "index purge --index {out}", INDEX, before="deleted", then="search --index {out} chest --model {run}"
    ),
    "index build --vector-store faiss": Stage(f"{LARGE} --vector-store faiss", INDEX),
    "index migrate faiss": Stage(
        "index migrate faiss --index {out}", INDEX, before="exact", then="search --index {out} chest --model {run}"
    ),
    "evaluate": Stage("evaluate retrieval --model {run} --data {data} --out {out}", "retrieval.json retrieval.arrow"),
    "export parquet": Stage("export {data} --to parquet --out {out}", "**/*.parquet"),
    "export tar": Stage("export {data} --to tar --out {out}", "**/*.tar"),
    "export safetensors": Stage("export {run} --to safetensors --out {out}", "*.safetensors *.json"),
}


class Place:
    """A work place: a source, a dataset, a run and indexes; and each stage's output where nothing disturbs it."""

    def __init__(self, folder: Path):
        self.folder = folder
        names = ("roco", "data", "run", "index", "deleted", "started", "large", "vectors", "exact")
        self.paths = {name: folder / name for name in names}
        write_roco(self.paths["roco"])
        run_whole(f"prepare {self.paths['roco']} --num-workers 1 --out {self.paths['data']}", folder)
        run_whole(self.words(TRAIN, self.paths["run"]), folder)
        run_whole(self.words(STAGES["index build"].words, self.paths["index"]), folder)
        shutil.copytree(self.paths["index"], self.paths["deleted"])
        ids = Split(self.paths["data"], "validation").column("id")[::3]
        run_whole(f"index delete --index {self.paths['deleted']} --ids {' '.join(ids)}", folder)
        self.whole: dict[str, Ended] = {}
        self.digests: dict[str, str] = {}

    def words(self, words: str, out: Path) -> list[str]:
        return [word.format(**self.paths, out=out) for word in words.split()]

    def make_fresh(self, stage: Stage, out: Path) -> None:
        """An output folder as the stage finds it."""
        shutil.rmtree(out, ignore_errors=True)
        if stage.before:
            shutil.copytree(self.paths[stage.before], out)

    def run_undisturbed(self, name: str) -> Ended:
        """The stage run once as it should; compiled functions are in the cache afterwards."""
        if name not in self.whole:
            stage, out = STAGES[name], self.folder / "undisturbed"
            if name == "train --resume" and not self.paths["started"].exists():
                command = Command(self.words(TRAIN, self.paths["started"]), self.folder / "log")
                command.kill_at(0.6 * self.run_undisturbed("train").cpu_s)
                command.wait()
            if "faiss" in name and not self.paths["large"].exists():
                self._make_large()
            for _ in range(2):
                self.make_fresh(stage, out)
                self.whole[name] = run_whole(self.words(stage.words, out), self.folder)
            self.digests[name] = digest(out, stage.compared)
        return self.whole[name]

    def _make_large(self) -> None:
        """A dataset whose index has a faiss file, its embeddings, and that index without one."""
        in_fork(lambda: write_rows(self.paths["large"], NUM_LARGE), self.folder / "log")
        words = "embed --model {run} --data {large} --split train --out {out}"
        run_whole(self.words(words, self.paths["vectors"]), self.folder)
        run_whole(self.words(LARGE, self.paths["exact"]), self.folder)

    def run_again(self, name: str, out: Path) -> str:
        """Run what makes a disturbed output whole; what is wrong then, empty where it is the undisturbed one."""
        stage = STAGES[name]
        again = run(self.words(stage.again or stage.words, out), self.folder)
        if again.code and not is_finished(again):
            return f"the second run ended with {again.code}: {sentence(again.output)}"
        return "" if digest(out, stage.compared) == self.digests[name] else "not the undisturbed output"


def is_finished(ended: Ended) -> bool:
    """Whether a command was refused as its output is whole already."""
    return ended.code == 2 and "already finished" in ended.output.replace("\n", " ")


def stage_names(bounds: Bounds) -> Iterator[str]:
    return (name for name in STAGES if bounds.only in name)


def kills(bounds: Bounds) -> Iterator[Record]:
    """SIGKILL at random moments, then the same command (or --resume): what comes out is the undisturbed output."""
    place, rng = Place(bounds.folder), random.Random(bounds.seed)
    for name in stage_names(bounds):
        whole, num_killed, faults = place.run_undisturbed(name), 0, []
        for number in bounds.times(12):
            for _ in range(MAX_TRIES_PER_KILL):  # some end before their moment
                killed, problem = _kill(place, name, rng.random() * whole.cpu_s)
                num_killed += killed
                faults += [f"{number}: {problem}"] if problem else []
                if killed:
                    break
        yield Record(f"`{name}` killed (SIGKILL) at a random moment", num_killed, "the same bytes after the "
                     "next run, nothing half-written left", faults, only=name)  # fmt: skip


def _kill(place: Place, name: str, cpu_s: float) -> tuple[bool, str]:
    """Whether a stage was killed before it ended; and what was wrong afterwards, empty where nothing was."""
    stage, out = STAGES[name], place.folder / "killed"
    place.make_fresh(stage, out)
    command = Command(place.words(stage.words, out), place.folder / "log")
    command.kill_at(cpu_s)
    killed = command.wait().code < 0
    if stage.then and (read := run(place.words(stage.then, out), place.folder)).code:
        return killed, f"not readable after the kill: {sentence(read.output)}"
    if problem := place.run_again(name, out):
        return killed, problem
    if left := leftovers(out):
        return killed, f"{left[0]} is left"
    verified = run(["verify", str(out)], place.folder)
    return killed, f"verify: {sentence(verified.output)}" if verified.code else ""


def disks(bounds: Bounds) -> Iterator[Record]:
    """A disk of a random size, from nothing to what the stage needs; then a larger one and the same command."""
    place, rng = Place(bounds.folder), random.Random(bounds.seed)
    for name in stage_names(bounds):
        stage, faults, full = STAGES[name], [], 0
        place.run_undisturbed(name)
        used = folder_bytes(place.folder / "undisturbed")
        before = folder_bytes(place.paths[stage.before]) * 1.2 if stage.before else 0  # with what blocks leave unused
        for number in bounds.times(8):
            disk = place.folder / "disk"
            disk.mkdir(exist_ok=True)
            mount = ["mount", "-t", "tmpfs", "-o", f"size={int(before + used * rng.uniform(0.02, 1.3)) // 1024 + 16}k"]
            subprocess.run([*mount, "tmpfs", disk], check=True)
            try:
                out = disk / "out"
                try:
                    place.make_fresh(stage, out)
                except (OSError, shutil.Error):
                    continue  # what is there before does not fit
                ended = run(place.words(stage.words, out), place.folder)
                full += ended.code != 0
                last = " ".join(ended.output.splitlines()[-1:])
                if ended.code and not (ended.code == 1 and "medclip: " in last and str(out) in last):
                    faults.append(f"{number}: ended with {ended.code}: {sentence(ended.output)}")
                subprocess.run(["mount", "-o", "remount,size=1g", disk], check=True)
                if problem := place.run_again(name, out):
                    faults.append(f"{number}: with room, {problem}")
            finally:
                subprocess.run(["umount", "--lazy", disk], check=True)
        yield Record(f"`{name}` on a disk that fills (ENOSPC)", full, "exit 1 with the file's name; with room, the "
                     "same command makes the same bytes", faults, only=name)  # fmt: skip


def writers(bounds: Bounds) -> Iterator[Record]:
    """Two of the same command at once, the second a random while later."""
    place, rng = Place(bounds.folder), random.Random(bounds.seed)
    for name in stage_names(bounds):
        stage, outcomes, faults = STAGES[name], Counter(), []
        whole = place.run_undisturbed(name)
        for number in bounds.times(6):
            out = place.folder / "two"
            place.make_fresh(stage, out)
            first = Command(place.words(stage.words, out), place.folder / "log")
            if rng.random() < 0.5:
                first.wait_for(rng.random() * whole.cpu_s)
            second = Command(place.words(stage.words, out), place.folder / "log2")
            for ended in (first.wait(), second.wait()):
                refused = ended.code == 1 and "another process is writing" in ended.output.replace("\n", " ")
                finished = is_finished(ended)
                outcomes["refused" if refused else "already finished" if finished else str(ended.code)] += 1
                if ended.code and not refused and not finished:
                    faults.append(f"{number}: ended with {ended.code}: {sentence(ended.output)}")
            if digest(out, stage.compared) != place.digests[name]:
                faults.append(f"{number}: not the output of one")
        shown = ", ".join(f"{count} {what}" for what, count in sorted(outcomes.items()) if what != "0")
        yield Record(f"two `{name}` at once", outcomes.total() // 2, f"the output of one ({outcomes['0']} worked, "
                     f"{shown or 'none refused'})", faults, only=name)  # fmt: skip


def steps(bounds: Bounds) -> Iterator[Record]:
    """A long training with a save every 40 steps, killed again and again, beside one that nothing disturbs."""
    place, rng, count = Place(bounds.folder), random.Random(bounds.seed), bounds.count(2000)
    words = TRAIN.replace("--steps 12", f"--steps {count}")
    words = words.replace("--num-evals 4", f"--num-evals {max(1, count // 40)}")
    whole = run_whole(place.words(words, place.folder / "long"), place.folder)
    out, faults, num_kills = place.folder / "killed", [], 0
    for attempt in range(10):
        command = Command(place.words(words + (" --resume" if attempt else ""), out), place.folder / "log")
        if attempt < 9:
            command.kill_at(rng.uniform(0.05, 0.4) * whole.cpu_s)
        ended = command.wait()
        if ended.code >= 0:
            break
        num_kills += 1
    model = "model/*.safetensors"
    if ended.code or digest(out, model) != digest(place.folder / "long", model):
        faults.append(f"ended with {ended.code}, the model is another: {sentence(ended.output)}")
    yield Record(f"training killed {num_kills} times", count, "steps with saves; the model has the bytes of a run that "
                 "nothing disturbed", faults)  # fmt: skip
