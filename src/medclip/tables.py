"""What commands print at their end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from medclip import NOT_CLINICAL
from medclip.data.pairs import Dropped

if TYPE_CHECKING:
    from medclip.data.survey.advice import Advice
    from medclip.data.survey.statistics import Statistics
    from medclip.evaluate.compare import Comparison
    from medclip.info import RunInfo
    from medclip.search.index import Hit

_out = Console()
_VERDICTS = {"better": "green", "worse": "red"}


def show_dataset(dataset: dict[str, Any], out: Path) -> None:
    """Counts of a prepared data set, dropped rows by reason."""
    reasons = sorted({reason for counts in dataset["dropped"].values() for reason in counts})
    table = Table("split", "pairs", *reasons, title=f"{out}" + (" (synthetic)" if dataset["synthetic"] else ""))
    for split, about in dataset["splits"].items():
        dropped = dataset["dropped"].get(split, {})
        table.add_row(split, str(about["pairs"]), *(str(dropped.get(reason, 0)) for reason in reasons))
    _out.print(table)
    if reasons:
        _out.print(f"every dropped row, with its reason: {out / 'dropped.jsonl'}")
    removed = sum(map(Counter, dataset.get("privacy", {}).values()), Counter())
    if removed:
        said = ", ".join(f"{what} {count}" for what, count in removed.most_common())
        _out.print(f"left behind, in so many pairs: {said}", highlight=False)


def show_statistics(about: Statistics, warnings: Sequence[Advice]) -> None:
    """The main numbers of a data set, and what to know before training on it."""
    table = Table("", *about.splits, title=str(about.dataset["source"]))
    splits = about.splits.values()
    dropped = about.dataset.get("dropped", {})
    table.add_row("pairs", *(f"{split.pairs:,}" for split in splits))
    table.add_row("rows dropped", *(f"{sum(dropped.get(name, {}).values()):,}" for name in about.splits))
    table.add_row("articles", *(f"{len(split.numbers['pairs per article']):,}" for split in splits))
    for name in ("words", "tokens", "shorter side"):
        values = [split.numbers[name] for split in splits]
        said = (f"{np.median(of):.0f} ({np.percentile(of, 95):.0f})" if len(of) else "–" for of in values)
        table.add_row(f"{name}{' (estimated)' if name == 'tokens' else ''}, median (95 % below)", *said)
    for name in ("licence", "guessed modality", "guessed organ"):
        table.add_row(f"{name}, most frequent", *(Text(_most(split.counts[name], split.pairs)) for split in splits))
    _out.print(table)
    for one in warnings:
        places = "; ".join(f"{name} {n:,}{f' of {of:,} ({n / of:.1%})' if of else ''}" for name, n, of in one.places)
        _out.print(Text(f"! {one.what}{': ' if places else ''}{places}. {one.remedy}", "yellow"))


def _most(counter: Counter[str], pairs: int) -> str:
    return ", ".join(f"{value or 'unknown'} {n / pairs:.0%}" for value, n in counter.most_common(4) if n)


def show_preview(rows: Sequence[dict[str, Any] | Dropped]) -> None:
    """What would become of the first rows of a source."""
    table = Table("id", "split", "group", "picture", "caption", title="the first rows; nothing is written")
    for row in rows:
        if isinstance(row, Dropped):
            table.add_row(row.id, row.split, "", "", Text(f"dropped: {row.reason} {row.detail}".strip()))
        else:
            size = f"{row['width']} × {row['height']}"
            table.add_row(row["id"], row["split"], row["article"], size, Text(row["caption"]))
    _out.print(table)


def show_leakage(report: dict[str, Any]) -> None:
    """How many pairs of each held-out split share something with the training split."""
    held_out = report["held_out"]
    ways = next(iter(held_out.values()))["shared"]
    table = Table("held out", "pairs", *ways, "any", title=f"shared with {report['train']} training pairs")
    for name, about in held_out.items():
        counts = (*about["shared"].values(), about["any"])
        table.add_row(name, str(about["pairs"]), *(f"{n} ({n / about['pairs']:.1%})" for n in counts))
    _out.print(table)


def show_trained(summary: dict[str, Any], out: Path) -> None:
    """The evaluation of the model kept, after those of WiSE-FT where there are any."""
    best, names = summary["best"], ("R@1", "R@5", "R@10", "mean_recall")
    if summary["wise_ft"]:
        table = Table("share of the last weights", *names, title="weights between the first and the last (WiSE-FT)")
        for record in summary["wise_ft"]:
            table.add_row(f"{record['share']:.0%}", *(f"{record[name]:.1%}" for name in names))
        _out.print(table)
    kept = f"{best['share']:.0%} of the weights of step {best['step']}" if "share" in best else f"step {best['step']}"
    said = "  ".join(f"{name} {best[name]:.1%}" for name in names[:3])
    _out.print(f"kept {kept}: {said} (validation, both ways, pool of {best['pool']}); see {out}/curves.png")


def show_info(kind: str, about: Any, path: Path) -> None:
    """What a folder is and how it came to be."""
    if kind == "dataset":
        show_dataset(about, path)
    elif kind == "run":
        _show_run(about, path)
    else:
        _out.print(_of_two({"": kind, **about}, str(path)))


def _show_run(run: RunInfo, path: Path) -> None:
    data = {f"{split} pairs, SHA-256": digest[:12] for split, digest in run.data.items()}
    _out.print(_of_two(run.changed | data, f"{path}: settings that are not the defaults, and data"))
    names = [n for n in ("validation_loss", "R@1", "R@5", "R@10", "mean_recall") if run.evaluations]
    best = max(run.evaluations, key=lambda r: r["mean_recall"], default=None)
    table = Table("step", *names, "", title="validation, both ways")
    for record in run.evaluations:
        shares = (f"{record[name]:.1%}" for name in names[1:])
        table.add_row(str(record["step"]), f"{record[names[0]]:.3f}", *shares, "best" if record is best else "")
    _out.print(table)
    if run.speed:
        waited = run.speed["waiting"]
        _out.print(f"{run.speed['pairs_per_s']:,.0f} pairs/s and {waited:.0%} of the time waiting for data (medians)")
    if run.summary:
        show_trained(run.summary, path)
    else:
        said = f"not at its end: step {run.last} of {run.steps} was the last logged; its command with --resume goes on"
        _out.print(said)


def _of_two(values: Mapping[str, Any], title: str) -> Table:
    table = Table(title=title, show_header=False)
    for name, value in values.items():
        table.add_row(
            name, Text(f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value))
        )
    return table


def show_retrieval(results: dict[str, Any]) -> None:
    """Both directions with intervals, beside the pool and chance; below, other pools and measures, and worst groups."""
    title = f"{_what(results)}, pool of {results['pool']}"
    table = Table("measure", "text→image", "image→text", "chance", title=title)
    for name in results["text_to_image"]:
        _add_ways(table, name, results, name, results["chance"])
    table.add_section()
    apart, distinct = results["article_disjoint"], results["duplicate_aware"]
    _add_ways(table, "R@10, own article out", apart, "R@10", apart["chance"])
    _add_ways(table, "R@10, repeats as one", distinct, "R@10", distinct["text_to_image"]["chance"])
    if fixed := results.get("fixed_pool"):
        said = f"R@10, {fixed['draws']} pools of {fixed['pool']}"
        _add_ways(table, said, fixed, "R@10", fixed["chance"])
    if graded := results.get("concepts"):
        for name in ("nDCG@10", "mAP"):
            _add_ways(table, f"{name} by concepts", graded, name, graded["text_to_image"]["chance"])
    for kind, found in results["by_group"].items():
        group = found["groups"][found["worst"]]
        said = f"R@10, lowest {kind} of {len(found['groups'])}: {found['worst']} ({group['n']})"
        table.add_row(
            Text(said), *(_interval(group[f"{way} / R@10"], True) for way in ("text_to_image", "image_to_text"))
        )
    _out.print(table)
    if graded:
        _out.print(f"by concepts: {graded['queries']} of {results['pool']} pairs have any.")
    _out.print(Text(f"model saw this source: {results['saw_source']} ({results['saw_source_why']})."))
    _show_provenance(results)


def _add_ways(table: Table, title: str, figures: dict[str, Any], name: str, chance: dict[str, float]) -> None:
    """A row of one figure both ways."""
    share = not name.endswith("rank")
    ways = (_interval(figures[way][name], share) for way in ("text_to_image", "image_to_text"))
    table.add_row(title, *ways, f"{chance[name]:.1%}" if share else f"{chance[name]:.1f}")


def show_understanding(results: dict[str, Any]) -> None:
    """Each choice between a caption and a changed one, and what could not be asked."""
    table = Table("a caption changed in", "told from the true one", "chance", "captions", "ties", title=_what(results))
    for name, found in results["tests"].items():
        chosen = _interval(found["accuracy"], True)
        table.add_row(name, chosen, f"{results['chance']:.0%}", str(found["captions"]), str(found["ties"]))
    _out.print(table)
    for name, reason in results["left_out"].items():
        _out.print(f"left out: {name}, {reason}", highlight=False)
    _show_provenance(results)


def show_robustness(results: dict[str, Any]) -> None:
    """A row a corruption: what each severity takes from R@10, and the worst of all."""
    title = f"{_what(results)}, pool of {results['pool']}: points of R@10 (both ways) gained or lost"
    table = Table("pictures", "mild", "medium", "strong", "cosine", title=title)
    table.add_row("clean: R@10", _interval(results["clean"]["R@10"], True), "", "", _cosine(results["clean"]))
    for name, about in results["corruptions"].items():
        each = about["severities"]
        settings = about["settings"].format(", ".join(f"{one['setting']:g}" for one in each))
        points = ({end: 100 * value for end, value in one["change"].items()} for one in each)
        cells = ("{value:+.1f}\n({low:+.1f} to {high:+.1f})".format(**one) for one in points)
        table.add_row(f"{name}\n{settings}", *cells, _cosine(each[-1]))
    _out.print(table)
    _out.print(f"most is lost to: {results['worst']} (mean of the three); cosine: of true pairs, at the strongest")
    _show_provenance(results)


def show_comparison(comparison: Comparison) -> None:
    """Every figure that was compared, with its difference from the baseline and the verdict on it."""
    from medclip.evaluate.compare import METHOD, form_difference, form_p
    from medclip.evaluate.figures import form

    first, *others = (one.name for one in comparison.evaluations)
    header = [column for other in others for column in (other, "difference (95 % interval)", "p", "")]
    table = Table("figure", *map(escape, (first, *header)))
    for row in comparison.rows:
        if row.kind:
            cells = [row.name, form(row.name, row.figures[0]["value"])]
            for figure, one in zip(row.figures[1:], row.against, strict=True):
                cells += [form(row.name, figure["value"]), form_difference(row, one), form_p(one), one.verdict]
            table.add_row(*(Text(cell, _VERDICTS.get(cell, "")) for cell in cells))
    _out.print(table)
    for note in comparison.notes:
        _out.print(Text(f"! {note}.", "yellow"))
    alone = sum(not row.kind for row in comparison.rows)
    more = f"{alone} more figures stand side by side on the page (--out) and in the JSON. " if alone else ""
    _out.print(f"{more}{METHOD}. {NOT_CLINICAL}", highlight=False)


def show_hits(hits: Sequence[Hit]) -> None:
    """Hits, best first."""
    table = Table("score", "id", "caption")
    for hit in hits:
        table.add_row(f"{hit.score:.3f}", hit.id, Text(hit.caption))
    _out.print(table)


def _cosine(measured: dict[str, Any]) -> str:
    return f"{measured['cosine']['value']:.2f}"


def _what(results: dict[str, Any]) -> str:
    return f"{'synthetic phantoms' if results['synthetic'] else results['data']}, {results['split']}"


def _show_provenance(results: dict[str, Any]) -> None:
    model = f"model {results['model'][:12]}" if results["model"] else "vectors made elsewhere"
    _out.print(f"{results['interval']}; seed {results['seed']}; {model}. {NOT_CLINICAL}")


def _interval(measured: dict[str, float], share: bool) -> str:
    form = "{:.1%}" if share else "{:.1f}"
    value, low, high = (form.format(measured[key]) for key in ("value", "low", "high"))
    return f"{value} ({low}–{high})"
