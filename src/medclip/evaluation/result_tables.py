"""Tables of results: the rows that the pages and the terminal show, each kind of evaluation in its own layout."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from medclip.evaluation.classification_metrics import MACRO_METRICS
from medclip.evaluation.compare import Comparison, Contrast, Row
from medclip.evaluation.provenance import Provenance
from medclip.evaluation.results import Fact, Kind, Results
from medclip.evaluation.significance import Verdict
from medclip.metrics import DIRECTIONS
from medclip.named_metrics import Metric, format_value, metric_name, name_parts, percent, to_words

Cell = Metric | Verdict | str

_HEADS = [to_words(direction) for direction in DIRECTIONS]
_SUMMARY = "R@10"


@dataclass(frozen=True)
class Table:
    """Rows of cells under a header; the first cell of a row names it."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    details: bool = False
    """Of details, which pages show and a terminal does not."""


def result_tables(results: Results) -> list[Table]:
    """The tables of an evaluation; together they hold every metric."""
    layouts = {
        Kind.RETRIEVAL: _retrieval,
        Kind.ZERO_SHOT: _zero_shot,
        Kind.PROBE: _probe,
        Kind.COMPOSITIONALITY: _compositionality,
        Kind.ROBUSTNESS: _robustness,
    }
    return [table for table in layouts[results.kind](results) if table.rows]


def result_notes(results: Results) -> list[str]:
    """The sentences below the tables."""
    facts = results.facts
    excluded = [f"{reason} ({facts[metric_name('excluded', reason)]})" for reason in results.below("excluded")]
    notes = [f"Excluded: {'; '.join(excluded)}."] if excluded else []
    if "concepts/num_pairs" in facts:
        notes.append(f"By concepts: {facts['concepts/num_pairs']} of {facts['num_pairs']} pairs have any.")
    if "calibration/temperature" in facts:
        notes.append(f"Temperature {facts['calibration/temperature']:.3g}, fitted {facts['calibration/fitted']}.")
    if "split_sha256" in facts:
        notes.append(f"SHA-256 of the items' ids and labels: {facts['split_sha256']}.")
    if "few_shot_ci_method" in facts:
        notes.append(f"Few images a class: {facts['few_shot_ci_method']}.")
    if "worst" in facts:
        notes.append(f"Most is lost to {facts['worst']} (mean over severities); cosine: of true pairs.")
    return notes


def origin_notes(provenance: Provenance) -> list[str]:
    """How the numbers were made, in sentences."""
    answer = f"Model trained on this source: {provenance.contamination} ({provenance.contamination_reason})."
    model = f"model {provenance.model[:12]}" if provenance.model else "embeddings made elsewhere"
    return [answer, f"{provenance.ci_method}; seed {provenance.seed}; {model}. {provenance.notice}"]


def source(provenance: Provenance) -> str:
    """Name and split of the data."""
    if provenance.data is None:
        return "embeddings without a dataset"
    return f"{'synthetic phantoms' if provenance.synthetic else provenance.data}, {provenance.split}"


def comparison_tables(comparison: Comparison, kind: Kind) -> list[Table]:
    """A table for each evaluation but the first: the verdict, the difference and both values of every metric."""
    first, *others = (evaluation.name for evaluation in comparison.evaluations)
    rows = [row for row in comparison.rows if row.contrasts and row.kind == kind]
    header = ["metric", "verdict", "difference (95 % interval)", "p, corrected", first]
    return [
        Table(f"{kind}: {other} against {first}", [*header, other], [_contrast_cells(row, i) for row in rows])
        for i, other in enumerate(others)
    ]


def side_by_side(comparison: Comparison) -> Table:
    """The metrics that are not compared."""
    names = [evaluation.name for evaluation in comparison.evaluations]
    rows = [[f"{row.kind} · {to_words(row.name)}", *row.metrics] for row in comparison.rows if not row.contrasts]
    return Table("Side by side", ["", *names], rows, details=True)


def _contrast_cells(row: Row, i: int) -> list[Cell]:
    contrast = row.contrasts[i]
    p = f"{contrast.p_holm:.3f}" if contrast.p_holm >= 0.001 else "<0.001"
    difference = format_difference(row, contrast)
    return [to_words(row.name), contrast.verdict, difference, p, row.metrics[0], row.metrics[i + 1]]


def format_difference(row: Row, contrast: Contrast) -> str:
    """A difference and its interval, where it has one: points of a hundred, a factor, or ranks."""
    ends = (contrast.difference.difference, contrast.difference.low, contrast.difference.high)
    if row.statistic and row.statistic.ratio:
        value, low, high = (f"{end:.2f}" for end in ends)
        value = f"× {value}"
    else:
        scale = 100 if row.metrics[0].is_share else 1
        value, low, high = (f"{scale * end:+.1f}".replace("-", "−") for end in ends)
    return value if math.isnan(ends[1]) else f"{value} ({low} to {high})"


def _retrieval(results: Results) -> Iterator[Table]:
    yield _directions(results, f"Retrieval among {_candidates(results)}", ())
    yield Table("Other candidates and measures", ["", *_HEADS, "chance"], list(_retrieval_summary(results)))
    for name in ("article_disjoint", "fixed_pool", "concepts"):
        yield _directions(results, to_words(name).capitalize(), (name,), details=True)
    for kind in results.below("by_group"):
        path = ("by_group", kind, "groups")
        rows = [
            [group, _count(results, *path, group, "num_pairs"), *_both(results, _SUMMARY, *path, group)]
            for group in results.below(*path)
        ]
        yield Table(f"{_SUMMARY} by {to_words(kind)}", [to_words(kind), "pairs", *_HEADS], rows, details=True)
    for direction in DIRECTIONS:
        header = ["of the pair", "that of", "cosine of its own", "of the other"]
        rows = [
            [pair.id, pair.other, f"{pair.own_score:.3f}", f"{pair.other_score:.3f}"]
            for pair in results.misranked_pairs
            if pair.direction == direction
        ]
        yield Table(f"Most misranked pairs, {to_words(direction)}", header, rows, details=True)
    rows = [[image.id, image.other, f"{image.score:.3f}"] for image in results.nearest_images]
    yield Table("Nearest images", ["image", "its nearest", "cosine"], rows, details=True)


def _candidates(results: Results) -> str:
    """The pools of both directions: one count where they are as large."""
    images, captions = _count(results, "num_images"), _count(results, "num_captions")
    if images == captions:
        return f"{_count(results, 'num_candidates')} candidates"
    return f"{images} images and {captions} captions"


def _directions(results: Results, title: str, path: Sequence[str], details: bool = False) -> Table:
    """Every metric of both directions below a path."""
    names = results.below(*path, DIRECTIONS[0])
    rows = [[to_words(name), *both, _chance(both)] for name in names if (both := _both(results, name, *path))]
    return Table(title, ["", *_HEADS, "chance"], rows, details)


def _retrieval_summary(results: Results) -> Iterator[Sequence[Cell]]:
    for path in ("article_disjoint", "fixed_pool"):
        if both := _both(results, _SUMMARY, path):
            draws = f"{results.facts.get('fixed_pool/num_draws')} draws of {_count(results, path, 'num_candidates')}"
            yield [f"{_SUMMARY}, {draws if path == 'fixed_pool' else to_words(path)}", *both, _chance(both)]
    for name in ("nDCG@10", "mAP"):
        if both := _both(results, name, "concepts"):
            yield [f"{name}, {to_words('concepts')}", *both, _chance(both)]
    for kind in results.below("by_group"):
        path = ("by_group", kind, "groups")
        worst, groups = str(_fact(results, "by_group", kind, "worst")), results.below(*path)
        label = f"{_SUMMARY}, lowest {to_words(kind)} of {len(groups)}: {worst}"
        yield [f"{label} ({_count(results, *path, worst, 'num_pairs')})", *_both(results, _SUMMARY, *path, worst), ""]


def _zero_shot(results: Results) -> Iterator[Table]:
    protocols = results.below("protocols")
    yield _classifiers(results, {to_words(str(results.facts.get("protocol", "prompts"))): ()})
    cells = {name: [results.get("protocols", name, metric) or "–" for metric in MACRO_METRICS] for name in protocols}
    of_protocols = [[to_words(name), *metrics] for name, metrics in cells.items()]
    yield Table("Published protocols", ["by", *map(to_words, MACRO_METRICS)], of_protocols)
    yield from _classes(results, ())
    for metric in ("auroc", "f1"):
        by_class = [
            [name, *(results.get("protocols", protocol, "classes", name, metric) or "–" for protocol in protocols)]
            for name in results.below("classes")
            if any(results.get("protocols", protocol, "classes", name, metric) for protocol in protocols)
        ]
        header = ["class", *map(to_words, protocols)]
        yield Table(f"{to_words(metric)} of classes by protocol", header, by_class, details=True)
    errors = [[name, metric] for name in ("raw", "scaled") if (metric := results.get("calibration", name, "ece"))]
    bins = results.facts.get("calibration/num_bins")
    yield Table(f"Calibration error ({bins} bins)", ["probabilities", "calibration error"], errors)


def _probe(results: Results) -> Iterator[Table]:
    draws = results.facts["num_draws"]
    rows: dict[str, Sequence[str]] = {to_words(name): (name,) for name in ("logistic_regression", "nearest_neighbors")}
    rows |= {f"{shots} a class, {draws} draws": ("few_shot", shots) for shots in results.below("few_shot")}
    yield _classifiers(results, rows)
    yield from _classes(results, ("logistic_regression",))
    yield from _classes(results, ("random_weights", "logistic_regression"), details=True)


def _classifiers(results: Results, rows: dict[str, Sequence[str]]) -> Table:
    """Metrics of classifiers, named by the rows and found below the paths, beside random weights and guesses."""
    guess = percent(results.facts.get("majority/accuracy"))
    cells = [
        [
            label,
            to_words(name),
            metric,
            results.get("random_weights", *path, name) or "–",
            format_value(metric, metric.chance),
            guess if name == "accuracy" else "–",
        ]
        for label, path in rows.items()
        for name in MACRO_METRICS
        if (metric := results.get(*path, name))
    ]
    title = f"{results.facts['label']}: {_count(results, 'num_images')} images"
    return Table(title, ["by", "metric", "model", "random weights", "chance", "most frequent class"], cells)


def _classes(results: Results, path: Sequence[str], details: bool = False) -> Iterator[Table]:
    """Every class: how many images, how frequent, and its metrics."""
    rows = []
    labels = results.below(*path, "classes")
    known = results.below(*path, "classes", labels[0]) if labels else []
    names = [name for name in ("auroc", "f1") if name in known]
    has_prevalence = "prevalence" in known
    for label in labels:
        class_path = (*path, "classes", label)
        prevalence = [percent(_fact(results, *class_path, "prevalence"))] if has_prevalence else []
        metrics = [results.get(*class_path, name) or "–" for name in names]
        rows.append([label, _count(results, *class_path, "num_images"), *prevalence, *metrics])
    header = ["class", "images", *(["prevalence"] if has_prevalence else []), *map(to_words, names)]
    yield Table(f"Classes, {to_words(metric_name(*path))}" if path else "Classes", header, rows, details)


def _compositionality(results: Results) -> Iterator[Table]:
    rows = []
    for test in results.below("tests"):
        metric = results[metric_name("tests", test, "accuracy")]
        counts = [_count(results, "tests", test, name) for name in ("num_captions", "num_ties")]
        rows.append([test, metric, format_value(metric, metric.chance), *counts])
    yield Table(
        "Own caption preferred over a changed one", ["changed in", "accuracy", "chance", "captions", "ties"], rows
    )


def _robustness(results: Results) -> Iterator[Table]:
    summary: list[list[Cell]] = [["clean: R@10", results["clean/R@10"], "", "", results["clean/cosine"]]]
    names = (*(metric_name(direction, _SUMMARY) for direction in DIRECTIONS), _SUMMARY, "cosine")
    names += ("R@10_change", "cosine_change")
    details: list[list[Cell]] = [["clean", "", *(results.get("clean", *name_parts(name)) or "–" for name in names)]]
    for corruption in results.below("corruptions"):
        path = ("corruptions", corruption)
        template = str(_fact(results, *path, "settings"))
        settings = []
        changes: list[Cell] = []
        for severity in results.below(*path):
            if (setting := _fact(results, *path, severity, "setting")) is None:
                continue
            settings.append(f"{setting:g}")
            changes.append(results.get(*path, severity, "R@10_change") or "–")
            cells = (results.get(*path, severity, *name_parts(name)) or "–" for name in names)
            details.append([corruption, template.replace("{}", f"{setting:g}"), *cells])
        cosine = details[-1][2 + names.index("cosine")]
        summary.append([f"{corruption}, {template.replace('{}', ', '.join(settings))}", *changes, cosine])
    title = f"Change of R@10 (both directions) among {_count(results, 'num_candidates')} candidates"
    yield Table(title, ["images", "mild", "medium", "strong", "cosine, strong"], summary)
    yield Table("Corrupted images", ["images", "setting", *map(to_words, names)], details, details=True)


def _both(results: Results, name: str, *path: str) -> list[Metric]:
    """A metric below a path in both directions; empty where it was not measured."""
    return [metric for direction in DIRECTIONS if (metric := results.get(*path, direction, name))]


def _chance(metrics: Sequence[Metric]) -> str:
    """The chance of both directions, once where it is the same."""
    return ", ".join(dict.fromkeys(format_value(metric, metric.chance) for metric in metrics))


def _fact(results: Results, *path: str) -> Fact | None:
    return results.facts.get(metric_name(*path))


def _count(results: Results, *path: str) -> str:
    """A count at a path, for people; "" where there is none."""
    value = _fact(results, *path)
    if not isinstance(value, int | float):
        return ""
    return f"{value:,.0f}" if value == int(value) else f"{value:,.1f}"
