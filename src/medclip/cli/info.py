"""The command that describes a folder of medclip, or a model, from its files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from rich.console import RenderableType
from rich.table import Table

from medclip.atomic_io import check_as_written, read_json, read_object
from medclip.cli.args import Positional
from medclip.cli.data import dataset_tables
from medclip.cli.format import Output
from medclip.cli.train import shares, summary_tables
from medclip.data.checked_files import EMBEDDINGS_MANIFEST
from medclip.data.dataset import read_dataset
from medclip.data.paths import parse_path
from medclip.errors import UserError
from medclip.recorded_files import EXPORT_FILE
from medclip.training.config import RECORDED_FIELDS, TrainConfig

if TYPE_CHECKING:
    from medclip.model.config import TextConfig, VisionConfig


@dataclass(frozen=True, kw_only=True)
class Info:
    """What a folder of medclip or a model is, and how it came to be."""

    path: Annotated[Positional[str], tyro.conf.arg(metavar="PATH")]
    """A dataset (a folder or a URL), a run, an index, embeddings, evaluations, an export, a model folder, or a model of
    the Hub: OWNER/NAME or hf-hub:OWNER/NAME."""
    output: Output

    def run(self) -> None:
        try:
            kind, contents = info(self.path)
            values = asdict(contents) if isinstance(contents, RunInfo) else contents
            tables = list(info_tables(kind, contents, self.path))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
            raise UserError(f"{self.path} does not hold what medclip writes ({error!r}). See medclip verify.") from None
        self.output.show({"kind": kind, **values}, tables)


@dataclass(frozen=True)
class RunInfo:
    """What a run was and how it went."""

    changed: dict[str, Any]
    """Settings that are not the defaults of `medclip train`."""
    data: dict[str, str]
    """SHA-256 of each split's images and captions."""
    evaluations: list[dict[str, Any]]
    last: int
    """The last step logged."""
    steps: int
    speed: dict[str, float]
    """Medians over the logged steps: pairs_per_s, and data_wait_fraction (0–1)."""
    summary: dict[str, Any] | None
    """Of a run that reached its end."""


def run_info(run: Path) -> RunInfo:
    """Read a run's folder, finished or not. UserError where it is not a run."""
    from medclip.training.log import is_evaluation, read_records

    settings = read_json(run / "train_config.json", "a run")
    if not isinstance(settings, dict) or not settings.get("steps") or "data" not in settings:
        raise UserError(f"{run}/train_config.json was not written by medclip train.")
    records = read_records(run / "metrics.jsonl")
    defaults = {f.name: f.default for f in fields(TrainConfig) if f.default is not MISSING}
    defaults |= {"micro_batch_size": settings["batch_size"], "vision_lr": settings["lr"], "text_lr": settings["lr"]}
    defaults |= {"image_size": 0, "context_length": 0}  # the model's own
    changed = {n: v for n, v in settings.items() if n not in RECORDED_FIELDS and v != [] and v != defaults.get(n)}
    speed = {
        name: median(values)
        for name in ("pairs_per_s", "data_wait_fraction")
        if (values := [r[name] for r in records if name in r])
    }
    ended = (run / "summary.json").exists()
    return RunInfo(
        changed=changed,
        data=settings["data"],
        evaluations=list(filter(is_evaluation, records)),
        last=max((r["step"] for r in records), default=0),
        steps=settings["steps"],
        speed=speed,
        summary=read_json(run / "summary.json", "a run") if ended else None,
    )


def model_info(name: str | Path) -> dict[str, Any]:
    """Towers, sizes, file of the weights and hash of a model folder or a model of the Hub."""
    from medclip.model.checkpoint import load, model_folder, model_hash, weight_names
    from medclip.model.weights.weight_files import find_weights

    folder = model_folder(name, dual=True)
    model = load(folder)
    vision, text = model.config.vision, model.config.text
    return {
        "vision_tower": {**_sizes(vision), "image_size": model.image_processor.side, "patch_size": vision.patch_size},
        "text_tower": {**_sizes(text), "context_length": model.tokenizer.context_length},
        "dimensions": model.config.projection_dim,
        "parameters": sum(tensor.size for tensor in model.params.values()),
        "weights": find_weights(folder, weight_names(folder)).name,
        "sha256": model_hash(folder),
    }


def index_info(folder: Path) -> dict[str, Any]:
    """Pairs, segments, snapshots, vector store and model of an index."""
    from medclip.search.manifest import read_manifest

    manifest = read_manifest(folder)
    return {
        "pairs": manifest.num_pairs,
        "deleted": len(manifest.deleted),
        "segments": {
            s.name: {"added": s.added, "pairs": s.num_rows, "data": s.data, "split": s.split} for s in manifest.segments
        },
        "snapshots": sorted(manifest.snapshots),
        "vector_store": manifest.vector_store,
        "dimensions": manifest.embedding_dim,
        "model": manifest.model,
        "model_sha256": manifest.model_sha256,
        "notice": manifest.notice,
    }


def _sizes(tower: VisionConfig | TextConfig) -> dict[str, Any]:
    return {"type": tower.model_type, "layers": tower.num_hidden_layers, "width": tower.hidden_size}


def evaluations_info(folder: Path) -> dict[str, Any]:
    """What each evaluation of a folder measured; its metrics stand in its own files."""
    from medclip.evaluation.results import check_kinds, kinds_in, read_results

    check_kinds(folder)
    shown = ("label", "num_candidates", "num_pairs", "num_images", "data", "split", "model", "contamination", "seed")
    results = {kind: read_results(folder, kind)[0].to_json() for kind in kinds_in(folder)}
    return {str(kind): {name: values[name] for name in shown if name in values} for kind, values in results.items()}


def manifest_info(path: Path, kind: str) -> dict[str, Any]:
    """The fields of a manifest but the hashes of the folder's files."""
    check_as_written(path, manifest := read_object(path, kind))
    return {name: value for name, value in manifest.items() if name not in ("sha256", "checksum")}


def info(name: str) -> tuple[str, Any]:
    """The kind of `name` ("run", "dataset", "index", …) and its contents; other names are models."""
    path = parse_path(name)
    if "://" in name or (path / "dataset.json").is_file():
        return "dataset", read_dataset(path)
    if (path / "index.json").is_file():
        return "index", index_info(Path(name))
    if (path / "metrics.jsonl").is_file():
        return "run", run_info(Path(name))
    if (path / EMBEDDINGS_MANIFEST).is_file():
        return "embeddings", manifest_info(Path(name, EMBEDDINGS_MANIFEST), "embeddings")
    if evaluations := evaluations_info(Path(name)):
        return "evaluations", evaluations
    if (path / EXPORT_FILE).is_file() and not (path / "config.json").is_file():
        return "export", manifest_info(Path(name, EXPORT_FILE), "an export")
    return "model", model_info(name)


def info_tables(kind: str, contents: Any, name: str) -> Iterator[RenderableType]:
    """The result of `info` as tables."""
    if kind == "dataset":
        yield from dataset_tables(contents, Path(name))
    elif kind == "run":
        yield from _run_tables(contents, Path(name))
    else:
        yield _two_columns({"kind": kind, **contents}, name)


def _run_tables(run: RunInfo, path: Path) -> Iterator[RenderableType]:
    from medclip.training.log import quality

    data = {f"{split} pairs, SHA-256": digest[:12] for split, digest in run.data.items()}
    yield _two_columns(run.changed | data, f"{path}: settings that are not the defaults, and data")
    names = ["validation_loss", *shares(run.evaluations)] if run.evaluations else []
    best = max(run.evaluations, key=quality, default=None)
    table = Table("step", *names, "", title="validation, both ways")
    for record in run.evaluations:
        percentages = (f"{record[name]:.1%}" for name in names[1:])
        table.add_row(str(record["step"]), f"{record[names[0]]:.3f}", *percentages, "best" if record is best else "")
    yield table
    if run.speed:
        waited = run.speed["data_wait_fraction"]
        yield f"{run.speed['pairs_per_s']:,.0f} pairs/s and {waited:.0%} of the time waiting for data (medians)"
    if run.summary:
        yield from summary_tables(run.summary, path)
    else:
        yield f"not at its end: step {run.last} of {run.steps} was the last logged; its command with --resume goes on"


def _two_columns(values: Mapping[str, Any], title: str) -> Table:
    table = Table(title=title, show_header=False)
    for name, value in values.items():
        table.add_row(name.replace("_", " "), _cell(value))
    return table


def _cell(value: Any) -> str:
    """A value as text; a mapping has a line for each item."""
    if isinstance(value, Mapping):
        return "\n".join(
            f"{name.replace('_', ' ')}: {_cell(inner)}".replace("\n", ", ") for name, inner in value.items()
        )
    if isinstance(value, list | tuple):
        return ", ".join(map(_cell, value)) or "none"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
