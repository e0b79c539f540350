"""The tables of results in docs/results.md and README.md, made from what runs and evaluations wrote.

    python benchmarks/results_table.py NAME FOLDER…      # record these, then write the tables
    python benchmarks/results_table.py                   # write the tables once more

FOLDER is a run (`medclip train --out`) or an evaluation (`medclip evaluate … --out`) of a run's model, which is told
by the hash of its weights; several runs under one NAME differ in nothing but the seed: commit, JAX, data and settings
are the same. Their numbers go to docs/results/NAME.json, without ids, images or captions, and those of each run onto
its model card. Refused are folders that are not whole and those that do not belong together. Metrics are those that
`medclip compare` tests.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from medclip import jax_setup

jax_setup.start()

from results_record import Member, Task, make_record, read_members  # noqa: E402

from medclip.atomic_io import read_object, write_json, write_text  # noqa: E402
from medclip.card_evaluations import (  # noqa: E402
    CardEvaluation,
    add_evaluations,
    between_marks,
    read_card,
    write_card,
)
from medclip.errors import UserError  # noqa: E402
from medclip.evaluation.results import Kind  # noqa: E402
from medclip.named_metrics import Metric, format_interval, format_value, to_words  # noqa: E402

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
        differing = (f"{name} {', '.join(versions)}" for name, versions in training["differing_software"].items())
        yield f"{'; '.join([*training['source'], *differing])}."
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
    return last in HEADLINES and not above.startswith(("article_disjoint", "corruptions", "few_shot"))


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
