"""Every parser of files and texts from elsewhere, ready to be given other bytes: what benchmarks/soak.py fuzzes.

A parser reads one file of a whole small folder. It may end in one of REFUSALS and in nothing else.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import msgpack
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from medclip import prompts
from medclip.atomic_io import read_json, read_object
from medclip.cli.data import Stats
from medclip.cli.info import Info
from medclip.cli.parse import parse
from medclip.data import foils, normalize
from medclip.data.dataset import Split
from medclip.data.deidentify import redact_report
from medclip.data.dicom import decode_frame, dicom_errors, read_header
from medclip.data.dicomweb import parse_address
from medclip.data.images import header_size
from medclip.data.paths import parse_path
from medclip.data.sources.detect import open_source
from medclip.data.sources.image_cells import cell_images
from medclip.data.sources.labeled_sets import find_labeled_set
from medclip.data.sources.reports import select_reading
from medclip.data.sources.table_files import read_rows
from medclip.data.sources.tables import cell_captions
from medclip.data.stats.keyword_labels import keyword_label
from medclip.data.stats.statistics import caption_issues, caption_skeleton
from medclip.errors import ImageError, UserError, WorkError
from medclip.evaluation.results import Kind, read_results
from medclip.evaluation.retrieval import read_embeddings
from medclip.hosts import is_clear_text, is_loopback
from medclip.match_calibration import CALIBRATION_FILE, read_calibration
from medclip.model.config import parse_config
from medclip.model.image_processor import PROCESSOR_FILE, read_image_processor
from medclip.model.open_clip import open_clip_config
from medclip.model.sentence_modules import read_modules
from medclip.model.tokenizer.text_tokenizer import load_tokenizer
from medclip.model.weights import flax_file, torch_file, weight_files
from medclip.search.filters import parse_days, parse_filter
from medclip.search.query import SearchOptions, rank
from medclip.search.reader import IndexReader
from medclip.serve.gate import accepts_name, client_network, read_keys
from medclip.serve.schemas import EmbedRequest, SearchRequest
from support import parser_folders as folders
from support import published_layouts as layouts
from support.archives import tar_bytes, zip_bytes
from support.dicom_files import dicom
from support.made_indexes import random_units
from support.model_folders import flax_tree
from support.vocabularies import text_config, write_bert, write_clip

REFUSALS = (UserError, WorkError, ImageError)
CAPTIONS = (
    "Fig. 1: (a) Axial CT shows no pleural effusion &amp; <b>left</b> ground-glass opacity, 5–10 mm. (b) MRI.",
    "FINAL REPORT\n FINDINGS: Échographie rénale à gauche.\n IMPRESSION: Normal. http://x.example 12/03/2019 #4711 10%",
)


class Parser(NamedTuple):
    """What reads a file."""

    make: Callable[[Path], Any]
    """Writes the whole folder."""
    file: str
    """The file in it that is given other bytes."""
    read: Callable[[Path], Any]
    """Reads the folder."""


def fuzz_once(parser: Parser, folder: Path, content: bytes) -> str:
    """The sentence with which the parser refuses these bytes, "" where it reads them. Any other error is a fault."""
    path = folder / parser.file
    path.unlink(missing_ok=True)  # an older one may be mapped
    path.write_bytes(content)
    try:
        parser.read(folder)
    except REFUSALS as error:
        return str(error) or repr(error)
    return ""


def _rows(name: str = ".") -> Callable[[Path], Any]:
    return lambda folder: deque(open_source(folder / name), 0)


def _text(read: Callable[[str], Any], *seeds: str) -> Parser:
    def read_file(folder: Path) -> None:
        for line in (folder / "text").read_bytes().decode("utf-8", "surrogateescape").split("\0"):
            read(line)

    return Parser(folders.content("text", "\0".join(seeds)), "text", read_file)


def _clean(caption: str) -> None:
    cleaned, _ = normalize.clean_caption(caption)
    for text in (caption, cleaned):
        for work in (caption_issues, caption_skeleton, select_reading, normalize.license_set):
            work(text)
        keyword_label("modality", text)
        for rule in foils.foil_rules(0).values():
            rule(text.encode("utf-8", "replace").decode())  # a row that is no Unicode is dropped before


def _redact(text: str) -> None:
    name, _, report = text.partition("\n")
    if len(name) <= 64:  # what the element may hold
        redact_report(report, dicom(None, PatientName=name, PatientID=name[:16], StudyDate="20190312"))


def _cell(text: str) -> None:
    for work in (cell_images, cell_captions):
        try:
            work(text)
        except REFUSALS:
            continue


def _request(text: str) -> None:
    for schema in (SearchRequest, EmbedRequest):
        try:
            schema.model_validate_json(text)
        except ValidationError:
            continue


def _address(text: str) -> None:
    is_loopback(text)
    client_network((text, 1))
    accepts_name(text, "127.0.0.1", "", False)
    for work in (is_clear_text, parse_address, parse_path):
        try:
            work(text)
        except REFUSALS:
            continue


def _filter(text: str) -> None:
    for work in (lambda: parse_filter(text.split("\n")), lambda: parse_days(text)):
        try:
            work()
        except REFUSALS:
            continue


def _torch(folder: Path) -> None:
    for tensor in torch_file.open_tensors(folder / "x.bin").values():
        if np.prod(tensor.shape, dtype=float) < 1e6:
            tensor.read()


def _tokenizer(folder: Path) -> None:
    config = text_config("clip_text_model", vocab_size=2**31)
    load_tokenizer(folder, config).encode([*CAPTIONS, "", "胸部 \U0010ffff"])


def _read_labeled(name: str) -> Callable[[Path], Any]:
    def read(folder: Path) -> None:
        if labeled := find_labeled_set(folder / name):
            deque(labeled.images, 0)

    return read


def _model_config(folder: Path) -> None:
    parse_config(read_object(folder / "config.json", "a model folder"))


def _processor(folder: Path) -> None:
    read_image_processor(folder, parse_config(json.loads((folders.CLIP / "config.json").read_bytes())).vision)


def _open_clip(folder: Path) -> None:
    open_clip_config.check(read_json(folder / "x.json", "a model folder"))


def _open_dataset(folder: Path) -> None:
    split = Split(folder, "train")
    for name in ("id", "caption", "article", "labels", "sha256"):
        split.column(name)
    for row in range(len(split)):
        split.image(row)


def _info(folder: Path) -> None:
    with redirect_stdout(StringIO()):
        parse(Info, "info", [str(folder)]).run()


def _search(folder: Path) -> None:
    reader = IndexReader(folder)
    rank(reader, random_units(1)[0], SearchOptions(k=3))


def _read_npy(folder: Path) -> None:
    read_embeddings(folder / "x.npy", folder / "x.npy", None)


def _dicom_pixels(folder: Path) -> None:
    with dicom_errors():
        is_encapsulated = read_header(folder / "1.dcm").file_meta.TransferSyntaxUID.is_encapsulated
    if not is_encapsulated:  # those are decoded in workers
        decode_frame(folder / "1.dcm")


def _command(folder: Path) -> None:
    parse(Stats, "stats", ["x", "--config", str(folder / "x.toml")])


def _prompts(folder: Path) -> None:
    prompts.read_prompts(folder / "x.toml", "modality", False)


CSV = "id,image,caption,split,license\n" + "".join(f'{n},{n}.png,"CT, chest ""{n}""",train,CC BY\n' for n in range(3))
MIMIC = "mimic-cxr-jpg"
ADDRESSES = ("dicomweb://h.example:443/x?PatientID=1", "s3://bucket/x", "hf://lab/x", "[::1]", "127.0.0.1", "./a b")
REQUESTS = (
    '{"queries": [{"texts": ["pleural effusion"], "negative_texts": ["x"]}], "k": 5, "filter": {"modality": ["CT"]}}',
    '{"texts": ["CT of the chest"]}',
)  # fmt: skip
OPEN_CLIP = json.dumps({
    "model_cfg": {"embed_dim": 32, "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
                  "text_cfg": {"context_length": 16, "vocab_size": 100, "width": 32, "heads": 2, "layers": 1}},
    "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bicubic"},
})  # fmt: skip
PROMPTS = '[modality]\ntemplates = ["{} of the body"]\n[modality.names]\nct = ["CT", "CT scan"]\nmri = ["MRI"]\n'

PARSERS: dict[str, Parser] = {
    "captions": _text(_clean, *CAPTIONS),
    "names in reports": _text(_redact, "Secretova^Anna Maria^^Dr\nCT of Anna M. Secretova and A. SECRETOVA."),
    "cells of tables": _text(_cell, "['1.png', b'x']", "{'bytes': None, 'path': '1.png'}", '["a", "b"]', "b'CT \\xc3'"),
    "requests": _text(_request, *REQUESTS),
    "addresses": _text(_address, *ADDRESSES),
    "filters": _text(_filter, "modality=CT,MRI\nadded=2026-11-01..2026-11-25", "added=2026"),
    "csv": Parser(folders.content("x.csv", CSV), "x.csv", _rows("x.csv")),
    "tsv": Parser(folders.content("x.tsv", CSV.replace(",", "\t")), "x.tsv", _rows("x.tsv")),
    "json table": Parser(folders.content("x.json", json.dumps(folders.ROWS)), "x.json", _rows("x.json")),
    "json lines": Parser(
        folders.content("x.jsonl", "\n".join(map(json.dumps, folders.ROWS))), "x.jsonl", _rows("x.jsonl")
    ),
    "parquet": Parser(
        lambda folder: pq.write_table(pa.Table.from_pylist(folders.ROWS), folder / "x.parquet"),
        "x.parquet",
        _rows("x.parquet"),
    ),
    "arrow": Parser(folders.arrow, "x.arrow", lambda folder: deque(read_rows(folder / "x.arrow"), 0)),
    "tar": Parser(folders.content("x.tar", tar_bytes(folders.MEMBERS)), "x.tar", _rows("x.tar")),
    "tar.gz": Parser(folders.content("x.tar.gz", tar_bytes(folders.MEMBERS, "w:gz")), "x.tar.gz", _rows("x.tar.gz")),
    "zip": Parser(folders.content("x.zip", zip_bytes(folders.MEMBERS)), "x.zip", _rows("x.zip")),
    "images in a zip": Parser(folders.table_and_zip, "images.zip", _rows("x.csv")),
    "Open-i XML": Parser(layouts.openi, "NLMCXR_reports/ecgen-radiology/1.xml", _rows()),
    "Open-i CSV": Parser(layouts.kaggle, "indiana_reports.csv", _rows()),
    "MIMIC-CXR splits": Parser(layouts.mimic_beside, f"{MIMIC}/mimic-cxr-2.0.0-split.csv", _rows(MIMIC)),
    "MIMIC-CXR report": Parser(
        layouts.mimic_beside, "mimic-cxr-reports/files/p10/p10000032/s50414267.txt", _rows(MIMIC)
    ),
    "R2Gen": Parser(layouts.annotations, "annotation.json", _rows()),
    "PadChest": Parser(layouts.padchest_file, "padchest.csv", _rows("padchest.csv")),
    "MedICaT": Parser(layouts.medicat, "s2_full_figures.jsonl", _rows()),
    "ROCO captions": Parser(layouts.roco, "train/radiology/captions.txt", _rows()),
    "ROCO links": Parser(layouts.roco, "train/radiology/dlinks.txt", _rows()),
    "ROCO licenses": Parser(layouts.roco, "train/radiology/licences.txt", _rows()),
    "ROCOv2": Parser(layouts.rocov2, "train_captions.csv", _rows()),
    "DICOM header": Parser(folders.dicom_study, "1.dcm", _rows()),
    "DICOM pixels": Parser(folders.dicom_study, "1.dcm", _dicom_pixels),
    "image header": Parser(
        folders.content("x", folders.PNG), "x", lambda folder: header_size((folder / "x").read_bytes())
    ),
    "MedMNIST": Parser(folders.medmnist, "pneumoniamnist.npz", _read_labeled("pneumoniamnist.npz")),
    "torch, zip": Parser(folders.copy_of(folders.SUPPORT / "torch-files" / "zip.bin", "x.bin"), "x.bin", _torch),
    "torch, legacy": Parser(folders.copy_of(folders.SUPPORT / "torch-files" / "legacy.bin", "x.bin"), "x.bin", _torch),
    "safetensors": Parser(
        folders.copy_of(folders.CLIP / "model.safetensors", "model.safetensors"),
        "model.safetensors",
        weight_files.open_tensors,
    ),
    "safetensors index": Parser(
        folders.shards,
        folders.INDEX_OF_SHARDS,
        weight_files.open_tensors,
    ),
    "msgpack of Flax": Parser(
        folders.content(
            "x.msgpack", msgpack.packb(flax_tree({"text.embeddings.weight": np.zeros((2, 3), np.float32)}))
        ),
        "x.msgpack",
        lambda folder: flax_file.open_tensors(folder / "x.msgpack"),
    ),
    "config.json": Parser(folders.copy_of(folders.CLIP / "config.json", "config.json"), "config.json", _model_config),
    "preprocessor": Parser(folders.copy_of(folders.CLIP / PROCESSOR_FILE, PROCESSOR_FILE), PROCESSOR_FILE, _processor),
    "tokenizer.json": Parser(
        folders.copy_of(folders.CLIP / "tokenizer.json", "tokenizer.json"), "tokenizer.json", _tokenizer
    ),
    "tokenizer_config.json": Parser(folders.clip_tokenizer, "tokenizer_config.json", _tokenizer),
    "vocab.json": Parser(write_clip, "vocab.json", _tokenizer),
    "merges.txt": Parser(write_clip, "merges.txt", _tokenizer),
    "vocab.txt": Parser(write_bert, "vocab.txt", _tokenizer),
    "spiece.model": Parser(folders.siglip, "spiece.model", _tokenizer),
    "open_clip config": Parser(folders.content("x.json", OPEN_CLIP), "x.json", _open_clip),
    "sentence-transformers": Parser(folders.modules_of_text, "modules.json", read_modules),
    "dataset.json": Parser(folders.small_dataset, "dataset.json", _open_dataset),
    "info of a dataset": Parser(folders.small_dataset, "dataset.json", _info),
    "info of a run": Parser(folders.training_run, "train_config.json", _info),
    "log of a run": Parser(folders.training_run, "metrics.jsonl", _info),
    "shard of a dataset": Parser(folders.small_dataset, "train-00000.arrow", _open_dataset),
    "index.json": Parser(folders.small_index, "index.json", IndexReader),
    "rows of an index": Parser(folders.small_index, "segments/00000/rows.arrow", _search),
    "embeddings of an index": Parser(folders.small_index, "segments/00000/embeddings.npy", _search),
    "retrieval.json": Parser(folders.evaluation, "retrieval.json", lambda folder: read_results(folder, Kind.RETRIEVAL)),
    "retrieval.arrow": Parser(
        folders.evaluation, "retrieval.arrow", lambda folder: read_results(folder, Kind.RETRIEVAL)
    ),
    "calibration.json": Parser(
        folders.calibration, CALIBRATION_FILE, lambda folder: read_calibration(folder, "0" * 64)
    ),
    "embeddings of others": Parser(folders.npy, "x.npy", _read_npy),
    "config.toml": Parser(folders.content("x.toml", 'seed = 3\nout = "x"\njson = true\n'), "x.toml", _command),
    "prompts.toml": Parser(folders.content("x.toml", PROMPTS), "x.toml", _prompts),
    "keys of the API": Parser(
        folders.content("x", "0123456789abcdef0123\n"), "x", lambda folder: read_keys(folder / "x")
    ),
}
