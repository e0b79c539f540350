"""Evaluations side by side, the first being the baseline."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medclip.errors import UserError
from medclip.evaluate.align_items import Column, Evaluation, columns, judged, not_quite_the_same, read_evaluations
from medclip.evaluate.metric import Figure, figures, is_share, name_of
from medclip.evaluate.significance import (
    BALANCED,
    LEVEL,
    MEAN,
    RANKED_AGAIN,
    RANKS,
    RESAMPLES,
    Difference,
    Measure,
    holm_adjust,
    paired,
    value_of,
    verdict,
)
from medclip.progress import progress

SEED = 0  # the same evaluations always get the same verdict
METHOD = (
    "95 % paired bootstrap of the difference and Fisher's randomization test, whole articles resampled and swapped "
    f"{RESAMPLES:,} times; p-values corrected by Holm"
)


@dataclass(frozen=True)
class Against:
    """A figure of another evaluation held against the baseline's."""

    found: Difference
    corrected: float
    """The p-value, by Holm, for all figures and evaluations that are compared at once."""
    verdict: str
    """"better", "worse" or "within noise"."""


@dataclass(frozen=True)
class Row:
    """A figure that every evaluation has."""

    measure: str
    name: str
    figures: tuple[Figure, ...]
    """Of each evaluation."""
    kind: Measure | None = None
    """How it is made of the values of the items; None: it is not, and so only shown."""
    against: tuple[Against, ...] = ()
    """Of each evaluation but the first."""


@dataclass(frozen=True)
class Comparison:
    """Evaluations and the figures they share."""

    evaluations: tuple[Evaluation, ...]
    rows: tuple[Row, ...]
    """Those with a verdict first."""
    notes: tuple[str, ...]
    """What could not be compared, or is not quite the same."""


def compare(folders: Sequence[Path], chosen: Sequence[str] = ()) -> Comparison:
    """Compare evaluations of the same items, the first being the baseline.

    `chosen` are the figures to compare, by their names or the last parts of them ("R@10"); none: all that are made of
    values of items. UserError where the folders hold no evaluations, or none of the same items.
    """
    if len(folders) < 2:
        raise UserError("give two evaluations or more: folders that medclip evaluate wrote with --out.")
    evaluations = read_evaluations(folders)
    shared = [measure for measure in evaluations[0].results if all(measure in one.results for one in evaluations)]
    if not shared:
        held = "; ".join(f"{one.name}: {', '.join(one.results)}" for one in evaluations)
        raise UserError(f"these evaluations have no measure in common ({held}).")
    work = [
        (measure, column, kinds)
        for measure in shared
        for column in columns(measure, evaluations)
        if (kinds := _kinds(column, evaluations[0].results[measure], chosen))
    ]
    for one in chosen:
        if not any(chosen_by(name, [one]) for *_, kinds in work for name in kinds):
            raise UserError(f"no figure of single items is named {one!r} in all of these evaluations.")
    drawn = []
    with progress("compare", len(work), "columns") as advance:
        for measure, column, kinds in work:
            first, *others = column.values
            found = [paired(first, other, column.articles, column.classes, [*kinds.values()], SEED) for other in others]
            drawn += [(measure, name, kind, of) for (name, kind), *of in zip(kinds.items(), *found, strict=True)]
            advance()
    corrected = iter(holm_adjust([one.p for *_, of in drawn for one in of]))
    rows = [
        Row(measure, name, _values(measure, name, of, evaluations), kind, tuple(_against(kind, of, corrected)))
        for measure, name, kind, of in drawn
    ]
    notes = [note for measure in shared for note in not_quite_the_same(measure, evaluations)]
    return Comparison(evaluations, (*rows, *_alone(shared, evaluations, rows)), (*_missing(evaluations), *notes))


def chosen_by(name: str, chosen: Sequence[str]) -> bool:
    """Whether a figure is among those chosen: by its whole name or the last parts of it, spaces aside."""
    own = "/" + name.replace(" ", "")
    return any(own.endswith("/" + one.replace(" ", "")) for one in chosen)


def regressions(comparison: Comparison, below: float, chosen: Sequence[str] = ()) -> list[str]:
    """A sentence for each figure that fell by more than `below` (a share: 0.01 is a point), beyond noise.

    Beyond noise: the whole interval of the difference lies below −`below`, and p without correction is at most 0.05, as
    these are few and named beforehand. Judged by are the figures `chosen`; none: R@10 of the whole pool and shares of
    right answers.
    UserError where one is no share, or what the baseline has to judge by is absent elsewhere: that must not pass.
    """
    if not 0 <= below < 1:
        raise UserError(f"--max-regression {below:g} is no share: 0.01 is one point of a hundred.")
    first, *others = comparison.evaluations
    if lost := [what for one in others for what in _lost(first, one, chosen)]:
        raise UserError(f"--max-regression cannot judge what is absent: {', '.join(lost)}. Evaluate both alike.")
    gated = [row for row in comparison.rows if row.kind and (chosen or row.kind.main)]
    if not gated:
        raise UserError("--max-regression finds neither R@10 nor shares of right answers: name others with --metric.")
    if wrong := [row.name for row in gated if not is_share(row.name)]:
        raise UserError(f"--max-regression is of shares, and {wrong[0]} is none: choose others with --metric.")
    return [
        f"{row.name} of {other.name} is {one.found.value:.1%} where {first.name} has {one.found.baseline:.1%}: "
        f"{100 * one.found.difference:+.1f} points (95 % interval {100 * one.found.low:+.1f} to "
        f"{100 * one.found.high:+.1f}), a fall by more than {100 * below:g}."
        for row in gated
        for other, one in zip(others, row.against, strict=True)
        if one.found.high < -below and one.found.p <= LEVEL
    ]


def form_difference(row: Row, one: Against) -> str:
    """A difference and its interval, for people: points of a hundred, a factor, or ranks."""
    values = (one.found.difference, one.found.low, one.found.high)
    if row.kind and row.kind.ratio:
        value, low, high = (f"{of:.2f}" for of in values)
        return f"× {value} ({low} to {high})"
    value, low, high = (f"{100 * of if is_share(row.name) else of:+.1f}".replace("-", "−") for of in values)
    return f"{value} ({low} to {high})"


def form_p(one: Against) -> str:
    """The corrected p-value, for people."""
    return f"{one.corrected:.3f}" if one.corrected >= 0.001 else "<0.001"


def as_json(comparison: Comparison) -> dict[str, Any]:
    """The comparison for programs; differences are value − baseline, or value / baseline where `ratio` says so."""
    return {
        "method": METHOD,
        "evaluations": [{"name": one.name, "results": one.results} for one in comparison.evaluations],
        "notes": comparison.notes,
        "figures": [
            {
                "measure": row.measure,
                "figure": row.name,
                "values": row.figures,
                **({"ratio": row.kind.ratio, "lower_is_better": row.kind.lower_is_better} if row.kind else {}),
                "against": [
                    asdict(one.found) | {"p_holm": one.corrected, "verdict": one.verdict} for one in row.against
                ],
            }
            for row in comparison.rows
        ],
    }


def _kinds(column: Column, said: Mapping[str, Any], chosen: Sequence[str]) -> dict[str, Measure]:
    """What is made of a column, by the name that the figure has in the results file; see `results.write_results`."""
    known, found = figures(said), {}
    for path, kind in _candidates(column):
        name, value = name_of(path), value_of(kind, column.values[0], column.classes)
        ends = [one for one in known if f" / {one}".endswith(f" / {name}")]
        same = [one for one in ends if known[one]["value"] is not None and abs(known[one]["value"] - value) < 1e-9]
        if same or column.name.startswith("rank_"):
            found[same[0] if same else name] = kind
    return {name: kind for name, kind in found.items() if not chosen or chosen_by(name, chosen)}


def _candidates(column: Column) -> Iterator[tuple[tuple[str, ...], Measure]]:
    """Figures that a column may be the items of, and how they are made of it.

    Ranks are judged in full once; in other pools and under corruptions by R@10 alone, lest most figures be of them.
    """
    stem, _, rest = column.name.partition("_")
    if stem == "rank":
        kinds = (RANKED_AGAIN,) if column.part or " / " in rest else RANKS
        yield from (((*column.part, rest, kind.name), kind) for kind in kinds)
    elif stem == "correct":
        of = (*column.part, rest) if rest else column.part
        yield (*of, "accuracy"), MEAN
        yield (*of, "balanced_accuracy"), BALANCED
    elif not column.part:
        yield (column.name,), MEAN


def _against(kind: Measure, found: Sequence[Difference], corrected: Iterator[float]) -> Iterator[Against]:
    for one in found:
        p = next(corrected)
        yield Against(one, p, verdict(kind, one, p))


def _values(
    measure: str, name: str, found: Sequence[Difference], evaluations: Sequence[Evaluation]
) -> tuple[Figure, ...]:
    """Those of the results files where they are there, since they have intervals of their own."""
    own = [found[0].baseline, *(one.value for one in found)]
    said = (figures(one.results[measure]).get(name) for one in evaluations)
    return tuple(of or {"value": value, "low": None, "high": None} for of, value in zip(said, own, strict=True))


def _alone(shared: Sequence[str], evaluations: Sequence[Evaluation], rows: Sequence[Row]) -> Iterator[Row]:
    """Figures of all results files that are not made of values of items."""
    done = {(row.measure, row.name) for row in rows}
    for measure in shared:
        said = [figures(one.results[measure]) for one in evaluations]
        for name in said[0]:
            if (measure, name) not in done and all(name in of for of in said):
                yield Row(measure, name, tuple(of[name] for of in said))


def _lost(first: Evaluation, other: Evaluation, chosen: Sequence[str]) -> Iterator[str]:
    """What the first evaluation judged and the other did not, in measures that have any of the figures chosen."""
    for measure, items in first.items.items():
        if chosen and not any(chosen_by(name, chosen) for name in figures(first.results[measure])):
            continue
        if measure not in other.items:
            yield f"{measure} of {other.name}"
        else:
            yield from (f"{name} of {other.name}" for name in judged(items) if name not in judged(other.items[measure]))


def _missing(evaluations: Sequence[Evaluation]) -> Iterator[str]:
    for measure in dict.fromkeys(measure for one in evaluations for measure in one.results):
        held = [one.name for one in evaluations if measure in one.results]
        if len(held) < len(evaluations):
            yield f"{measure} is only in {', '.join(held)}"
