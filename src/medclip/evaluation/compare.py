"""Evaluations side by side, the first being the baseline; metrics meet by their column and statistic."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from medclip.errors import UserError
from medclip.evaluation.results import Kind, Results, check_kinds, kinds_in, read_results
from medclip.evaluation.significance import (
    LEVEL,
    RESAMPLES,
    STATISTICS,
    Difference,
    Statistic,
    Verdict,
    holm_adjust,
    paired_differences,
    verdict,
)
from medclip.folder_kinds import what_instead
from medclip.metrics import is_one_group
from medclip.named_metrics import Metric, format_value, name_parts
from medclip.plain_text import printable
from medclip.progress import progress

SEED = 0  # the same evaluations always get the same verdict
METHOD = (
    "95 % paired bootstrap of the difference and Fisher's randomization test, whole articles resampled and swapped "
    f"{RESAMPLES:,} times; p-values corrected by Holm"
)
CHANCE_ROUNDING = 1e-9  # relative, between processors
KEY_COLUMNS = ("id", "article", "label")
"""The columns that identify an item: ids alone may be mere numbers of rows."""


@dataclass(frozen=True)
class Evaluation:
    """What one folder holds, by kind."""

    name: str
    results: dict[Kind, Results]
    items: dict[Kind, pa.Table]


@dataclass(frozen=True)
class Contrast:
    """A metric of another evaluation against the baseline's."""

    difference: Difference
    p_holm: float
    """The p-value, corrected by Holm for all metrics and evaluations that are compared at once."""
    verdict: Verdict


@dataclass(frozen=True)
class Row:
    """A metric that every evaluation has."""

    kind: Kind
    metrics: tuple[Metric, ...]
    """Of each evaluation."""
    contrasts: tuple[Contrast, ...] = ()
    """Of each evaluation but the first; none where the metric is only shown."""

    @property
    def name(self) -> str:
        """The metric's name."""
        return self.metrics[0].name

    @property
    def statistic(self) -> Statistic | None:
        """How the metric is computed from the items, where that can be compared."""
        return STATISTICS.get(self.metrics[0].statistic or "")


@dataclass(frozen=True, repr=False)
class Comparison:
    """Evaluations and the metrics they share. A notebook shows its tables."""

    evaluations: tuple[Evaluation, ...]
    rows: tuple[Row, ...]
    """Those with a verdict first."""
    notes: tuple[str, ...]
    """Sentences on kinds that could not be compared and on data that differ."""
    chosen: tuple[str, ...] = ()
    """The metrics to compare that were named; none: all whose role it is."""

    @property
    def compared_kinds(self) -> list[Kind]:
        """The kinds of evaluations of which anything is compared."""
        return list(dict.fromkeys(row.kind for row in self.rows if row.contrasts))

    def regressions(self, max_regression: float) -> list[str]:
        """A sentence for each metric that fell by more than `max_regression` (a share: 0.01 is a point), beyond noise.

        Beyond noise: the whole interval of the difference lies below −`max_regression`, and p without correction is at
        most 0.05, as these are few and named beforehand. Judged by are the metrics that were chosen; none: those whose
        role it is. UserError where one is not a share, or where another evaluation lacks one that the baseline has.
        """
        if not 0 <= max_regression < 1:
            raise UserError(f"--max-regression {max_regression:g} is not a share: 0.01 is one point of a hundred.")
        first, *others = self.evaluations
        if absent := [name for other in others for name in _absent(first, other, self.chosen)]:
            raise UserError(f"--max-regression cannot judge what is absent: {', '.join(absent)}. Evaluate both alike.")
        gated = [row for row in self.rows if row.contrasts and (self.chosen or row.metrics[0].role == "gated")]
        if not gated:
            problem = "finds neither R@10 nor shares of right answers"
            raise UserError(f"--max-regression {problem}: name others with --metric.")
        if wrong := [row.name for row in gated if not row.metrics[0].is_share]:
            raise UserError(f"--max-regression is of shares, and {wrong[0]} is not one: choose others with --metric.")
        return [
            f"{row.name} of {other.name} is {change.value:.1%} where {first.name} has {change.baseline:.1%}: "
            f"{100 * change.difference:+.1f} points (95 % interval {100 * change.low:+.1f} to "
            f"{100 * change.high:+.1f}), a fall by more than {100 * max_regression:g}."
            for row in gated
            for other, contrast in zip(others, row.contrasts, strict=True)
            for change in [contrast.difference]
            if change.high < -max_regression and change.p <= LEVEL
        ]

    def __repr__(self) -> str:
        return f"Comparison({' and '.join(e.name for e in self.evaluations)}, {len(self.rows)} metrics)"

    def _repr_html_(self) -> str:
        from medclip.evaluation.report import comparison_summary

        return comparison_summary(self)


def read_evaluations(folders: Sequence[Path]) -> tuple[Evaluation, ...]:
    """Evaluations, named by their folders. UserError where a folder holds none, or a damaged one."""
    names = [folder.name for folder in folders]
    if "" in names or len(set(names)) < len(names):
        names = [str(folder) for folder in folders]
    evaluations = []
    for name, folder in zip(map(printable, names), folders, strict=True):  # no chart holds a name that is not Unicode
        content = {kind: read_results(folder, kind) for kind in kinds_in(folder)}
        if not content:
            remark = what_instead(folder, "retrieval.json")
            raise UserError(f"{folder} holds no evaluation; medclip evaluate --out writes one.{remark}")
        results = {kind: results for kind, (results, _) in content.items()}
        evaluations.append(Evaluation(name, results, {kind: items for kind, (_, items) in content.items()}))
    return tuple(evaluations)


def compare(folders: Sequence[Path], chosen: Sequence[str] = ()) -> Comparison:
    """Compare evaluations of the same items, the first being the baseline.

    `chosen` are the metrics to compare, by their names or the last parts of them ("R@10"); none: all whose role it is.
    UserError where the folders hold no evaluations, or none of the same items.
    """
    if len(folders) < 2:
        raise UserError("give two evaluations or more: folders that medclip evaluate wrote with --out.")
    for folder in folders:
        check_kinds(folder)
    evaluations = read_evaluations(folders)
    kinds = [kind for kind in evaluations[0].results if all(kind in e.results for e in evaluations)]
    if not kinds:
        listed = "; ".join(f"{e.name}: {', '.join(e.results)}" for e in evaluations)
        raise UserError(f"these evaluations have no kind in common ({listed}).")
    shared = {kind: list(_shared_metrics(kind, evaluations)) for kind in kinds}
    by_column: dict[tuple[Kind, str], list[tuple[Metric, ...]]] = defaultdict(list)
    for kind in kinds:
        for metrics in shared[kind]:
            if _is_compared(metrics[0], chosen):
                by_column[kind, str(metrics[0].column)].append(metrics)
    for name in chosen:
        if not any(is_chosen(metrics[0], [name]) for rows in by_column.values() for metrics in rows):
            raise UserError(f"no metric of single items is named {name!r} in all of these evaluations.")
    tables = {kind: aligned_items(kind, evaluations) for kind in kinds}
    compared: list[tuple[Kind, tuple[Metric, ...], tuple[Difference, ...]]] = []
    with progress("compare", len(by_column), "columns") as advance:
        for (kind, column), rows in by_column.items():
            for metrics in rows:
                _check_chance(kind, metrics, evaluations)
            differences = _differences(kind, column, [metrics[0] for metrics in rows], tables[kind])
            compared += [(kind, *pair) for pair in zip(rows, differences, strict=True)]
            advance()
    corrected = iter(holm_adjust([difference.p for *_, differences in compared for difference in differences]))
    rows = [
        Row(kind, metrics, tuple(_contrast(metrics[0], d, next(corrected)) for d in differences))
        for kind, metrics, differences in compared
    ]
    done = {(row.kind, row.name) for row in rows}
    rows += [Row(kind, metrics) for kind in kinds for metrics in shared[kind] if (kind, metrics[0].name) not in done]
    notes = [*_missing(evaluations), *(note for kind in kinds for note in _data_differs(kind, evaluations))]
    notes += [
        f"{kind}: all items are of one article or patient, so nothing says whether a difference is noise"
        for kind in kinds
        if is_one_group(tables[kind][0].column("article").to_pylist())
    ]
    return Comparison(evaluations, tuple(rows), tuple(notes), tuple(chosen))


def is_chosen(metric: Metric, chosen: Sequence[str]) -> bool:
    """Whether a metric is among those chosen: by its whole name or the last parts of it."""
    return any(f"/{metric.name}".endswith(f"/{name}") for name in chosen)


def _is_compared(metric: Metric, chosen: Sequence[str]) -> bool:
    by_item = metric.role != "reported" and metric.column is not None and metric.statistic in STATISTICS
    return by_item and (not chosen or is_chosen(metric, chosen))


def _shared_metrics(kind: Kind, evaluations: Sequence[Evaluation]) -> Iterator[tuple[Metric, ...]]:
    """The metrics that all evaluations computed alike: of one name, column and statistic."""
    first, *others = (evaluation.results[kind] for evaluation in evaluations)
    for metric in first.metrics:
        named = [other.get(*name_parts(metric.name)) for other in others]
        metrics = [m for m in named if m and (m.column, m.statistic) == (metric.column, metric.statistic)]
        if len(metrics) == len(others):
            yield (metric, *metrics)


def _check_chance(kind: Kind, metrics: Sequence[Metric], evaluations: Sequence[Evaluation]) -> None:
    """UserError where a metric of the same items has another chance: of other candidates, or of more classes."""
    first, *others = metrics
    for metric, evaluation in zip(others, evaluations[1:], strict=True):
        if first.chance is None or metric.chance is None:
            continue
        if not math.isclose(first.chance, metric.chance, rel_tol=CHANCE_ROUNDING):
            chances = f"{format_value(first, first.chance)} against {format_value(metric, metric.chance)}"
            raise UserError(
                f"{evaluations[0].name} and {evaluation.name} did not measure {first.name} of {kind} among the same "
                f"candidates or classes (chance {chances}): use the same --data and --classes."
            )


def _differences(
    kind: Kind, column: str, metrics: Sequence[Metric], tables: Sequence[pa.Table]
) -> list[tuple[Difference, ...]]:
    """Of each metric of one column: the difference of each evaluation from the first."""
    if not all(column in table.column_names for table in tables):
        raise UserError(f"the items of {kind} have no column {column}. Evaluate again.")
    values = [table.column(column).to_numpy().astype(float) for table in tables]
    valid = np.isfinite(values[0])
    if any((np.isfinite(other) != valid).any() for other in values) or not valid.any():
        raise UserError(f"{column} of {kind} was not judged for the same items by all. Evaluate again.")
    articles, labels = (np.array(key, dtype=str)[valid].tolist() for key in _keys(tables[0])[1:])
    baseline, *others = (column_values[valid] for column_values in values)
    statistics = [STATISTICS[str(metric.statistic)] for metric in metrics]
    by_evaluation = [paired_differences(baseline, other, articles, labels, statistics, SEED) for other in others]
    return list(zip(*by_evaluation, strict=True))


def _contrast(metric: Metric, difference: Difference, p_holm: float) -> Contrast:
    return Contrast(difference, p_holm, verdict(STATISTICS[str(metric.statistic)], difference, p_holm))


def aligned_items(kind: Kind, evaluations: Sequence[Evaluation]) -> list[pa.Table]:
    """The items of a kind, in the order of the first evaluation. UserError where they are not the same."""
    rows = [_rows_by_key(kind, evaluation) for evaluation in evaluations]
    for evaluation, by_key in zip(evaluations, rows, strict=True):
        if by_key.keys() != rows[0].keys():
            raise UserError(
                f"{evaluations[0].name} and {evaluation.name} did not measure {kind} on the same items "
                f"({_mismatch(kind, evaluations[0], evaluation)}): use the same --data, --split and --max-samples."
            )
    return [
        evaluation.items[kind].take([by_key[key] for key in rows[0]])
        for evaluation, by_key in zip(evaluations, rows, strict=True)
    ]


def _rows_by_key(kind: Kind, evaluation: Evaluation) -> dict[tuple[str, ...], int]:
    table = evaluation.items[kind]
    if not {"id", "article"} <= set(table.column_names):
        raise UserError(f"the items of {kind} in {evaluation.name} have no id and article. Evaluate again.")
    rows = {key: row for row, key in enumerate(zip(*_keys(table), strict=True))}
    if not rows or len(rows) < len(table):
        raise UserError(f"{kind} in {evaluation.name} has no items, or one of them twice. Evaluate again.")
    return rows


def _keys(table: pa.Table) -> list[list[str]]:
    """Values of KEY_COLUMNS; "" where the items have no classes."""
    names = set(table.column_names)
    return [
        [str(value) for value in table.column(name).to_pylist()] if name in names else [""] * len(table)
        for name in KEY_COLUMNS
    ]


def _mismatch(kind: Kind, first: Evaluation, other: Evaluation) -> str:
    def describe(evaluation: Evaluation) -> dict[str, str]:
        results = evaluation.results[kind]
        origin = results.provenance
        return {
            "data": str(origin.data),
            "split": str(origin.split),
            "SHA-256 of the data": str(origin.data_sha256),
            "label": str(results.facts.get("label")),
            "items": str(len(evaluation.items[kind])),
        }

    both = zip(describe(first).items(), describe(other).values(), strict=True)
    return ", ".join(f"{title} {a[:12]} against {b[:12]}" for (title, a), b in both if a != b) or "other ids"


def _data_differs(kind: Kind, evaluations: Sequence[Evaluation]) -> Iterator[str]:
    """Which evaluations saw other images or captions of the same items, or learned from others."""
    first, *others = evaluations
    for other in others:
        if len({evaluation.results[kind].facts.get("trained_on/sha256") for evaluation in (first, other)}) > 1:
            yield f"{kind}: {other.name} learned from other images or labels than {first.name}"
        if first.results[kind].provenance.data_sha256 != other.results[kind].provenance.data_sha256:
            yield (
                f"{kind}: {other.name} has the items of {first.name}, but their images or captions are not the "
                f"same ({_mismatch(kind, first, other)})"
            )


def _missing(evaluations: Sequence[Evaluation]) -> Iterator[str]:
    for kind in dict.fromkeys(kind for evaluation in evaluations for kind in evaluation.results):
        names = [evaluation.name for evaluation in evaluations if kind in evaluation.results]
        if len(names) < len(evaluations):
            yield f"{kind} is only in {', '.join(names)}"


def _absent(first: Evaluation, other: Evaluation, chosen: Sequence[str]) -> Iterator[str]:
    """Gated metrics of the first evaluation, or those of `chosen`, that the other lacks."""
    for kind, results in first.results.items():
        gated = [m for m in results.metrics if _is_compared(m, chosen) and (chosen or m.role == "gated")]
        if gated and kind not in other.results:
            yield f"{kind} of {other.name}"
        elif gated:
            present = {(m.name, m.column, m.statistic) for m in other.results[kind].metrics}
            yield from (f"{m.name} of {other.name}" for m in gated if (m.name, m.column, m.statistic) not in present)


def as_json(comparison: Comparison) -> dict[str, Any]:
    """The comparison for programs; differences are value − baseline, or value / baseline where `ratio` is true."""
    return {
        "method": METHOD,
        "evaluations": [
            {"name": e.name, "results": {kind: results.to_json() for kind, results in e.results.items()}}
            for e in comparison.evaluations
        ],
        "notes": comparison.notes,
        "metrics": [
            {
                "kind": row.kind,
                "metric": row.name,
                "values": [{"value": m.value, "low": m.low, "high": m.high} for m in row.metrics],
                **_direction(row),
                "contrasts": list(map(_contrast_json, row.contrasts)),
            }
            for row in comparison.rows
        ],
    }


def _contrast_json(contrast: Contrast) -> dict[str, Any]:
    numbers = {name: None if math.isnan(value) else value for name, value in asdict(contrast.difference).items()}
    return numbers | {"p_holm": contrast.p_holm, "verdict": contrast.verdict}


def _direction(row: Row) -> dict[str, bool]:
    if not row.contrasts or row.statistic is None:
        return {}
    return {"ratio": row.statistic.ratio, "lower_is_better": row.statistic.lower_is_better}
