"""What a folder of medclip's is and how it came to be, read from the files in it."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from medclip.atomic_io import read_json
from medclip.data.dataset import read_dataset
from medclip.errors import UserError
from medclip.search.manifest import read_manifest, snapshots
from medclip.train.config import TrainConfig

if TYPE_CHECKING:
    from medclip.model.config import TextConfig, VisionConfig


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
    """Medians over the logged steps: pairs_per_s, and waiting (share of the time, 0 to 1)."""
    summary: dict[str, Any] | None
    """Of a run that reached its end."""


def run_info(run: Path) -> RunInfo:
    """Read a run's folder, finished or not. UserError where it is none."""
    from medclip.train.log import read_records

    said = read_json(run / "config.json", "a run")
    if not isinstance(said, dict) or not said.get("steps") or "data" not in said:
        raise UserError(f"{run}/config.json was not written by medclip train.")
    records = read_records(run / "metrics.jsonl")
    defaults = {f.name: f.default for f in fields(TrainConfig) if f.default is not MISSING}
    changed = {n: v for n, v in said.items() if n != "data" and v != [] and v != defaults.get(n)}
    speed = {
        name: median(values)
        for name in ("pairs_per_s", "waiting")
        if (values := [r[name] for r in records if name in r])
    }
    ended = (run / "summary.json").exists()
    return RunInfo(
        changed=changed,
        data=said["data"],
        evaluations=[r for r in records if "mean_recall" in r],
        last=max((r["step"] for r in records), default=0),
        steps=said["steps"],
        speed=speed,
        summary=read_json(run / "summary.json", "a run") if ended else None,
    )


def model_info(name: str | Path) -> dict[str, Any]:
    """Towers, sizes and hash of a model folder or a model of the Hub."""
    from medclip.model.checkpoint import load, model_hash

    model = load(name)
    vision, text = model.config.vision, model.config.text
    return {
        "vision tower": f"{_sizes(vision)}, {vision.image_size} px in patches of {vision.patch_size}",
        "text tower": f"{_sizes(text)}, {model.tokenizer.context_length} tokens",
        "dimensions": model.config.projection_dim,
        "parameters": sum(tensor.size for tensor in model.params.values()),
        "sha256": model_hash(name),
    }


def index_info(folder: Path) -> dict[str, Any]:
    """What an index holds, what it was made by, and what it can go back to."""
    contents = read_manifest(folder)
    return {
        "pairs": contents.pairs,
        "deleted": f"{len(contents.deleted)} still on the disk" if contents.deleted else "none",
        **{f"added {s.added}, segment {s.name}": f"{s.rows} of {s.data}, {s.split}" for s in contents.segments},
        "snapshots": ", ".join(snapshots(folder)) or "none",
        "store": contents.store,
        "dimensions": contents.dimensions,
        "model": contents.model,
        "model_sha256": contents.model_sha256,
        "notice": contents.notice,
    }


def _sizes(tower: VisionConfig | TextConfig) -> str:
    return f"{tower.model_type}, {tower.num_hidden_layers} layers of width {tower.hidden_size}"


def info(name: str) -> tuple[str, Any]:
    """What `name` is ("run", "dataset", "index" or "model") and what its files say; what is no folder is a model."""
    path = Path(name)
    if (path / "dataset.json").is_file():
        return "dataset", read_dataset(path)
    if (path / "index.json").is_file():
        return "index", index_info(path)
    if (path / "metrics.jsonl").is_file():
        return "run", run_info(path)
    return "model", model_info(name)
