"""The stages of the command line as functions of what a notebook has, with typed results: prepare, train, evaluate.

None of them imports JAX before it is called.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from medclip.data.dataset import Split, read_dataset
from medclip.data.prepare import ensure_prepared
from medclip.data.prepare import prepare as prepare_source
from medclip.data.prepare_config import DEFAULT, PrepareConfig
from medclip.data.sources.detect import Source, source_path
from medclip.errors import UserError
from medclip.folder_locks import lock_output
from medclip.training.config import TrainConfig

if TYPE_CHECKING:
    from medclip.dual_encoder import DualEncoder
    from medclip.evaluation.compare import Comparison
    from medclip.evaluation.config import EvalConfig, LabelConfig, ProtocolChoice
    from medclip.evaluation.results import Kind, Results

DRAWS, LABELED = 5, ("zero-shot", "probe")
EVALUATION_OPTIONS = {
    "label": LABELED,
    "classes": LABELED,
    "prompts": ("zero-shot",),
    "protocol": ("zero-shot",),
    "num_candidates": ("retrieval",),
    "num_draws": ("retrieval", "probe"),
}
"""What of `evaluate` only some kinds take."""


@dataclass(frozen=True)
class PreparedDataset:
    """A prepared dataset. It stands for its `folder` wherever a path to one is expected."""

    folder: Path
    num_pairs: Mapping[str, int]
    """Of each split."""
    dropped: Mapping[str, Mapping[str, int]]
    """Of each split, how many rows were dropped for each reason."""

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> PreparedDataset:
        """Open what `prepare` or `medclip prepare` wrote before. UserError where there is no prepared dataset."""
        return cls._from_json(Path(path), read_dataset(Path(path)))

    @classmethod
    def _from_json(cls, folder: Path, dataset: Mapping[str, Any]) -> PreparedDataset:
        num_pairs = {name: split["pairs"] for name, split in dataset["splits"].items()}
        return cls(folder, num_pairs, dataset["dropped"])

    def __fspath__(self) -> str:
        return str(self.folder)

    def split(self, name: str) -> Split:
        """The rows of a split; `.table` is their Arrow table. UserError where there is none of that name."""
        return Split(self.folder, name)


@dataclass(frozen=True)
class TrainedRun:
    """A finished run. It stands for its `folder` wherever a path to a model is expected."""

    folder: Path
    best: Mapping[str, float]
    """The evaluation of the saved model on the validation split: `step`, `mean_recall` and the recalls in 0-1."""
    wise_ft: tuple[Mapping[str, float], ...]
    """Evaluations of weights between the initial and the last ones, if there was an initial model."""

    def __fspath__(self) -> str:
        return str(self.folder)

    def load(self) -> DualEncoder:
        """The saved model."""
        from medclip.dual_encoder import load

        return load(self.folder)


def prepare(
    source: Source, out: str | os.PathLike[str], config: PrepareConfig = DEFAULT, *, num_workers: int | None = None
) -> PreparedDataset:
    """Clean, shrink and store the pairs of a source in the new folder `out`; a killed call resumes.

    `source` is a folder, a file, a URL, `phantoms:COUNT`, a DataFrame of pandas or polars, a `datasets.Dataset`, or an
    iterable of (image, caption) or of dicts; or a dict from names of splits to any of the last four. Rows without a
    split are assigned by a hash of their group, a tenth to validation. Dropped rows are counted by reason. Raises
    UserError for a source that cannot be read, WorkError where the work fails or no row becomes a pair.

    Examples:
        >>> pairs = [("a.png", "CT of the chest"), ("b.png", "MRI of the left knee")]
        >>> medclip.prepare({"train": pairs}, "two").num_pairs
        {'train': 2}
    """
    return PreparedDataset._from_json(Path(out), prepare_source(source, Path(out), config, num_workers=num_workers))


def train(
    data: Source,
    out: str | os.PathLike[str],
    config: TrainConfig | None = None,
    *,
    callbacks: Sequence[Callable[[int, Mapping[str, float]], None]] = (),
    resume: bool = False,
    max_samples: int | None = None,
    report_to: Sequence[str] = (),
    image_cache_gb: float = 8.0,
    cache: bool = True,
) -> TrainedRun:
    """Train a model into the new folder `out`; its best weights by validation recall lie in `out/model`.

    `data` is a prepared dataset, or a source that is first prepared into `OUT-data`. Each of `callbacks` is called with
    the step and the metrics of every line of `out/metrics.jsonl`. With `resume`, a run that ended early goes on from
    its last state, bit for bit. `cache`: frozen towers' features are read from and saved in the feature cache.
    Raises UserError for wrong settings, WorkError where the run cannot go on.

    Examples:
        >>> config = medclip.TrainConfig(preset="tiny", steps=2, batch_size=8)
        >>> run = medclip.train("data", "small-run", config, callbacks=[lambda step, metrics: None])
        >>> 0 <= run.best["mean_recall"] <= 1
        True
    """
    from medclip.training.loop import train as train_model

    summary = train_model(
        ensure_prepared(data, Path(out)),
        Path(out),
        config or TrainConfig(),
        max_samples=max_samples,
        resume=resume,
        report_to=report_to,
        image_cache_gb=image_cache_gb,
        cache=cache,
        callbacks=callbacks,
    )
    return TrainedRun(Path(out), summary["best"], tuple(summary["wise_ft"]))


def evaluate(
    model: str | os.PathLike[str],
    data: Source,
    kind: str = "retrieval",
    *,
    split: str | None = None,
    label: str | None = None,
    classes: Sequence[str] = (),
    prompts: str | os.PathLike[str] | None = None,
    protocol: ProtocolChoice = "all",
    num_candidates: int | None = None,
    num_draws: int = DRAWS,
    out: str | os.PathLike[str] | None = None,
    max_samples: int | None = None,
    seed: int = 0,
    cache: bool = True,
) -> Results:
    """Measure a model (a folder, a run, OWNER/NAME, or what `load` gives) on a split, with 95 % intervals.

    `kind` is retrieval, zero-shot, probe, compositionality or robustness. `data` is a prepared dataset, or a source
    that is first prepared: into `OUT-data`, or without `out` for this call alone. `split` is validation, or the only
    one. "zero-shot" and "probe" tell the `classes` of `label` apart and also take a folder with labels.csv or with a
    folder for each class; "zero-shot" by a `protocol`, or "all": by this package's own prompts, or those of the TOML
    file `prompts`, with every protocol beside. "retrieval" is also among `num_candidates` pairs, drawn `num_draws`
    times; as often "probe" draws the few images of a class. `out` keeps the results, their items and report.html.
    `cache`: features are read from and saved in the feature cache; the numbers are the same. Raises UserError where
    model, data, kind and arguments do not fit together.

    Examples:
        >>> recall = medclip.evaluate("run", "data")["image_to_text/R@1"]
        >>> 0 <= recall.low <= recall.value <= recall.high <= 1
        True
    """
    from medclip.evaluation.config import EvalConfig, LabelConfig
    from medclip.evaluation.report import write_report
    from medclip.evaluation.results import Kind

    options = {"label": label, "classes": classes, "prompts": prompts, "num_candidates": num_candidates}
    _check_options(kind, options | {"protocol": protocol != "all", "num_draws": num_draws != DRAWS}, protocol)
    folder = None if out is None else Path(out)
    with tempfile.TemporaryDirectory() as scratch, lock_output(folder) if folder else nullcontext():
        beside = folder or Path(scratch) / "evaluation"
        # folders of labeled images need no preparation
        labeled = source_path(data) if kind in LABELED else None
        # refuses `out` before anything is prepared
        config = EvalConfig(
            model=os.fspath(model), split=split, max_samples=max_samples, out=folder, seed=seed, cache=cache
        )
        config = replace(config, data=labeled or str(ensure_prepared(data, beside)))
        labels, texts = LabelConfig(label=label, classes=tuple(classes)), Path(prompts) if prompts else None
        results = _measure(Kind(kind), config, labels, texts, protocol, num_candidates, num_draws)
        if folder:
            write_report(folder)
    return results


def compare(
    baseline: str | os.PathLike[str], *others: str | os.PathLike[str], metrics: Sequence[str] = ()
) -> Comparison:
    """Compare evaluations of the same items: folders that `evaluate` or `medclip evaluate` wrote as `out`.

    `metrics` are those to compare, by their names or the last parts of them ("R@10"); none: all whose role it is.
    Differences have paired 95 % intervals, and p-values are corrected for the number of metrics (Holm).
    `.regressions(0.01)` lists what fell by more than a point, beyond noise. Raises UserError where the items differ.

    Examples:
        >>> results = medclip.evaluate("run", "data", out="before")
        >>> medclip.compare("before", "before", metrics=["R@10"]).regressions(0.01)
        []
    """
    from medclip.evaluation.compare import compare as compare_folders

    return compare_folders([Path(folder) for folder in (baseline, *others)], metrics)


def _check_options(kind: str, options: Mapping[str, object], protocol: str) -> None:
    """UserError for an unknown kind or protocol, and for an option given that this kind does not take."""
    from medclip.evaluation.config import ProtocolChoice
    from medclip.evaluation.results import Kind

    if isinstance(options["classes"], str):  # each of its letters would be a finding
        raise TypeError("classes is a single string, not a list of strings")
    if kind not in [*Kind]:
        raise UserError(f"{kind!r} is not a kind of evaluation; choose one of: {', '.join(Kind)}.")
    for name, kinds in EVALUATION_OPTIONS.items():
        if options[name] and kind not in kinds:
            raise UserError(f"{name} is of {' and '.join(kinds)}, not of {kind}.")
    if protocol not in (protocols := get_args(ProtocolChoice)):
        raise UserError(f"{protocol!r} is not a protocol; choose one of: {', '.join(protocols)}.")


def _measure(
    kind: Kind,
    config: EvalConfig,
    labels: LabelConfig,
    prompts: Path | None,
    protocol: ProtocolChoice,
    num_candidates: int | None,
    num_draws: int,
) -> Results:
    from medclip.evaluation.compositionality import evaluate_compositionality
    from medclip.evaluation.probe import evaluate_probe
    from medclip.evaluation.retrieval import evaluate_retrieval
    from medclip.evaluation.robustness import evaluate_robustness
    from medclip.evaluation.zero_shot import evaluate_zero_shot

    match kind.value:
        case "retrieval":
            return evaluate_retrieval(config, num_candidates=num_candidates, num_draws=num_draws)
        case "zero-shot":
            return evaluate_zero_shot(config, labels, prompts, protocol)
        case "probe":
            return evaluate_probe(config, labels, num_draws)
        case "compositionality":
            return evaluate_compositionality(config)
        case "robustness":
            return evaluate_robustness(config)
