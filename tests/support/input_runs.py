"""Inputs through the commands of two checkouts of medclip, 0.1 among them: what was said, and what was written."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from support.archives import tar_bytes
from support.dicom_files import PACKAGED
from support.material import draw_image, image_bytes

MODEL = Path(__file__).resolve().parent / "clip-tiny"
CAPTION = "CT of the chest: no pleural effusion"
IMAGES = [image_bytes(draw_image(number), "PNG") for number in range(8)]
Files = dict[str, "bytes | str"]
THREE: Files = {f"{n}.png": IMAGES[n] for n in (1, 2, 3)}
LISTED = re.compile(r"(: it is neither| Sources are:).*")  # what a message says of other sources
START = """import sys
try:
    from medclip.cli.main import main
except ImportError:
    from medclip.cli import main
sys.argv[0] = "medclip"
main()
"""
OLD_WORDS = {"--num-workers": "--workers", "index build": "index", "index add": "curate add"}


@dataclass(frozen=True, slots=True)
class Run:
    """How a command ended, and the dataset that it left."""

    code: int
    text: str
    pairs: list[dict[str, Any]]
    dropped: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Checkout:
    path: Path

    def process(self, folder: Path, command: str, *flags: str, **options: Any) -> subprocess.Popen:
        """Start a command in `folder`, whose own config folder it has."""
        if not (self.path / "src/medclip/cli/main.py").is_file():  # 0.1
            command, flags = OLD_WORDS.get(command, command), tuple(OLD_WORDS.get(flag, flag) for flag in flags)
        env = {**os.environ, "PYTHONPATH": f"{self.path / 'src'}", "XDG_CONFIG_HOME": f"{folder}", "COLUMNS": "2000"}
        words = [sys.executable, "-c", START, *command.split(), *flags]
        return subprocess.Popen(words, cwd=folder, env=env, stderr=subprocess.STDOUT, text=True, **options)

    def run(self, folder: Path, command: str, *flags: str, out: str = "") -> Run:
        """Run a command to its end; the pairs are those of the dataset that it writes into `out`."""
        flags = (*flags, "--out", out) if out else flags
        with self.process(folder, command, *flags, stdout=subprocess.PIPE) as process:
            text, _ = process.communicate()
        return run_of(process.returncode, text, folder / (out or "none"))

    def prepare(self, folder: Path, source: Path, *flags: str, out: str = "out") -> Run:
        return self.run(folder, "prepare", f"{source.relative_to(folder)}", "--num-workers", "1", *flags, out=out)

    @contextmanager
    def serve(self, folder: Path, index: str) -> Iterator[tuple[str, int]]:
        """The URL and the process of `medclip serve`, ready to answer."""
        log = folder / "log"
        with (
            log.open("wb") as file,
            self.process(folder, "serve", "--index", index, "--port", "0", stdout=file) as process,
        ):
            while not (url := re.search(r"http://\S+:\d+", log.read_text())) and process.poll() is None:
                time.sleep(0.1)
            try:
                if url is None:
                    raise RuntimeError(log.read_text())
                yield url[0], process.pid
            finally:
                process.terminate()


def run_of(code: int, text: str, written: Path) -> Run:
    """How a command ended, with the dataset in the folder that it wrote."""
    pairs = [row for file in sorted(written.glob("*.arrow")) for row in read_shard(file)]
    dropped = written / "dropped.jsonl"
    lines = dropped.read_text(encoding="utf-8").splitlines() if dropped.is_file() else []
    return Run(code, text, pairs, [json.loads(line) for line in lines])


def read_shard(path: Path) -> list[dict[str, Any]]:
    with pa.memory_map(str(path)) as file:
        return pa.ipc.open_file(file).read_all().to_pylist()


# --- what is shown of a run


def ending(run: Run) -> str:
    """How a command failed, in its own words."""
    lines = [line for line in run.text.splitlines() if line.startswith("medclip:")] or run.text.splitlines()[-1:]
    text = LISTED.sub("", " ".join(lines).removeprefix("medclip: "))
    return f"exit code {run.code}: {text}" if run.code else ""


def counts(run: Run) -> str:
    # sorted, as the order of splits is by a key of the moment
    reasons = sorted(Counter(row["reason"] for row in run.dropped).items())
    pairs = f"{len(run.pairs)} pair{'s' * (len(run.pairs) != 1)}" if run.pairs or not run.code else ""
    lost = "" if run.code else ", ".join(f"{count} × {reason}" for reason, count in reasons)
    return "; ".join(filter(None, [pairs, lost, ending(run)]))


def captions(run: Run) -> str:
    return " and ".join(repr(row["caption"]) for row in run.pairs) or counts(run)


def groups(run: Run) -> str:
    number = len({row["article"] for row in run.pairs})
    return re.sub(r"(?<=pairs)|(?<=pair)(?=;|$)", f" in {number} group{'s' * (number != 1)}", counts(run), count=1)


def warnings(run: Run) -> str:
    lines = [line for line in run.text.splitlines() if "without a patient" in line or "was replaced in" in line]
    return f"“{lines[0].strip()}”" if lines else "nothing on the terminal"


def grays(run: Run) -> np.ndarray:
    """The grays of five blocks."""
    image = np.asarray(Image.open(io.BytesIO(run.pairs[0]["image"])).convert("L"), dtype=float)
    return image[image.shape[0] // 2, image.shape[1] // 10 :: image.shape[1] // 5]


def error_from(expected: Iterable[float]) -> Callable[[Run], str]:
    def show(run: Run) -> str:
        if not run.pairs:
            return counts(run)
        error = np.abs(grays(run) - list(expected))
        return "right" if error.max() <= 2 else f"mean error {error.mean():.0f} gray levels"  # JPEG moves one or two

    return show


def middle_slice(run: Run) -> str:
    """Which of nine slices: the gray of its last block is 20 times its place."""
    return f"slice {grays(run)[4] / 20 + 1:.0f} of 9; {counts(run)}" if run.pairs else counts(run)


# --- what rows are made of


def write(folder: Path, files: Files) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)
    return folder


def source(make: Callable[[Path], Path], show: Callable[[Run], str] = counts, *flags: str):
    """A row that is one `medclip prepare` of what `make` writes."""

    def result(checkout: Checkout, folder: Path) -> str:
        (folder / "source").mkdir()
        return show(checkout.prepare(folder, make(folder / "source"), *flags))

    return result


def files(names: Files, name: str = "", show: Callable[[Run], str] = counts, *flags: str):
    """A row of a folder, or of the file `name` in it."""
    return source(lambda folder: write(folder, names) / name, show, *flags)


def table(text: str, show: Callable[[Run], str] = counts, *flags: str, name: str = "x.csv", images: Files = THREE):
    """A row of a table and the images beside it."""
    return files({**images, name: text}, name, show, *flags)


def archive(*members: tuple[str, bytes], show: Callable[[Run], str] = counts):
    return files({"x.tar": tar_bytes(members)}, "x.tar", show)


def samples(*names: str) -> list[tuple[str, bytes]]:
    """Members of an archive: an image and a caption each."""
    return [
        (f"{name}.{kind}", data)
        for number, name in enumerate(names)
        for kind, data in (("png", IMAGES[number]), ("txt", f"{CAPTION} {number}".encode()))
    ]


# --- rows that are several commands


def two_tables(checkout: Checkout, folder: Path) -> None:
    """Prepare two tables without ids, which have no image, caption or article in common."""
    for first, name, split in ((0, "berlin", "train"), (40, "paris", "validation")):
        lines = [f"{n}.png,{CAPTION} {first + n},{split}" for n in range(6)]
        images = {f"{n}.png": image_bytes(draw_image(first + n, (200, 160)), "PNG") for n in range(6)}
        site = write(folder / name, {**images, "pairs.csv": "\n".join(["image,caption,split", *lines])})
        checkout.prepare(folder, site / "pairs.csv", out=f"{name}-data")


def delete_leaks(checkout: Checkout, folder: Path) -> str:
    two_tables(checkout, folder)
    clean = checkout.run(folder, "leakage", "berlin-data", "paris-data", out="clean")
    return f"{6 - len(clean.pairs)} of 6 training pairs deleted as leaks"


def build_index(checkout: Checkout, folder: Path) -> None:
    two_tables(checkout, folder)
    flags = ["--data", "berlin-data", "--split", "train"]
    checkout.run(folder, "index build", "--model", f"{MODEL}", *flags, out="index")


def add_to_index(checkout: Checkout, folder: Path) -> str:
    build_index(checkout, folder)
    run = checkout.run(folder, "index add", "--index", "index", "--data", "paris-data")
    return run.text.strip().splitlines()[-1]


def upload(checkout: Checkout, folder: Path) -> str:
    """Whether GDCM is loaded where an uploaded file needs it. Linux only."""
    build_index(checkout, folder)
    content = (PACKAGED / "SC_rgb_jpeg_gdcm.dcm").read_bytes()
    body = b'--x\r\nContent-Disposition: form-data; name="images"; filename="x"\r\n\r\n' + content + b"\r\n--x--\r\n"
    with checkout.serve(folder, "index") as (url, pid):
        request = urllib.request.Request(
            f"{url}/search/image", body, {"Content-Type": "multipart/form-data; boundary=x"}
        )
        with urllib.request.urlopen(request, timeout=300) as response:
            loaded = "gdcm" in Path(f"/proc/{pid}/maps").read_text().lower()
            return f"status {response.status}; GDCM is {'loaded' if loaded else 'not loaded'}"
