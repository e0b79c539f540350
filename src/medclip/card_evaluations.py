"""Evaluations on a model card: the `model-index` that the Hub reads, and the tables of it that people read.

One evaluation is one task on one split. Written again, it takes the place of the earlier one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclip.atomic_io import write_text
from medclip.bounded_files import MAX_CARD_BYTES, read_text
from medclip.errors import UserError
from medclip.named_metrics import Metric, format_interval, format_value, to_words
from medclip.plain_text import printable

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCard

START, END = "<!-- evaluations: made from model-index -->", "<!-- end of evaluations -->"
_TASKS = {
    "retrieval": "image-text-retrieval",
    "zero-shot": "zero-shot-image-classification",
    "probe": "image-classification",
    "compositionality": "image-text-matching",
    "robustness": "image-text-retrieval",
}


@dataclass(frozen=True, kw_only=True)
class CardEvaluation:
    """What was measured on which items, and how."""

    kind: str
    """Of `medclip evaluate`: retrieval, zero-shot …"""
    label: str = ""
    protocol: str = ""
    data: str
    """Name of the source."""
    synthetic: bool
    split: str
    sha256: str
    """Of the items."""
    pool: Mapping[str, int]
    """How many images and captions there were, or how many candidates each query had."""
    notes: Sequence[str] = ()
    """What else a reader must know, each without its full stop."""
    ci_method: str
    medclip_version: str
    commit: str | None
    """Of the checkout that measured, where it was one."""
    command: str = ""
    metrics: Sequence[Metric]


def read_card(path: Path) -> ModelCard:
    """A model's card. UserError where it is absent or its head cannot be read."""
    from huggingface_hub import ModelCard
    from yaml import YAMLError

    try:
        return ModelCard(read_text(path, MAX_CARD_BYTES))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, YAMLError, RecursionError) as error:
        reason = str(error).strip().splitlines()[:1]
        raise UserError(f"{path} is not a model card that can be read ({', '.join(reason)}).") from None


def write_card(card: ModelCard, path: Path) -> None:
    """Write a card, with control characters escaped."""
    write_text(path, printable(str(card)))


def add_evaluations(card: ModelCard, evaluations: Sequence[CardEvaluation], model_name: str) -> None:
    """Write evaluations into a card's head and tables. Metrics without a value are left out.

    `model_name` names the model where the card does not. UserError where the card has one of the two marks alone.
    """
    new = [result for evaluation in evaluations for result in _eval_results(evaluation)]
    written = {result.unique_identifier for result in new}
    earlier = [result for result in card.data.get("eval_results", []) if result.unique_identifier not in written]
    card.data["model_name"] = card.data.get("model_name", model_name)
    card.data["eval_results"] = [*earlier, *new]
    text = card.text if START in card.text else f"{card.text.rstrip()}\n\n## Evaluation\n\n{START}\n{END}\n"
    card.text = between_marks(text, START, END, "\n".join(_tables([*earlier, *new])))


def between_marks(text: str, start: str, end: str, content: str) -> str:
    """The text with the content between two marks. UserError where it does not have both once."""
    before, after = text.split(start)[0], text.split(end)[-1]
    if text.count(start) != 1 or text.count(end) != 1:
        raise UserError(f"the page has not one {start} before one {end}: write both, each on a line of its own.")
    return f"{before}{start}\n{content}\n{end}{after}"


def _eval_results(evaluation: CardEvaluation) -> Iterator[EvalResult]:
    from huggingface_hub import EvalResult

    args = {
        "pool": dict(evaluation.pool),
        "notes": list(evaluation.notes),
        "ci_method": evaluation.ci_method,
        "medclip_version": evaluation.medclip_version,
        "commit": evaluation.commit,
        "command": evaluation.command,
    }
    for metric in evaluation.metrics:
        if metric.value is None:
            continue
        ends = {"low": metric.low, "high": metric.high, "chance": metric.chance}
        yield EvalResult(
            task_type=_TASKS[evaluation.kind],
            task_name=str(evaluation.kind),  # an enum would be a Python object in YAML
            dataset_type=evaluation.data,
            dataset_name="synthetic phantoms" if evaluation.synthetic else evaluation.data,
            dataset_config=" ".join(filter(None, (evaluation.kind, evaluation.label, evaluation.protocol))),
            dataset_split=evaluation.split,
            dataset_revision=evaluation.sha256,
            dataset_args={name: value for name, value in args.items() if value},
            metric_type=metric.name,
            metric_name=to_words(metric.name),
            metric_value=float(metric.value),
            metric_args={name: float(value) for name, value in ends.items() if value is not None},
        )


def _tables(results: Sequence[EvalResult]) -> Iterator[str]:
    """A heading, how it was measured, and a row for each metric, of every evaluation; of foreign ones what they say."""
    by_evaluation: dict[tuple[Any, ...], list[EvalResult]] = {}
    for result in results:
        by_evaluation.setdefault(result.unique_identifier, []).append(result)
    for of_one in by_evaluation.values():
        first = of_one[0]
        args = _own_args(first)
        pool = ", ".join(f"{count:,} {name}" for name, count in args.get("pool", {}).items())
        software = (
            args.get("medclip_version") and f"medclip {args['medclip_version']}, commit {args.get('commit', 'unknown')}"
        )
        sentences = [pool, *args.get("notes", ()), args.get("ci_method"), software]
        title = f"{first.dataset_config or first.task_name or first.task_type}, {first.dataset_name}"
        yield from (f"### {' '.join(filter(None, (title, first.dataset_split)))}", "")
        yield " ".join(f"{sentence[0].upper()}{sentence[1:]}." for sentence in sentences if sentence)
        if first.dataset_revision:
            yield f"SHA-256 of the items: `{first.dataset_revision[:12]}`."
        if command := args.get("command"):
            yield from ("", "```bash", command, "```")
        yield from ("", "| metric | value (95 % interval) | chance |", "|---|---|---|")
        yield from map(_row, of_one)
        yield ""


def _own_args(result: EvalResult) -> Mapping[str, Any]:
    """How a result was measured, where an evaluation of ours wrote it; else nothing."""
    args = result.dataset_args
    return args if isinstance(args, Mapping) and "medclip_version" in args else {}


def _row(result: EvalResult) -> str:
    name = _cell(result.metric_name or result.metric_type)
    if not _own_args(result):  # whose accuracy of 87.2 is of 100, whose 0.872 of 1 is not said
        return f"| {name} | {_cell(result.metric_value)} | – |"
    low, high, chance = ((result.metric_args or {}).get(name) for name in ("low", "high", "chance"))
    metric = Metric(name=result.metric_type, value=result.metric_value, low=low, high=high, chance=chance)
    interval = format_interval(metric)
    value = format_value(metric, metric.value)
    return f"| {name} | {value}{f' ({interval})' if interval else ''} | {format_value(metric, metric.chance)} |"


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")
