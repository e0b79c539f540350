"""The tables of results in docs/results.md and README.md, made from what runs and evaluations wrote.

    python benchmarks/results_table.py NAME FOLDER…      # record these, then write the tables
    python benchmarks/results_table.py                   # write the tables once more

FOLDER is a run (`medclip train --out`) or an evaluation (`medclip evaluate … --out`) of a run's model, which is told
by the hash of its weights; several runs under one NAME differ in nothing but the seed. Their numbers go to
docs/results/NAME.json, without ids, images or captions, and those of each run onto its model card. Refused are folders
that are not whole and those that do not belong together.

Metrics are those that `medclip compare` tests. A value is the mean over the seeds. Its 95 % interval resamples whole
articles, the models of all seeds judged on the same resamples: how much the choice of the pairs matters. How much the
seed does is in the values of single seeds.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np

from medclip import jax_setup

jax_setup.start()

from medclip.atomic_io import read_object, write_json, write_text  # noqa: E402
from medclip.card_evaluations import (  # noqa: E402
    CardEvaluation,
    add_evaluations,
    between_marks,
    read_card,
    write_card,
)
from medclip.errors import UserError  # noqa: E402
from medclip.evaluation.compare import Evaluation, aligned_items, read_evaluations  # noqa: E402
from medclip.evaluation.results import Kind, Results, kinds_in  # noqa: E402
from medclip.evaluation.significance import STATISTICS, value_of  # noqa: E402
from medclip.metrics import Estimate, estimates  # noqa: E402
from medclip.model.checkpoint import model_hash  # noqa: E402
from medclip.named_metrics import Metric, format_interval, format_value, to_words  # noqa: E402
from medclip.training.config import RECORDED_FIELDS, TrainConfig  # noqa: E402

ROOT = Path(__file__).parents[1]
START, END = "<!-- results: made by benchmarks/results_table.py -->", "<!-- end of results -->"
ROCO_NOTE = "from ROCO's test part, re-split; not comparable with published ROCO figures"
PUBLISHED_POOL = 8_000
"""ROCO's published test part has 8,176 pairs; smaller pools are parts of it."""
HEADLINES = ("R@1", "R@10", "median_rank", "accuracy", "balanced_accuracy")
"""Metrics of the README by the last part of their names."""
PAGE = """# Results

Made by `python benchmarks/results_table.py` from [results/](results/), the numbers that runs and evaluations wrote;
a test compares. Values are means over the seeds. Their 95 % intervals resample whole articles, all seeds judged on the
same resamples; the values of single seeds say how much the seed matters. Metrics are those that `medclip compare`
tests, and hold for the pool that is named: fewer candidates give higher ones. Not for clinical use.
"""


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
    config = read_object(run / "train_config.json", "the settings of a run")
    return Member(run, config, read_object(run / "summary.json", "the summary of a run"), evaluations)


def _check_seeds(members: Sequence[Member]) -> None:
    """UserError unless the members differ in their seeds alone and were measured alike."""
    first, *others = members
    if others and not all(member.run for member in members):
        raise UserError("these evaluations are of several models: give the run of each, which knows its seed.")
    for other in others:
        names = dict.fromkeys([*first.config, *other.config])
        if changed := [n for n in names if n != "seed" and first.config.get(n) != other.config.get(n)]:
            raise UserError(f"{first.run} and {other.run} differ in more than their seed: {', '.join(changed)}.")
        if alone := set(first.evaluations) ^ set(other.evaluations):
            raise UserError(f"{first.run} and {other.run} were not measured alike: one alone has {min(alone)}.")
    if len({member.seed for member in members}) < len(members):
        raise UserError(f"two of these runs have one seed: {', '.join(str(member.run) for member in members)}.")


def make_record(members: Sequence[Member]) -> dict[str, Any]:
    """What docs/results holds of models that differ in their seed: how they were made, and their mean metrics."""
    first, summaries = members[0], [member.summary for member in members]
    training = first.run and {
        "command": train_command(first.config),
        "sha256": first.config["data"]["train"],
        "source": _sources(summaries),
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
        "classes": first.below("classes"),
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
    mean = metric if len(evaluations) == 1 else mean_over_seeds(kind, metric, evaluations)
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
        return {"": float(np.mean(np.exp(by_seed) if statistic.ratio else by_seed))}

    seed = evaluations[0].results[kind].provenance.seed
    return estimates(np.arange(len(values)), articles, mean, seed)[""]


def train_command(config: Mapping[str, Any]) -> str:
    """The command of a run, from its settings: those that are not the defaults, and no path of any machine."""
    defaults = {field.name: field.default for field in fields(TrainConfig)}
    same = {"micro_batch_size": "batch_size", "vision_lr": "lr", "text_lr": "lr"}
    given = {
        name: value
        for name, value in config.items()
        if name not in (*RECORDED_FIELDS, "seed") and value not in (None, "", 0, []) and value != defaults.get(name)
        if name not in same or value != config[same[name]]
    }
    return f"medclip train --data DATA --out RUN {_flags(given)} --seed SEED"


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


def read_records(folder: Path) -> dict[str, dict[str, Any]]:
    """What docs/results holds, by name."""
    return {file.stem: read_object(file, "a record of results") for file in sorted(folder.glob("*.json"))}


def results_page(records: Mapping[str, Mapping[str, Any]]) -> str:
    """docs/results.md: every metric of every record."""
    return "\n".join([PAGE, *(line for name, record in records.items() for line in _section(name, record))])


def _section(name: str, record: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"## {name}", "")
    if training := record["training"]:
        seeds, steps = (", ".join(map(str, values)) for values in (record["seeds"], training["best_steps"]))
        yield from ("```text", training["command"], "```", "")
        yield f"Seeds {seeds}; weights of step {steps}. Training pairs: SHA-256 `{training['sha256'][:12]}`."
        yield f"{'; '.join(training['source'])}."
    else:
        yield "The run of this model was not recorded: its seed, settings and training data are not known here."
    for evaluation in record["evaluations"]:
        yield from ("", f"### {name}: {_title(evaluation)}", "", *_metric_table(evaluation))
    yield ""


def _metric_table(evaluation: Mapping[str, Any]) -> Iterator[str]:
    """What is to be known of an evaluation, and a row for each of its metrics."""
    notes = (f" {note[0].upper()}{note[1:]}." for note in _notes(evaluation))
    yield f"{_pool(evaluation)}.{''.join(notes)}"
    yield f"SHA-256 of the split: `{evaluation['sha256'][:12]}`. Intervals: {evaluation['ci_method']}."
    yield from ("", "```text", evaluation["command"], "```", "", f"{'; '.join(evaluation['source'])}.", "")
    yield from ("| metric | value (95 % interval) | by seed | chance |", "|---|---|---|---|")
    for raw in evaluation["metrics"]:
        metric = _to_metric(raw)
        by_seed = ", ".join(format_value(metric, value) for value in raw["by_seed"])
        chance = format_value(metric, metric.chance)
        yield f"| {_cell(to_words(metric.name))} | {_value(metric)} | {by_seed} | {chance} |"


def readme_table(records: Mapping[str, Mapping[str, Any]]) -> str:
    """The table of the README: a row for each evaluation, and below it what several rows share."""
    rows = ["| model, command | seeds | measured | pool | value (95 % interval) |", "|---|---|---|---|---|"]
    notes: list[str] = []
    for name, record in records.items():
        seeds = ", ".join("not recorded" if seed is None else str(seed) for seed in record["seeds"])
        for evaluation in record["evaluations"]:
            own = _notes(evaluation)
            notes += [note for note in own if note not in notes]
            marks = ",".join(str(notes.index(note) + 1) for note in own)
            measured = f"{_title(evaluation)}{f' <sup>{marks}</sup>' if marks else ''}"
            metrics = [_to_metric(raw) for raw in evaluation["metrics"] if _is_headline(raw)]
            values = "<br>".join(f"{_cell(to_words(metric.name))} {_value(metric)}" for metric in metrics)
            rows.append(f"| [{name}](docs/results.md#{name}) | {seeds} | {measured} | {_pool(evaluation)} | {values} |")
    numbered = (f"<sup>{number}</sup> {note}" for number, note in enumerate(notes, 1))
    return "\n".join([*rows, *(["", "; ".join(numbered)] if notes else [])])


def _is_headline(raw: Mapping[str, Any]) -> bool:
    above, _, last = raw["name"].rpartition("/")
    return last in HEADLINES and not above.startswith(("article_disjoint", "few_shot"))


def _title(evaluation: Mapping[str, Any]) -> str:
    classes, label = evaluation["classes"], evaluation["label"]
    shown = ", ".join(classes) if len(classes) <= 3 else f"{len(classes)} classes"
    what = f"{evaluation['kind']}{f' of {label} ({shown})' if label else ''}"
    data = "synthetic phantoms" if evaluation["synthetic"] else evaluation["data"]
    return _cell(f"{what}, {data} {evaluation['split']}")


def _notes(evaluation: Mapping[str, Any]) -> list[str]:
    is_part = evaluation["data"].casefold() == "roco" and max(evaluation["pool"].values()) < PUBLISHED_POOL
    notes = {
        ROCO_NOTE: is_part,
        "this split also chose the weights": evaluation["chose_weights"],
        "whether this split chose the weights is not recorded": evaluation["chose_weights"] is None,
    }
    return [note for note, holds in notes.items() if holds]


def _pool(evaluation: Mapping[str, Any]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in evaluation["pool"].items())


def _to_metric(raw: Mapping[str, Any]) -> Metric:
    return Metric(**{name: raw[name] for name in ("name", "value", "low", "high", "chance")})


def _value(metric: Metric) -> str:
    interval = format_interval(metric)
    return f"{format_value(metric, metric.value)}{f' ({interval})' if interval else ''}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def write_tables(root: Path) -> None:
    """Write docs/results.md and the table of README.md from docs/results."""
    records = read_records(root / "docs" / "results")
    readme = (root / "README.md").read_text(encoding="utf-8")
    pages = {
        "docs/results.md": results_page(records),
        "README.md": between_marks(readme, START, END, readme_table(records)),
    }
    for name, text in pages.items():
        write_text(root / name, text)


def write_run_card(member: Member) -> None:
    """Write the evaluations of a run onto the card of its model, in place of those of the same items and kind."""
    path = Path(str(member.run), "model", "README.md")
    card = read_card(path)
    records = make_record([member])["evaluations"]
    evaluations = [
        _card_evaluation(task, member, record) for task, record in zip(sorted(member.evaluations), records, strict=True)
    ]
    add_evaluations(card, evaluations, Path(str(member.run)).resolve().name)
    write_card(card, path)


def _card_evaluation(task: Task, member: Member, record: Mapping[str, Any]) -> CardEvaluation:
    origin = member.evaluations[task].results[Kind(task.kind)].provenance
    return CardEvaluation(
        **task._asdict(),
        synthetic=record["synthetic"],
        pool=record["pool"],
        notes=_notes(record),
        ci_method=record["ci_method"],
        medclip_version=origin.medclip_version,
        commit=origin.commit,
        command=record["command"],
        metrics=[_to_metric(raw) for raw in record["metrics"]],
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", help="letters, digits, - and . of the record")
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER")
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout whose docs and README are written")
    args = parser.parse_args(arguments)
    try:
        if args.name:
            if not args.folders or not re.fullmatch("[a-z0-9][a-z0-9-]*", args.name):
                raise UserError("give NAME (small letters, digits and -) and the folders of runs and evaluations.")
            members = read_members(args.folders)
            write_json(args.root / "docs" / "results" / f"{args.name}.json", make_record(members))
            for member in members:
                if member.run:
                    write_run_card(member)
        write_tables(args.root)
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
