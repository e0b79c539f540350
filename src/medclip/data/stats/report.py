"""DATA/report.html: what to look at in a dataset before training on it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple
from itertools import cycle, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Num
from markupsafe import Markup

from medclip import html_page
from medclip.data.dataset import Split
from medclip.data.images import decode
from medclip.data.leakage import MATCH_KINDS
from medclip.data.stats.keyword_labels import KINDS
from medclip.data.stats.quality_checks import quality_warnings
from medclip.data.stats.statistics import (
    CONTEXT_LENGTH,
    LIST_COLUMNS,
    MAX_NEAR_PAIRS,
    TOKENS_PER_CHARACTER,
    Overlap,
    SplitStatistics,
    Statistics,
    compute_statistics,
    open_splits,
    summarize,
)
from medclip.errors import ImageError
from medclip.html_page import write_page

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

IMAGES_PER_SPLIT = 12
MAX_TABLE_ROWS = 20
_ARTICLE = re.compile(r"PMC\d+")
_ARTICLE_SIZES = {"1": 1, "2": 2, "3": 3, "4–5": 5, "6–10": 10, "11–100": 100, "over 100": np.inf}
"""Upper ends of the bins of pairs per article."""
_TOKEN_BINS = np.arange(0, 165, 5)
_MAX_LOG_RATIO = 1.99  # of width over height, in powers of two; the outer bars hold all beyond


def write_report(data: Path, seed: int = 0, near_images: bool = True) -> Statistics:
    """Write `report.html` into the dataset `data`, with images sampled by `seed`; returns the statistics of the page.

    Near images cost a second decoding of every image.
    """
    stats = compute_statistics(data, near_images)
    write_page(data / "report.html", render_report(data, stats, seed))
    return stats


def render_report(data: Path, stats: Statistics, seed: int = 0) -> str:
    """The page as HTML."""
    opened = open_splits(data)
    splits = list(stats.splits.values())
    pairs = [split.pairs for split in splits]

    def top(counters: Iterable[Counter[str]]) -> list[Any]:
        return html_page.shares(list(counters), pairs, MAX_TABLE_ROWS)

    label_names = sorted({name for split in splits for name in split.labels})
    return html_page.render(
        "dataset.html",
        stats=stats,
        warnings=quality_warnings(stats),
        context_length=CONTEXT_LENGTH,
        tokens_per_character=TOKENS_PER_CHARACTER,
        max_near_pairs=MAX_NEAR_PAIRS,
        splits=list(stats.splits),
        pairs=pairs,
        rows=list(_source_rows(stats)),
        caption_sizes=_summary_rows(stats, ("tokens", "words", "characters")),
        image_sizes=_summary_rows(stats, ("width", "height", "shorter_side")),
        length_histogram=_length_histogram(stats),
        aspect_histogram=_aspect_histogram(stats),
        caption_issues=top(split.caption_issues for split in splits),
        counts={name: top(split.counts[name] for split in splits) for name in ("license", "source", *LIST_COLUMNS)},
        labels={name: top(split.labels.get(name, Counter()) for split in splits) for name in label_names},
        keyword_labels={kind: top(split.keyword_labels.get(kind, Counter()) for split in splits) for kind in KINDS},
        articles=_article_rows(stats),
        article_counts=[len(split.numbers["pairs_per_article"]) for split in splits],
        templates=[
            (name, template.position, template.text, template.pairs)
            for name, split in stats.splits.items()
            for template in split.templates[:MAX_TABLE_ROWS]
        ],
        overlaps=[_overlap_row(overlap) for overlap in stats.overlaps],
        dropped=sum(n for reasons in stats.dataset["dropped"].values() for n in reasons.values()),
        overlap_examples=list(_overlap_examples(opened, stats)),
        samples={name: list(_sample_pairs(split, seed)) for name, split in opened.items()},
        seed=seed,
    )


def _overlap_row(overlap: Overlap) -> list[str]:
    """A row of the table; a dash where nothing was compared."""
    other = "earlier pairs of its own" if overlap.split == overlap.other else overlap.other
    return [overlap.split, other, *(html_page.number(overlap.counts.get(kind)) for kind in (*MATCH_KINDS, "any"))]


def _source_rows(stats: Statistics) -> Iterator[list[str]]:
    """Rows of the source: pairs, then dropped rows by reason, captions by rule, removed attributes."""
    yield ["pairs", *(html_page.number(split.pairs) for split in stats.splits.values())]
    for key, title in (("dropped", "dropped"), ("caption_rules", "caption rule"), ("privacy", "privacy")):
        by_split = stats.dataset.get(key, {})
        for reason in sorted({reason for counts in by_split.values() for reason in counts}):
            counts = (by_split.get(name, {}).get(reason, 0) for name in stats.splits)
            yield [f"{title}: {reason}", *map(html_page.number, counts)]


def _summary_rows(stats: Statistics, columns: Sequence[str]) -> list[list[str]]:
    """A row for each column of numbers and split: min, p5, median, p95, max, mean."""
    return [
        [f"{column.replace('_', ' ')}, {name}", *map(html_page.number, astuple(summary))]
        for column in columns
        for name, split in stats.splits.items()
        if (summary := summarize(split.numbers[column]))
    ]


def _article_rows(stats: Statistics) -> list[Any]:
    """Articles by their number of pairs, as of `html_page.shares`."""
    names, upper_ends = list(_ARTICLE_SIZES), list(_ARTICLE_SIZES.values())
    sizes = [split.numbers["pairs_per_article"] for split in stats.splits.values()]
    counts = [Counter(names[i] for i in np.searchsorted(upper_ends, values)) for values in sizes]
    rows = html_page.shares(counts, list(map(len, sizes)), len(names))
    return sorted(rows, key=lambda row: names.index(row[0]))


def _length_histogram(stats: Statistics) -> Markup:
    """Caption lengths in tokens."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        _draw_steps(axes, stats, _TOKEN_BINS, lambda split: np.minimum(split.numbers["tokens"], _TOKEN_BINS[-1] - 1))
        axes.axvline(CONTEXT_LENGTH, ls=":", c=html_page.INK, lw=1)
        axes.annotate(f" {CONTEXT_LENGTH}: CLIP's limit", (CONTEXT_LENGTH, 0.9), xycoords=("data", "axes fraction"))
        axes.set(xlabel="tokens (estimated); the last bar holds all longer ones")

    medians = ", ".join(
        f"{name} {np.median(split.numbers['tokens']):.0f}" for name, split in stats.splits.items() if split.pairs
    )
    return html_page.figure(
        draw, f"Histogram of caption lengths in estimated tokens; medians: {medians or 'no pairs'}."
    )


def _aspect_histogram(stats: Statistics) -> Markup:
    """Aspect ratios of the images."""

    def log_ratio(split: SplitStatistics) -> np.ndarray:
        ratios = np.log2(split.numbers["width"] / split.numbers["height"])
        return np.clip(ratios, -_MAX_LOG_RATIO, _MAX_LOG_RATIO)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        _draw_steps(axes, stats, np.linspace(-2, 2, 41), log_ratio)
        axes.set(xlabel="width : height; the outer bars hold all beyond")
        ticks = {"1:4": 1 / 4, "1:2": 1 / 2, "3:4": 3 / 4, "1:1": 1, "4:3": 4 / 3, "2:1": 2, "4:1": 4}
        axes.set_xticks(np.log2(list(ticks.values())), list(ticks))

    return html_page.figure(draw, "Histogram of the images' width over height.", (9, 2.6))


def _draw_steps(
    axes: Axes, stats: Statistics, bins: Num[np.ndarray, " n"], values: Callable[[SplitStatistics], np.ndarray]
) -> None:
    """A histogram line for each split with pairs, in percent of the split."""
    splits = {name: split for name, split in stats.splits.items() if split.pairs}
    styles = cycle(product(("-", "--", ":"), html_page.SERIES))
    for (name, split), (line, color) in zip(splits.items(), styles, strict=False):
        weights = np.full(split.pairs, 100 / split.pairs)
        axes.hist(
            values(split), bins.tolist(), weights=weights, histtype="step", color=color, ls=line, lw=1.8, label=name
        )
    axes.set(ylabel="% of the split")
    if splits:
        axes.legend()


def _sample_pairs(split: Split, seed: int) -> Iterator[dict[str, str]]:
    """A random sample of a split, the same for the same seed."""
    rows = np.random.default_rng(seed).choice(len(split), min(IMAGES_PER_SPLIT, len(split)), replace=False)
    return (_page_pair(split, int(row)) for row in sorted(rows))


def _overlap_examples(opened: Mapping[str, Split], stats: Statistics) -> Iterator[dict[str, Any]]:
    """Pairs that share something, side by side."""
    for overlap in stats.overlaps:
        for row, other_row, kind in overlap.examples:
            both = [
                _page_pair(opened[overlap.split], row) | {"split": overlap.split},
                _page_pair(opened[overlap.other], other_row) | {"split": overlap.other},
            ]
            yield {"kind": kind, "both": both}


def _page_pair(split: Split, row: int) -> dict[str, str]:
    """A pair on the page; `image` is a data: address, or "" where the image cannot be read."""
    columns = ("id", "caption", "article", "license", "attribution")
    pair = {name: split.table.column(name)[row].as_py() for name in columns}
    try:
        image = html_page.thumbnail(decode(split.image(row)))
    except ImageError:
        image = ""
    article = pair["article"]
    link = f"https://pmc.ncbi.nlm.nih.gov/articles/{article}/" if _ARTICLE.fullmatch(article) else ""
    return pair | {"image": image, "link": link}
