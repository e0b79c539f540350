"""Damaged model folders, mutated images, and fuzzing of every parser."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pydicom

from medclip.errors import ImageError, UserError
from soak.commands import in_fork, run
from soak.record import Bounds, Record, sentence
from soak.writing import Place
from support.dicom_files import PACKAGED, dicom, dicom_bytes, gray_ramp
from support.gallery_stored import restore
from support.hostile_folders import HOSTILE_BYTES, hostile_fields, json_files
from support.material import draw_image, image_bytes
from support.parsers import PARSERS
from support.served import start_server

LAYOUTS = ("clip-transformers-5", "openai-clip-b32", "siglip-b16", "siglip2-b16", "join-transformers-5", "biomedclip",
           "clipa", "minilm", "mpnet")  # fmt: skip
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP")
UPLOAD = b'--b\r\nContent-Disposition: form-data; name="images"; filename="x"\r\n\r\n'
MAX_DICOM_BYTES = 200_000
FUZZ = Path(__file__).with_name("fuzz.py")


def folders(bounds: Bounds) -> Iterator[Record]:
    """Model folders of published layouts, one field of their JSON hostile or one file no JSON."""
    rng = random.Random(bounds.seed)
    for name in filter(lambda name: bounds.only in name, LAYOUTS):
        restore(name, bounds.folder)
        folder, outcomes, faults = bounds.folder / name / "model", Counter(), []
        cases = [
            (path, f"{way} = {str(value)[:40]}", content.encode())
            for path in json_files(folder)
            for way, value, content in hostile_fields(json.loads(path.read_bytes()))
        ]
        cases += [(path, fault, content) for path in json_files(folder) for fault, content in HOSTILE_BYTES.items()]
        tried = [case for number, case in zip(bounds.times(40), rng.sample(cases, len(cases)), strict=False)]

        def open_all(folder: Path = folder, tried: list = tried) -> str:
            lines = (f"{path.name}: {what}: {_open_or_refuse(folder, path, text)}" for path, what, text in tried)
            return "\n".join(lines)

        for line in in_fork(open_all, bounds.folder / "log").splitlines():
            outcome = "opens" if line.endswith(": opens") else "a sentence" if ": UserError: " in line else "fault"
            outcomes[outcome] += 1
            faults += [line[:300]] if outcome == "fault" else []
        yield Record(f"hostile files of a model folder ({name})", len(tried), f"{outcomes['a sentence']} refused in a "
                     f"sentence, {outcomes['opens']} open", faults, only=name)  # fmt: skip


def _open_or_refuse(folder: Path, path: Path, content: bytes) -> str:
    from medclip.model.adapt import join_towers
    from medclip.model.checkpoint import load
    from support.references import FOLDER

    whole = path.read_bytes()
    path.write_bytes(content)
    try:
        model = join_towers(FOLDER, folder, 24) if (folder / "modules.json").exists() else load(folder)
        model.tokenizer.encode(["CT of the chest", "", "胸部 \U0010ffff"])
        return "opens"
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    finally:
        path.write_bytes(whole)


def mutate(rng: random.Random, content: bytes) -> bytes:
    """Bits flipped, bytes set, a run cut, doubled or zeroed, or the end cut off."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at, length = rng.randrange(len(data)), rng.choice((1, 2, 4, 64))
        match rng.randrange(6):
            case 0 | 1:
                data[at] ^= 1 << rng.randrange(8)
            case 2:
                data[at : at + length] = rng.randbytes(length)
            case 3:
                del data[at : at + length]
            case 4:
                data[at:at] = data[at : at + length]
            case _:
                data = data[: max(at, 1)] if rng.random() < 0.3 else data
        data = data or bytearray(b"\0")
    return bytes(data)


def whole_images() -> dict[str, bytes]:
    """An image of each format, and of each small DICOM file that pydicom comes with."""
    images = {kind: image_bytes(draw_image(3, (96, 80)), kind) for kind in FORMATS}
    images["DICOM"] = dicom_bytes(dicom(gray_ramp()))
    for path in PACKAGED.glob("*.dcm"):
        if path.stat().st_size < MAX_DICOM_BYTES and "PixelData" in pydicom.dcmread(path, force=True):
            images[path.name] = path.read_bytes()
    return images


def images(bounds: Bounds) -> Iterator[Record]:
    """Mutated images through a preparation, the API, the app and `search --image`."""
    place, rng, whole = Place(bounds.folder), random.Random(bounds.seed), whole_images()
    names = sorted(whole)

    def draw(count: int) -> list[bytes]:
        return [mutate(rng, whole[rng.choice(names)]) for _ in range(count)]

    readers = {"prepare": (_prepare, 600), "API": (_post, 300), "app": (_app, 300), "search --image": (_search, 10)}
    for name, (read, usual) in readers.items():
        if bounds.only in name:
            tried = draw(bounds.count(usual))
            outcome, faults = read(place, tried)
            yield Record(f"a mutated image given to `{name}`", len(tried), outcome, faults, only=name)


def _prepare(place: Place, tried: list[bytes]) -> tuple[str, list[str]]:
    source, out = place.folder / "mutated", place.folder / "prepared"
    for folder in (source, out):
        shutil.rmtree(folder, ignore_errors=True)
    source.mkdir()
    for number, content in enumerate(tried):
        (source / f"{number}.img").write_bytes(content)
    lines = (f"{n}.img,CT of the chest number {n},train\n" for n in range(len(tried)))
    (source / "x.csv").write_text("image,caption,split\n" + "".join(lines))
    ended = run(f"prepare {source / 'x.csv'} --num-workers 2 --out {out}", place.folder)
    if ended.code:
        return "", [f"ended with {ended.code}: {sentence(ended.output)}"]
    dataset = json.loads((out / "dataset.json").read_bytes())
    num_pairs, dropped = dataset["splits"]["train"]["pairs"], dataset["dropped"]["train"]
    faults = [] if num_pairs + sum(dropped.values()) == len(tried) else [f"{num_pairs} pairs and {dropped} are not all"]
    return f"{num_pairs} decoded, {sum(dropped.values())} counted under {len(dropped)} reasons", faults


def _post(place: Place, tried: list[bytes]) -> tuple[str, list[str]]:
    codes, faults = Counter(), []
    with start_server(place.paths["index"], place.folder / "served", "--model", str(place.paths["run"])) as server:
        for number, content in enumerate(tried):
            body = UPLOAD + content + b"\r\n--b--\r\n"
            kind = {"Content-Type": "multipart/form-data; boundary=b"}
            try:
                with urllib.request.urlopen(urllib.request.Request(f"{server.url}/search/image", body, kind)) as answer:
                    codes[answer.status] += 1
            except urllib.error.HTTPError as error:
                codes[error.code] += 1
                faults += [f"{number}: {error.code}: {error.read()[:200]!r}"] if error.code >= 500 else []
        faults += ["a traceback in the log"] if "Traceback" in server.log() else []
    return ", ".join(f"{count} answered {code}" for code, count in sorted(codes.items())), faults


def _app(place: Place, tried: list[bytes]) -> tuple[str, list[str]]:
    def show() -> str:
        from medclip.app.text import standardize_upload

        outcomes: Counter[str] = Counter()
        for number, content in enumerate(tried):
            try:
                standardize_upload.__wrapped__(content)  # without the cache of a session
                outcomes["shown"] += 1
            except (UserError, ImageError):
                outcomes["refused in a sentence"] += 1
            except Exception as error:
                outcomes[f"{number}: {type(error).__name__}: {error}"] += 1
        return json.dumps(outcomes)

    result = in_fork(show, place.folder / "log")
    if not result.startswith("{"):
        return "", [result]
    outcomes = json.loads(result)
    faults = [name for name in outcomes if ":" in name]
    return ", ".join(f"{count} {name}" for name, count in outcomes.items() if name not in faults), faults


def _search(place: Place, tried: list[bytes]) -> tuple[str, list[str]]:
    codes, faults, path = Counter(), [], place.folder / "query"
    for content in tried:
        path.write_bytes(content)
        ended = run(f"search --index {place.paths['index']} --model {place.paths['run']} --image {path}", place.folder)
        codes[ended.code] += 1
        faults += [f"ended with {ended.code}: {sentence(ended.output)}"] if ended.code not in (0, 2) else []
    return ", ".join(f"{count} ended with {code}" for code, count in sorted(codes.items())), faults


def fuzz(bounds: Bounds) -> Iterator[Record]:
    """Each parser under coverage-guided fuzzing, for --seconds; its faults go to FOLDER/fuzz/PARSER/faults."""
    if importlib.util.find_spec("atheris") is None:
        raise SystemExit("fuzz needs atheris: pip install atheris, into an environment that has medclip's packages")
    names = [name for name in PARSERS if bounds.only in name]
    words = [FUZZ, bounds.folder / "fuzz", *names, "--seconds", bounds.seconds or 60, "--seed", bounds.seed]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, *map(str, words)], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        for line in process.stdout or ():
            result = json.loads(line)
            yield Record(f"fuzzed parser: {result['parser']}", result["inputs"], "read or refused in a sentence",
                         result["faults"], only=result["parser"])  # fmt: skip
