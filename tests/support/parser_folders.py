"""The small folders that parsers read, each written whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from medclip.match_calibration import CALIBRATION_FILE, FITTED, FORMAT
from support import handmade_datasets, handmade_results
from support.archives import zip_bytes
from support.dicom_files import dicom, dicom_bytes, gray_ramp
from support.made_indexes import make_index, random_units
from support.material import draw_image, image_bytes
from support.vocabularies import charsmap, write_clip, write_siglip

SUPPORT = Path(__file__).parent
CLIP = SUPPORT / "clip-tiny"
ROWS = [{"id": str(n), "image": f"{n}.png", "caption": f"CT of the chest {n}", "split": "train"} for n in range(3)]
PNG = image_bytes(draw_image(1), "PNG")
MEMBERS = [("a.png", PNG), ("a.txt", b"CT of the chest"), ("b.jpg", PNG), ("b.json", json.dumps(ROWS[0]).encode())]
INDEX_OF_SHARDS = "model.safetensors.index.json"


def content(name: str, content: str | bytes) -> Callable[[Path], Any]:
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data)


def copy_of(source: Path, name: str) -> Callable[[Path], Any]:
    return lambda folder: shutil.copy(source, folder / name)


def siglip(folder: Path) -> None:
    write_siglip(folder, charsmap({"Ａ": "a", "ﬁ": "fi"}), tokenizer_class="SiglipTokenizer")


def table_and_zip(folder: Path) -> None:
    (folder / "x.csv").write_text("image,caption\nb.jpg,CT of the chest\nc.jpg,CT of the knee\n")
    (folder / "images.zip").write_bytes(zip_bytes(MEMBERS))


def medmnist(folder: Path) -> None:
    images, labels = np.zeros((3, 28, 28), np.uint8), np.arange(3)[:, None]
    np.savez_compressed(folder / "pneumoniamnist.npz", test_images=images, test_labels=labels)


def evaluation(folder: Path) -> None:
    handmade_results.retrieval(folder, [1, 2, 5], [1, 3, 1])


def clip_tokenizer(folder: Path) -> None:
    write_clip(folder, tokenizer_class="CLIPTokenizer", model_max_length=16, unk_token="<|endoftext|>")


def modules_of_text(folder: Path) -> None:
    """modules.json of a text tower with mean pooling."""
    kinds = [("", "sentence_transformers.models.Transformer"), ("1_Pooling", "sentence_transformers.models.Pooling")]
    modules = [{"idx": n, "name": str(n), "path": path, "type": kind} for n, (path, kind) in enumerate(kinds)]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')


def shards(folder: Path) -> None:
    shutil.copy(CLIP / "model.safetensors", folder / "model-00001-of-00001.safetensors")
    (folder / INDEX_OF_SHARDS).write_text('{"weight_map": {"a": "model-00001-of-00001.safetensors"}}')


def small_dataset(folder: Path) -> None:
    handmade_datasets.dataset(folder, {"train": [handmade_datasets.row(n) for n in range(3)]})


def training_run(folder: Path) -> None:
    settings = {"data": {"train": "0" * 64}, "steps": 2, "batch_size": 8, "lr": 1e-3, "software": [{}]}
    (folder / "train_config.json").write_text(json.dumps(settings))
    recalls = {name: 0.5 for name in ("validation_loss", "R@1", "R@5", "R@10", "mean_recall")}
    records = [{"step": 1, "loss": 2.5, "pairs_per_s": 1.0, "data_wait_fraction": 0.1}, {"step": 2, **recalls}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def small_index(folder: Path) -> None:
    make_index(folder, random_units(5))


def calibration(folder: Path) -> None:
    recall = {"value": 0.5, "low": 0.4, "high": 0.6, "chance": 0.1, "num_images": 10, "num_captions": 10}
    fields = {"model_sha256": "0" * 64, "data_sha256": "0" * 64, "recall_at_10": recall}
    thresholds = [{"min_words": 1, "num_images": n, "cosine": n / 500} for n in (10, 100)]
    fields |= {"format": FORMAT, "withheld": [{"min_words": 1, "num_queries": 10, "no_match_rate": 0.5}]}
    (folder / CALIBRATION_FILE).write_text(json.dumps(fields | dict.fromkeys(FITTED, 1.0) | {"thresholds": thresholds}))


def npy(folder: Path) -> None:
    np.save(folder / "x.npy", random_units(3))


def arrow(folder: Path) -> None:
    table = pa.Table.from_pylist(ROWS)
    with pa.OSFile(str(folder / "x.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as out:
        out.write_table(table)


def dicom_study(folder: Path) -> None:
    data = dicom(gray_ramp(), PatientName="Secretova^Anna", PatientID="4711", StudyInstanceUID="1.2", WindowCenter=2000,
                 WindowWidth=1000, RescaleSlope=2, RescaleIntercept=-1024, ImageType=["ORIGINAL", "PRIMARY"],
                 SeriesInstanceUID="1.2.3", ImagePositionPatient=[0, 0, 1], StudyDate="20190312")  # fmt: skip
    (folder / "1.dcm").write_bytes(dicom_bytes(data))
    (folder / "1.txt").write_text("CT of the chest of Anna Secretova: normal.")
