"""What the examples share: a small dataset, a small model and its index, each made once in the folder `toy`.

Nothing is downloaded. With MEDCLIP_ROCO, a folder of ROCO, its first pairs take the place of synthetic phantoms; with
MEDCLIP_MODEL, a folder, a run or OWNER/NAME, that model takes the place of one that is trained for a minute.
"""

import io
import os
import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from PIL import Image

import medclip

FOLDER = Path(os.environ.get("MEDCLIP_TOY", "toy"))
NUM_PAIRS = 2000
STEPS = 300


def dataset() -> medclip.PreparedDataset:
    """Image–caption pairs in the splits train and validation."""
    folder = FOLDER / "data"
    if (folder / "dataset.json").exists():
        return medclip.PreparedDataset.open(folder)
    source = os.environ.get("MEDCLIP_ROCO", f"phantoms:{NUM_PAIRS}")
    return medclip.prepare(
        source, folder, medclip.PrepareConfig(max_samples=NUM_PAIRS)
    )


def model() -> str:
    """The name or folder of a model."""
    if name := os.environ.get("MEDCLIP_MODEL"):
        return name
    if not (FOLDER / "run" / "summary.json").exists():
        train(FOLDER / "run", STEPS)
    return str(FOLDER / "run")


def train(out: Path, steps: int) -> medclip.TrainedRun:
    """A small model, trained from scratch."""
    config = medclip.TrainConfig(
        preset="tiny", steps=steps, batch_size=32, lr=3e-3, num_evals=1
    )
    return medclip.train(dataset(), out, config)


def index() -> medclip.Index:
    """The validation images, searchable."""
    folder = FOLDER / "index"
    return (
        medclip.Index.open(folder)
        if folder.exists()
        else medclip.Index.build(model(), dataset(), folder)
    )


def new_folder(name: str) -> Path:
    """An empty folder for what an example writes; what it wrote before is deleted."""
    shutil.rmtree(FOLDER / name, ignore_errors=True)
    (FOLDER / name).mkdir(parents=True)
    return FOLDER / name


def show(images: Sequence[bytes], titles: Sequence[str]) -> None:
    """Draw encoded images in a row, each below the start of its title."""
    _, axes = plt.subplots(
        1,
        len(images),
        figsize=(2.6 * len(images), 3),
        squeeze=False,
        layout="constrained",
    )
    for ax, image, title in zip(axes[0], images, titles, strict=True):
        ax.imshow(Image.open(io.BytesIO(image)).convert("L"), cmap="gray")
        ax.set_title(textwrap.fill(textwrap.shorten(title, 110), 32), fontsize=8)
        ax.axis("off")
