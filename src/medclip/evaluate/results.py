"""What an evaluation leaves behind: for each measure its results, and the values of every item they were made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from medclip import NOT_CLINICAL, __version__
from medclip.atomic_io import read_json, write_json
from medclip.data.dataset import Split, write_arrow
from medclip.errors import UserError
from medclip.evaluate.config import EvalConfig
from medclip.evaluate.labeled import Labeled

STEMS = {
    "retrieval": "results",
    "zero-shot": "zero_shot",
    "probe": "probe",
    "understanding": "understanding",
    "robustness": "robustness",
}
"""The name of each measure's files in the folder of an evaluation: STEM.json and STEM.arrow."""


def write_results(
    out: Path | None, measure: str, results: Mapping[str, Any], items: Mapping[str, Sequence[Any]]
) -> dict[str, Any]:
    """Results under the name of their measure, returned as written; written where `out` is given.

    A figure is a dict of value, low and high, wherever it stands; its name is its path ("text_to_image / R@10").
    `items` are columns with a value for each item that was judged, by which `medclip compare` pairs two evaluations:
    `id` and `article`; `label` where it truly is of a class; `test`, `corruption` or `severity` where it is judged in
    several of them; `rank_WAY`, the ranks behind the figures "WAY / …"; `correct` or `correct_NAME`, f64 or bool, whose
    mean is "accuracy" or "NAME / accuracy"; and any other f64 or bool of which more is better, named as the figure that
    is its mean. What is not of these is kept and not compared.
    """
    said = {"measure": measure, **results}
    if out is not None:
        stem, table = STEMS[measure], pa.table({name: _column(values) for name, values in items.items()})
        write_arrow(out / f"{stem}.arrow", table)
        write_json(out / f"{stem}.json", said)
    return said


def provenance(subject: EvalConfig, rows: Split | Labeled) -> dict[str, Any]:
    """What every results file states beside its numbers."""
    return {
        "interval": "95 % bootstrap, 1000 resamples of whole articles",
        **_model(subject, rows),
        "data": rows.dataset["source"],
        "data_sha256": rows.digest,
        "synthetic": rows.dataset["synthetic"],
        "split": rows.name,
        "seed": subject.seed,
        "medclip": __version__,
        "notice": NOT_CLINICAL,
    }


def _model(subject: EvalConfig, rows: Split | Labeled) -> dict[str, Any]:
    if not subject.model:  # vectors made elsewhere, which say nothing of their model
        return {"model": None, "saw_source": "unknown", "saw_source_why": "vectors do not say what made them"}
    from medclip.evaluate.contamination import saw_source
    from medclip.model.checkpoint import model_hash  # reading results needs no JAX

    return {"model": model_hash(subject.model), **saw_source(subject.model, rows)}


def read_results(folder: Path, measure: str) -> tuple[dict[str, Any], pa.Table]:
    """Results of a measure and the values of its items. UserError where `folder` holds none, or damaged ones."""
    stem = STEMS[measure]
    said = read_json(folder / f"{stem}.json", f"an evaluation of {measure} (see medclip evaluate {measure} --out)")
    if not isinstance(said, dict):
        raise UserError(f"{folder}/{stem}.json holds no results of {measure}. Evaluate again.")
    try:
        return said, pa.ipc.open_file(pa.memory_map(str(folder / f"{stem}.arrow"))).read_all()
    except (FileNotFoundError, pa.ArrowInvalid) as error:
        raise UserError(f"{folder}/{stem}.arrow is absent or damaged ({error}). Evaluate again.") from None


def measures_in(folder: Path) -> list[str]:
    """The measures that a folder holds results of."""
    return [measure for measure, stem in STEMS.items() if (folder / f"{stem}.json").is_file()]


def _column(values: Sequence[Any]) -> pa.Array:
    return pa.array(values if isinstance(values, np.ndarray) else list(values))
