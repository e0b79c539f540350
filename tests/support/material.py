"""What the tests are made of: drawn images, a folder in ROCO's layout, a process of its own."""

import io
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

SHORT_CAPTION = "CT scan."


def level_of(number: int) -> int:
    """The mean gray that stands for image `number`; 4 apart, where JPEG moves a mean by less than 1."""
    return 50 + 4 * number


def draw_image(number: int, size: tuple[int, int] = (48, 40)) -> Image.Image:
    """Gray image `number`: its mean says which it is, its blocks make it unlike the others."""
    width, height = size
    noise = np.random.default_rng(number).uniform(-30, 30, (height // 8, width // 8))
    blocks = np.kron(noise - noise.mean(), np.ones((8, 8)))
    return Image.fromarray(np.rint(level_of(number) + blocks).astype(np.uint8))


def image_bytes(image: Image.Image, kind: str = "JPEG", **options) -> bytes:
    """The bytes of an image file."""
    out = io.BytesIO()
    image.save(out, kind, **({"quality": 95} if kind == "JPEG" else {}) | options)
    return out.getvalue()


@dataclass
class RocoFolder:
    """A folder in ROCO's layout, and what is true of it. Keys are (split, id)."""

    folder: Path
    lines: int = 0
    captions: dict[tuple[str, str], str] = field(default_factory=dict)
    numbers: dict[tuple[str, str], int] = field(default_factory=dict)
    dropped: dict[str, dict[str, int]] = field(default_factory=dict)
    pmc_named: str = "ROCO_90006"

    def add_split(self, split: str, rows: list[tuple[str, str, int, bytes | None]], extra: tuple[str, ...] = ()):
        """Write rows (id, caption, image number, image file or None for an absent one) and `extra` raw lines."""
        folder = self.folder / split / "radiology"
        (folder / "images").mkdir(parents=True)
        lines, links, licenses = [], [], ["ROCO_ID,PMC_ID,CC"]
        for id, caption, number, image in rows:
            pmc = f"PMC{1000 + number // 2}_fig-{number}.jpg"  # two images an article
            lines.append(f"{id}\t {caption}")
            links.append(f"{id}\twget -r ftp://host/oa_package/00/PMC{1000 + number // 2}.tar.gz\tfig-{number}.jpg")
            licenses.append(f"{id},{pmc},CC BY")
            if image is not None:
                (folder / "images" / (pmc if id == self.pmc_named else f"{id}.jpg")).write_bytes(image)
            self.captions[split, id], self.numbers[split, id] = caption, number
        lines += extra
        self.lines += len(lines)
        (folder / "captions.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        (folder / "dlinks.txt").write_text("\n".join(links) + "\n", encoding="utf-8")
        (folder / "licences.txt").write_text("\n".join(licenses) + "\n", encoding="utf-8")
        concepts = "".join(f"{id}\t\tC{number:07}\tC9\n" for id, _, number, _ in rows)
        (folder / "cuis.txt").write_text(concepts, encoding="utf-8")
        types = "".join(f"{id}\t\tT060\tDiagnostic Procedure\n" for id, *_ in rows)
        (folder / "semtypes.txt").write_text(types, encoding="utf-8")
        (folder / "labels.csv").write_text(f"id,modality,organ\n{rows[0][0]},ct,\n", encoding="utf-8")


def bytes_on_disk(folder: Path) -> bytes:
    """What all files below a folder hold."""
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def in_new_process(*arguments):
    """Python with these arguments: what it printed and how it ended."""
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
