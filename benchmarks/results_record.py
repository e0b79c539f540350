"""What docs/results holds of runs and evaluations: which belong together, and their mean metrics over the seeds.

A value is the mean over the seeds. Its 95 % interval resamples whole articles, the models of all seeds judged on the
same resamples: how much the choice of the pairs matters. How much the seed does is in the values of single seeds.
"""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np

from medclip.atomic_io import read_object
from medclip.errors import UserError
from medclip.evaluation.compare import Evaluation, aligned_items, read_evaluations
from medclip.evaluation.results import Kind, Results, kinds_in
from medclip.evaluation.significance import STATISTICS, value_of
from medclip.metrics import SHARE, Estimate, estimates, rank_ranges
from medclip.model.checkpoint import model_hash
from medclip.named_metrics import Metric, to_metric
from medclip.training.config import RECORDED_FIELDS, TrainConfig

DECISIVE = ("medclip", "commit", "jax", "jaxlib")
"""Software that the runs of one record share; what else differs between them is recorded and shown."""


class Task(NamedTuple):
    """What was measured on which items; the same for all seeds."""

    kind: str
    label: str
    protocol: str
    data: str
    split: str
    sha256: str
    """Of the items and their labels, or of the pairs."""

    def __str__(self) -> str:
        names = (self.kind, self.label, self.protocol, f"on {self.data}", self.split)
        return f"{' '.join(filter(None, names))} (SHA-256 {self.sha256[:12]})"


class Member(NamedTuple):
    """A model and its evaluations, each of one kind and named by its folder."""

    run: Path | None
    """None where only evaluations were given."""
    config: Mapping[str, Any]
    summary: Mapping[str, Any]
    evaluations: Mapping[Task, Evaluation]

    @property
    def seed(self) -> int | None:
        """The seed of training."""
        return self.config.get("seed")


def read_members(folders: Sequence[Path]) -> list[Member]:
    """Models by seed. UserError where a folder is not whole, or where they do not belong together."""
    runs = {model_hash(folder): folder for folder in folders if (folder / "train_config.json").is_file()}
    tasks: dict[str | None, dict[Task, Evaluation]] = {model: {} for model in runs}
    for folder in folders:
        if folder in runs.values() and not kinds_in(folder):
            continue
        (evaluation,) = read_evaluations([folder])
        for kind, results in evaluation.results.items():
            origin, facts = results.provenance, results.facts
            digest = str(facts.get("split_sha256", origin.data_sha256))
            label, protocol = (str(facts.get(name, "")) for name in ("label", "protocol"))
            task = Task(kind, label, protocol, str(origin.data), str(origin.split), digest)
            own = tasks.setdefault(origin.model, {})
            if task in own:
                raise UserError(f"{own[task].name} and {folder} hold the same: {task}.")
            own[task] = Evaluation(str(folder), {kind: results}, {kind: evaluation.items[kind]})
    members = [_member(runs.get(str(model)), evaluations) for model, evaluations in tasks.items()]
    _check_seeds(members)
    return sorted(members, key=lambda member: member.seed or 0)


def _member(run: Path | None, evaluations: Mapping[Task, Evaluation]) -> Member:
    if run is None:
        return Member(None, {}, {}, evaluations)
    for file in ("summary.json", "model/README.md"):
        if not (run / file).is_file():
            raise UserError(f"{run} has not ended: it has no {file}. Go on with medclip train --resume.")
    if not evaluations:
        raise UserError(f"none of these evaluations is of the model that {run} holds now. Evaluate it, with --out.")
    return Member(run, read_settings(run), read_object(run / "summary.json", "the summary of a run"), evaluations)


def read_settings(run: Path) -> dict[str, Any]:
    """The settings of a run; where it began from another run, `init` is the settings of that one."""
    config = read_object(run / "train_config.json", "the settings of a run")
    before = Path(str(config.get("init")))
    return config | ({"init": read_settings(before)} if (before / "train_config.json").is_file() else {})


def _without_seed(config: Mapping[str, Any]) -> dict[str, Any]:
    """What runs of one record share; the runs that they began from may differ in their seeds too."""
    before = config.get("init")
    shared = {name: value for name, value in config.items() if name not in ("seed", "software")}
    return shared | ({"init": _without_seed(before)} if isinstance(before, Mapping) else {})


def _check_seeds(members: Sequence[Member]) -> None:
    """UserError unless the members differ in their seeds alone and were measured alike."""
    first, *others = members
    if others and not all(member.run for member in members):
        raise UserError("these evaluations are of several models: give the run of each, which knows its seed.")
    for other in others:
        shared, own = _without_seed(first.config), _without_seed(other.config)
        changed = [name for name in shared | own if shared.get(name) != own.get(name)]
        changed += [name for name in DECISIVE if _versions(first, name) != _versions(other, name)]
        if changed:
            raise UserError(f"{first.run} and {other.run} differ in more than their seed: {', '.join(changed)}.")
        if alone := set(first.evaluations) ^ set(other.evaluations):
            raise UserError(f"{first.run} and {other.run} were not measured alike: one alone has {min(alone)}.")
    if len({member.seed for member in members}) < len(members):
        raise UserError(f"two of these runs have one seed: {', '.join(str(member.run) for member in members)}.")


def _versions(member: Member, name: str) -> set[str]:
    """What software of this name made a run; several where it was resumed by others."""
    return {str(software.get(name)) for software in member.config.get("software", [])}


def _differing_software(members: Sequence[Member]) -> dict[str, list[str]]:
    """The versions, and devices, in which the runs differ."""
    names = {name: None for m in members for software in m.config.get("software", []) for name in software}
    versions = {name: set().union(*(_versions(member, name) for member in members)) for name in names}
    return {name: sorted(own) for name, own in versions.items() if len(own) > 1}


def make_record(members: Sequence[Member]) -> dict[str, Any]:
    """What docs/results holds of models that differ in their seed: how they were made, and their mean metrics."""
    first, summaries = members[0], [member.summary for member in members]
    training = first.run and {
        "command": train_command(first.config),
        "sha256": first.config["data"]["train"],
        "source": _sources(summaries),
        "differing_software": _differing_software(members),
        "best_steps": [summary["best"]["step"] for summary in summaries],
    }
    evaluations = [_evaluation_record(task, members) for task in sorted(first.evaluations)]
    return {"seeds": [member.seed for member in members], "training": training, "evaluations": evaluations}


def _sources(made_by: Sequence[Mapping[str, Any]]) -> list[str]:
    """The version and the commit of all that were written."""
    return sorted({f"medclip {made['medclip_version']}, commit {made.get('commit') or 'unknown'}" for made in made_by})


def _evaluation_record(task: Task, members: Sequence[Member]) -> dict[str, Any]:
    kind = Kind(task.kind)
    evaluations = [member.evaluations[task] for member in members]
    results = [evaluation.results[kind] for evaluation in evaluations]
    commands = {evaluate_command(kind, Path(evaluation.name)) for evaluation in evaluations}
    if len(commands) > 1:
        raise UserError(f"{task} was not measured by one command: {'; '.join(sorted(commands))}.")
    first, documents = results[0], [result.to_json() for result in results]
    origin = first.provenance
    is_own = task.split == "validation" and origin.contamination == "yes"  # labeled items have digests of their own
    is_own |= bool(members[0].run) and origin.data_sha256 == members[0].config["data"]["validation"]
    return {
        **task._asdict(),
        "classes": first.below("classes") or first.below("trained_on", "classes"),
        "pool": _pool_sizes(first),
        "synthetic": origin.synthetic,
        "chose_weights": is_own if members[0].run else None,
        "command": commands.pop(),
        "source": _sources(documents),
        "models": [document["model"] for document in documents],
        "ci_method": origin.ci_method,
        "metrics": [_mean_metric(kind, metric, evaluations) for metric in first.metrics if metric.role != "reported"],
    }


def _pool_sizes(results: Results) -> dict[str, int]:
    """How many images and captions were measured, or else how many candidates each query had."""
    sizes = {name: results.facts.get(f"num_{name}") for name in ("images", "captions", "candidates")}
    counts = {name: size for name, size in sizes.items() if isinstance(size, int)}
    return {name: counts[name] for name in counts if name != "candidates" or len(counts) == 1}


def _mean_metric(kind: Kind, metric: Metric, evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    by_seed = [evaluation.results[kind][metric.name].value for evaluation in evaluations]
    mean = metric if len(evaluations) == 1 else to_metric(metric.name, mean_over_seeds(kind, metric, evaluations))
    ends = {"value": mean.value, "low": mean.low, "high": mean.high}
    return {"name": metric.name, "role": metric.role, **ends, "chance": metric.chance, "by_seed": by_seed}


def mean_over_seeds(kind: Kind, metric: Metric, evaluations: Sequence[Evaluation]) -> Estimate:
    """The mean of a metric over evaluations of the same items, whole articles resampled for all of them at once."""
    tables = aligned_items(kind, evaluations)
    values = np.column_stack([table.column(str(metric.column)).to_numpy().astype(float) for table in tables])
    judged = np.isfinite(values).all(axis=1)
    values, statistic = values[judged], STATISTICS[str(metric.statistic)]
    articles = np.array(tables[0].column("article").to_pylist(), str)[judged]
    label = "label" if "label" in tables[0].column_names else "article"
    _, classes = np.unique(np.array(tables[0].column(label).to_pylist(), str)[judged], return_inverse=True)

    def mean(rows: np.ndarray) -> dict[str, float]:
        by_seed = [value_of(statistic, own, classes[rows]) for own in values[rows].T]
        return {str(metric.statistic): float(np.mean(np.exp(by_seed) if statistic.ratio else by_seed))}

    seed = evaluations[0].results[kind].provenance.seed
    num_candidates = evaluations[0].results[kind].facts.get("num_candidates")
    ranges = {**rank_ranges(num_candidates if isinstance(num_candidates, int) else len(values)), "mean": SHARE}
    return estimates(np.arange(len(values)), articles, mean, seed, ranges)[str(metric.statistic)]


def train_command(config: Mapping[str, Any], out: str = "RUN") -> str:
    """The command of a run, from its settings: those that are not the defaults, and no path of any machine.

    Before it, on a line of its own, that of the run which it began from.
    """
    if isinstance(before := config.get("init"), Mapping):
        name = f"{out}-INIT"
        return f"{train_command(before, name)}\n{train_command({**config, 'init': name}, out)}"
    defaults = {field.name: field.default for field in fields(TrainConfig)}
    same = {"micro_batch_size": "batch_size", "vision_lr": "lr", "text_lr": "lr"}
    given = {
        name: value
        for name, value in config.items()
        if name not in (*RECORDED_FIELDS, "seed") and value not in (None, "", [], defaults.get(name) or 0)
        if name not in same or value != config[same[name]]
    }
    return f"medclip train --data DATA --out {out} {_flags(given)} --seed SEED"


def evaluate_command(kind: Kind, folder: Path) -> str:
    """The command of an evaluation, from the file that repeats it. UserError where that is absent or damaged."""
    file = folder / f"evaluate-{kind}.toml"
    try:
        settings = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file} does not tell the command of {kind} ({error}). Evaluate again, with --out.") from None
    given = {name: value for name, value in settings.items() if name not in ("model", "data", "out", "cache")}
    model = "--embeddings IMAGES.npy TEXTS.npy" if given.pop("embeddings", None) else "--model MODEL"
    return f"medclip evaluate {kind} {model} --data DATA {_flags(given)}".strip()


def _flags(settings: Mapping[str, Any]) -> str:
    words: list[str] = []
    for name, value in settings.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            values = value if isinstance(value, list) else [value]
            words += [f"--{flag}", *(shlex.quote(_public(str(item))) for item in values)]
    return " ".join(words)


def _public(value: str) -> str:
    """A value without the folders of a path; OWNER/NAME stays."""
    return PurePath(value).name if (value[:1] in "/.~" and "/" in value) or value.count("/") > 1 else value
