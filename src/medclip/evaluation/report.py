"""The page of all evaluations in a folder, DIR/report.html, and the page of a comparison."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from markupsafe import Markup

from medclip import NOT_CLINICAL, html_page
from medclip.errors import UserError
from medclip.evaluation import charts
from medclip.evaluation.compare import METHOD, Comparison, read_evaluations
from medclip.evaluation.result_tables import (
    Cell,
    Table,
    comparison_tables,
    origin_notes,
    result_notes,
    result_tables,
    side_by_side,
)
from medclip.evaluation.results import Kind, Results
from medclip.evaluation.significance import Verdict
from medclip.html_page import write_page
from medclip.metrics import DIRECTIONS, KS
from medclip.named_metrics import Metric, format_interval, format_value, metric_name, to_words

TITLES: dict[Kind, tuple[str, str]] = {
    Kind.RETRIEVAL: ("Retrieval", "How well captions find their images, and images their captions."),
    Kind.ZERO_SHOT: ("Zero-shot classes", "Classes recognized by their names alone, without training on them."),
    Kind.PROBE: ("Frozen features", "What simple classifiers can learn from the image features of the model as it is."),
    Kind.COMPOSITIONALITY: (
        "Compositionality",
        "How often an image prefers its own caption over the same one changed in a single thing.",
    ),
    Kind.ROBUSTNESS: ("Robustness", "How retrieval falls when images are corrupted."),
}
ORIGIN = {
    "data": "data",
    "split": "split",
    "synthetic": "synthetic",
    "data_sha256": "SHA-256 of images and captions",
    "embeddings_sha256": "SHA-256 of the embeddings' files",
    "model": "SHA-256 of the model: its weights, config, image processor and tokenizer",
    "contamination": "was the model trained on the data's source",
    "contamination_reason": "how that is known",
    "seed": "seed",
    "ci_method": "intervals",
    "medclip_version": "medclip",
    "commit": "commit of its source",
}
"""Fields of the provenance on a page, and their titles."""
COUNTS = {"num_candidates": "candidates", "num_images": "images"}
MIN_ROWS = 3  # fewer are not worth a chart
MAX_CARDS = 4  # of one evaluation


def write_report(folder: Path) -> Path:
    """Write `report.html` beside the results in `folder`; returns its path. UserError where there are none.

    UserError too for results that lack a number or a fact of their kind.
    """
    (evaluation,) = read_evaluations([folder])
    path = folder / "report.html"
    try:
        page = report(evaluation.results)
    except LookupError as error:
        raise UserError(f"{folder} holds results that lack {error}. Evaluate again.") from None
    write_page(path, page)
    return path


def report(evaluations: Mapping[Kind, Results]) -> str:
    """The page of evaluations as HTML."""
    provenances = [results.provenance for results in evaluations.values()]
    subjects = (f"{origin.data or 'embeddings'}, split {origin.split or 'none'}" for origin in provenances)
    return html_page.render(
        "evaluation.html",
        subject=" and ".join(dict.fromkeys(subjects)),
        synthetic=any(origin.synthetic for origin in provenances),
        models=len({origin.model for origin in provenances}),
        origin=list(_origin(evaluations)),
        cards=[_card(results, name) for results in evaluations.values() for name in _headline(results)],
        sections=[_section(results) for results in evaluations.values()],
    )


def results_summary(results: Results) -> str:
    """The main tables of an evaluation and the notes below them as HTML, for a notebook."""
    tables = [table for table in result_tables(results) if not table.details]
    return _summary(tables, [*result_notes(results), *origin_notes(results.provenance)])


def comparison_summary(comparison: Comparison) -> str:
    """The tables of a comparison and its notes as HTML, for a notebook."""
    tables = [table for kind in comparison.compared_kinds for table in comparison_tables(comparison, kind)]
    return _summary(tables, [*comparison.notes, f"{METHOD}. {NOT_CLINICAL}"])


def _summary(tables: Sequence[Table], notes: Sequence[str]) -> str:
    return html_page.render("summary.html", tables=list(map(_to_html, tables)), notes=notes)


def write_comparison(comparison: Comparison, path: Path, regressions: Sequence[str] = ()) -> None:
    """Write the page of a comparison to `path`, with the sentences of `Comparison.regressions` at its top."""
    write_page(path, comparison_page(comparison, regressions))


def comparison_page(comparison: Comparison, regressions: Sequence[str] = ()) -> str:
    """The page of a comparison as HTML."""
    names = [evaluation.name for evaluation in comparison.evaluations]
    origins = [dict(_origin(evaluation.results)) for evaluation in comparison.evaluations]
    return html_page.render(
        "comparison.html",
        baseline=names[0],
        others=names[1:],
        names=names,
        synthetic=any(r.provenance.synthetic for e in comparison.evaluations for r in e.results.values()),
        notes=comparison.notes,
        regressions=regressions,
        summary={name: _verdict_counts(comparison, i) for i, name in enumerate(names[1:])},
        compared=[
            (
                TITLES[kind][0],
                _difference_chart(comparison, kind),
                list(map(_to_html, comparison_tables(comparison, kind))),
            )
            for kind in comparison.compared_kinds
        ],
        alone=_to_html(side_by_side(comparison)),
        origin=[
            [title, *(_shorten_hash(origin.get(title, "–")) for origin in origins)]
            for title in dict.fromkeys(title for origin in origins for title in origin)
        ],
        method=METHOD,
    )


def _to_html(table: Table) -> Table:
    """The table with its cells as HTML."""
    return replace(table, rows=[[_cell(cell) for cell in row] for row in table.rows])


def _cell(cell: Cell) -> str:
    """A cell of a table as HTML."""
    if isinstance(cell, Metric):
        return Markup("{} <small>{}</small>").format(format_value(cell, cell.value), format_interval(cell))
    if isinstance(cell, Verdict):
        return Markup('<span class="{}">{}</span>').format(cell.split()[0], cell)
    return cell


def _origin(evaluations: Mapping[Kind, Results]) -> Iterator[tuple[str, str]]:
    """Titles and values of provenance and counts; a value that differs between evaluations is given for each kind."""
    columns: dict[str, dict[Kind, str]] = {title: {} for title in (*ORIGIN.values(), *COUNTS.values())}
    for kind, results in evaluations.items():
        values = {title: getattr(results.provenance, field) for field, title in ORIGIN.items()}
        values |= {title: results.facts.get(name) for name, title in COUNTS.items()}
        for title, value in values.items():
            if value not in (None, ()):
                columns[title][kind] = _to_text(value)
    for title, by_kind in columns.items():
        if len(by_kind) == len(evaluations) and len(set(by_kind.values())) == 1:
            yield title, next(iter(by_kind.values()))
        elif by_kind:
            yield title, "; ".join(f"{kind}: {value}" for kind, value in by_kind.items())


def _to_text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(value) if isinstance(value, tuple) else f"{value:,}" if isinstance(value, int) else str(value)


def _headline(results: Results) -> list[str]:
    """The metrics that a model is judged by first."""
    if results.kind == Kind.COMPOSITIONALITY:
        return [metric.name for metric in results.metrics][:MAX_CARDS]
    names = {
        Kind.RETRIEVAL: [metric_name(direction, "R@10") for direction in DIRECTIONS],
        Kind.ZERO_SHOT: ["balanced_accuracy", "auroc"],
        Kind.PROBE: ["logistic_regression/balanced_accuracy", "nearest_neighbors/balanced_accuracy"],
        Kind.ROBUSTNESS: ["clean/R@10"],
    }
    measured = {metric.name for metric in results.metrics}
    return [name for name in names[results.kind] if name in measured]


def _card(results: Results, name: str) -> tuple[str, str, str]:
    metric = results[name]
    title = to_words(name) if "/" in name else f"{results.kind} · {to_words(name)}"
    return format_value(metric, metric.value), format_interval(metric), title


def _section(results: Results) -> dict[str, Any]:
    title, description = TITLES[results.kind]
    return {
        "title": title,
        "description": description,
        "tables": list(map(_to_html, result_tables(results))),
        "charts": list(_charts(results)),
        "confusion_matrices": results.confusion_matrices,
        "notes": result_notes(results),
    }


def _charts(results: Results) -> Iterator[Markup]:
    """The charts that a kind of evaluation calls for."""
    if results.kind == Kind.RETRIEVAL:
        names = [f"R@{k}" for k in KS]
        yield charts.recalls({to_words(d): {n: m for n in names if (m := results.get(d, n))} for d in DIRECTIONS})
        for kind in results.below("by_group"):
            groups = results.below("by_group", kind, "groups")
            yield from _dots(
                f"R@10 by {to_words(kind)}",
                {
                    to_words(d): {g: results.get("by_group", kind, "groups", g, d, "R@10") for g in groups}
                    for d in DIRECTIONS
                },
            )
    elif results.kind == Kind.COMPOSITIONALITY:
        accuracies = {test: results.get("tests", test, "accuracy") for test in results.below("tests")}
        yield from _dots("accuracy", {"model": accuracies})
    elif results.kind == Kind.ROBUSTNESS:
        panels = {name: {0.0: results["clean/R@10"]} for name in results.below("corruptions")}
        for name, panel in panels.items():
            for severity in results.below("corruptions", name):
                if severity.isdecimal() and (metric := results.get("corruptions", name, severity, "R@10")):
                    panel[float(severity)] = metric
        yield charts.small_multiples("R@10", panels, "severity")
    else:
        yield from _class_charts(results)


def _class_charts(results: Results) -> Iterator[Markup]:
    path = ("logistic_regression",) if results.kind == Kind.PROBE else ()
    labels = results.below(*path, "classes")
    yield from _dots("AUROC", {"model": {label: results.get(*path, "classes", label, "auroc") for label in labels}})
    if results.reliability_curves:
        yield charts.reliability(results.reliability_curves)
    shots = [shots for shots in results.below("few_shot") if shots.isdecimal()]
    series = {
        title: {float(n): m for n in shots if (m := results.get(*above, "few_shot", n, "balanced_accuracy"))}
        for title, above in (("model", ()), ("random weights", ("random_weights",)))
    }
    if series["model"]:
        yield charts.lines("balanced accuracy", {t: line for t, line in series.items() if line}, "images a class")


def _dots(title: str, series: Mapping[str, Mapping[str, Metric | None]]) -> Iterator[Markup]:
    """A chart of the defined metrics, where these are enough to be worth one."""
    defined = {
        label: {row: metric for row, metric in metrics.items() if metric and metric.value is not None}
        for label, metrics in series.items()
    }
    if all(len(metrics) >= MIN_ROWS for metrics in defined.values()):
        yield charts.dots(title, defined)


def _verdict_counts(comparison: Comparison, i: int) -> dict[str, int]:
    counts = Counter(row.contrasts[i].verdict for row in comparison.rows if row.contrasts)
    return {str(verdict): counts[verdict] for verdict in Verdict}


def _difference_chart(comparison: Comparison, kind: Kind) -> Markup | None:
    """Differences in points: of R@10 and accuracies, or of all shares where none of these is compared."""
    shares = [r for r in comparison.rows if r.kind == kind and r.contrasts and r.metrics[0].is_share]
    first = [row for row in shares if row.metrics[0].statistic in ("mean", "mean_over_classes", "R@10")]
    names = [evaluation.name for evaluation in comparison.evaluations[1:]]
    return charts.differences(first or shares, names) if shares else None


def _shorten_hash(text: str) -> str:
    """A hash by its beginning; all else as it is."""
    return f"{text[:12]}…" if len(text) > 40 and " " not in text else text
