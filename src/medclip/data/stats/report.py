"""DATA/report.html: a dataset as a person should see it before training on it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from itertools import cycle, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from medclip import html_page
from medclip.atomic_io import whole_file
from medclip.data.dataset import Split
from medclip.data.images import decode
from medclip.data.leakage import MATCH_KINDS
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

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

IMAGES_PER_SPLIT = 12  # images of each split on the contact sheet
MAX_TABLE_ROWS = 20  # values a table lists
_ARTICLE = re.compile(r"PMC\d+")


def write_report(data: Path, seed: int = 0, near_images: bool = True) -> Statistics:
    """Write `report.html` into the dataset `data`, with images chosen by `seed`; returns what was counted for it.

    `near` is as of `statistics`: near images cost a second decoding of every image.
    """
    about = compute_statistics(data, near_images)
    with whole_file(data / "report.html") as partial:
        partial.write_text(render_report(data, about, seed), encoding="utf-8")
    return about


def render_report(data: Path, about: Statistics, seed: int = 0) -> str:
    """The page as HTML."""
    opened = open_splits(data)
    names = list(about.splits)
    pairs = [split.pairs for split in about.splits.values()]

    def table(of: str) -> list[Any]:
        return html_page.shares([split.counts[of] for split in about.splits.values()], pairs, MAX_TABLE_ROWS)

    labels = sorted({name for split in about.splits.values() for name in split.counts if name.startswith("label ")})
    return html_page.render(
        "dataset.html",
        about=about,
        advice=quality_warnings(about),
        context=CONTEXT_LENGTH,
        tokens_per_character=TOKENS_PER_CHARACTER,
        near_limit=MAX_NEAR_PAIRS,
        splits=names,
        pairs=pairs,
        rows=list(_rows(about)),
        caption_numbers=_spreads(about, ("tokens", "words", "characters")),
        picture_numbers=_spreads(about, ("width", "height", "shorter side")),
        lengths=_lengths(about),
        shapes=_shapes(about),
        odd=html_page.shares([split.caption_issues for split in about.splits.values()], pairs, MAX_TABLE_ROWS),
        counts={name: table(name) for name in ("license", "source", *LIST_COLUMNS)},
        guesses={name: table(f"guessed {name}") for name in ("modality", "organ")},
        labels={name.removeprefix("label "): table(name) for name in labels},
        articles=_articles(about),
        article_numbers=[len(split.numbers["pairs per article"]) for split in about.splits.values()],
        templates=[
            (name, *template) for name, split in about.splits.items() for template in split.templates[:MAX_TABLE_ROWS]
        ],
        shared=[_shared(overlap) for overlap in about.overlaps],
        dropped=sum(n for reasons in about.dataset.get("dropped", {}).values() for n in reasons.values()),
        twins=list(_twins(opened, about)),
        sheet={name: list(_sheet(split, seed)) for name, split in opened.items()},
        seed=seed,
    )


def _shared(overlap: Overlap) -> list[str]:
    """A row of the table; what was not looked for is a dash."""
    other = "earlier pairs of its own" if overlap.split == overlap.other else overlap.other
    return [overlap.split, other, *(html_page.number(overlap.counts.get(way)) for way in (*MATCH_KINDS, "any"))]


def _rows(about: Statistics) -> Iterator[list[str]]:
    """What became of the source's rows: pairs, then dropped rows by reason, then captions changed by rule."""
    said = about.dataset
    yield ["pairs", *(html_page.number(split.pairs) for split in about.splits.values())]
    for kind, title in (("dropped", "dropped: {}"), ("caption_rules", "caption rule: {}"), ("privacy", "privacy: {}")):
        of_split = said.get(kind, {})
        for what in sorted({what for counts in of_split.values() for what in counts}):
            yield [
                title.format(what),
                *(html_page.number(of_split.get(name, {}).get(what, 0)) for name in about.splits),
            ]


def _spreads(about: Statistics, names: Sequence[str]) -> list[list[str]]:
    """A row for each column of numbers and split: least, p5, median, p95, most, mean."""
    found = (
        (f"{name}, {split}", summarize(one.numbers[name])) for name in names for split, one in about.splits.items()
    )
    return [[title, *map(html_page.number, asdict(values).values())] for title, values in found if values is not None]


def _articles(about: Statistics) -> list[Any]:
    """Articles by how many pairs each has, as of `page.shares`."""
    steps = {"1": 1, "2": 2, "3": 3, "4–5": 5, "6–10": 10, "11–100": 100, "over 100": np.inf}
    sizes = [split.numbers["pairs per article"] for split in about.splits.values()]
    order, tops = list(steps), list(steps.values())
    counts = [Counter(order[place] for place in np.searchsorted(tops, of)) for of in sizes]
    rows = html_page.shares(counts, list(map(len, sizes)), len(steps))
    return sorted(rows, key=lambda row: order.index(row[0]))


def _lengths(about: Statistics) -> Markup:
    """How long captions are, in tokens."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        bins = np.arange(0, 165, 5)
        _steps(axes, about, bins, lambda split: np.minimum(split.numbers["tokens"], bins[-1] - 1))
        axes.axvline(CONTEXT_LENGTH, ls=":", c=html_page.INK, lw=1)
        axes.annotate(f" {CONTEXT_LENGTH}: CLIP's limit", (CONTEXT_LENGTH, 0.9), xycoords=("data", "axes fraction"))
        axes.set(xlabel="tokens (estimated); the last bar holds all that are longer")

    medians = ", ".join(
        f"{name} {np.median(split.numbers['tokens']):.0f}" for name, split in about.splits.items() if split.pairs
    )
    return html_page.figure(
        draw, f"Histogram of caption lengths in estimated tokens; medians: {medians or 'no pairs'}."
    )


def _shapes(about: Statistics) -> Markup:
    """How wide the images are for their height."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        edge = 1.99  # as powers of two
        _steps(axes, about, np.linspace(-2, 2, 41), lambda split: np.clip(_log_ratio(split), -edge, edge))
        axes.set(xlabel="width : height; the outer bars hold all beyond")
        marks = {"1:4": 1 / 4, "1:2": 1 / 2, "3:4": 3 / 4, "1:1": 1, "4:3": 4 / 3, "2:1": 2, "4:1": 4}
        axes.set_xticks(np.log2(list(marks.values())), list(marks))

    return html_page.figure(draw, "Histogram of the images' width over height.", (9, 2.6))


def _log_ratio(split: SplitStatistics) -> np.ndarray:
    return np.log2(split.numbers["width"] / split.numbers["height"])


def _steps(axes: Axes, about: Statistics, bins: np.ndarray, values: Callable[[SplitStatistics], np.ndarray]) -> None:
    """A histogram line for each split that holds pairs, in percent of the split."""
    held = {name: split for name, split in about.splits.items() if split.pairs}
    styles = cycle(product(("-", "--", ":"), html_page.SERIES))
    for (name, split), (line, color) in zip(held.items(), styles, strict=False):
        weights = np.full(split.pairs, 100 / split.pairs)
        axes.hist(values(split), bins, weights=weights, histtype="step", color=color, ls=line, lw=1.8, label=name)
    axes.set(ylabel="% of the split")
    if held:
        axes.legend()


def _sheet(split: Split, seed: int) -> Iterator[dict[str, str]]:
    """Pairs of a split by chance, the same for the same seed."""
    chosen = np.random.default_rng(seed).choice(len(split), min(IMAGES_PER_SPLIT, len(split)), replace=False)
    return (_shown(split, int(row)) for row in sorted(chosen))


def _twins(opened: dict[str, Split], about: Statistics) -> Iterator[dict[str, Any]]:
    """Examples of pairs that share something, both shown."""
    for overlap in about.overlaps:
        for row, other, way in overlap.examples:
            both: Sequence[dict[str, str]] = [
                _shown(opened[overlap.split], row) | {"split": overlap.split},
                _shown(opened[overlap.other], other) | {"split": overlap.other},
            ]
            yield {"way": way, "both": both}


def _shown(split: Split, row: int) -> dict[str, str]:
    """What the page shows of a pair; `image` is a data: address, or "" where the image cannot be read."""
    said = {
        name: split.table.column(name)[row].as_py() for name in ("id", "caption", "article", "license", "attribution")
    }
    try:
        image = html_page.thumbnail(decode(split.image(row)))
    except ImageError:
        image = ""
    found = _ARTICLE.fullmatch(said["article"])
    link = f"https://pmc.ncbi.nlm.nih.gov/articles/{said['article']}/" if found else ""
    return said | {"image": image, "link": link}
