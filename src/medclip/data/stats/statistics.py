"""What a prepared dataset holds, in numbers: plain values of pure functions over its columns."""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from medclip.data.dataset import SCHEMA, Split, read_dataset
from medclip.data.leakage import MATCH_KINDS, find_matches
from medclip.data.stats.caption_issues import caption_issues, skeleton
from medclip.data.stats.keyword_labels import keyword_label
from medclip.progress import Advance, progress

# tokens = 2 + this × characters: pieces per character of CLIP's byte-pair encoding over ROCO's training captions, and
# its two special tokens. On the 668 validation captions half the estimates lie within 8 %, 95 % within 29 %; by them
# 5.8 % of the captions exceed 77 tokens, in truth 6.1 % (tests/data/survey/test_statistics.py). For English alone.
TOKENS_PER_CHARACTER = 0.233
CONTEXT_LENGTH = 77
MAX_NEAR_PAIRS = 50_000  # pairs; comparing all images takes their number squared, about a minute for so many
TEMPLATE_WORDS = 6
MIN_TEMPLATE_SHARE, MIN_TEMPLATE_PAIRS = (
    0.01,
    5,
)  # of a split, and pairs; what is more common looks like no one's own words
LIST_COLUMNS = ("concepts", "keywords", "semantic_types")
_READ = ("id", "width", "height", "caption", "article", "license", "labels", "source", *LIST_COLUMNS)


@dataclass(frozen=True)
class NumberSummary:
    """A column of numbers in six."""

    min: float
    p5: float
    median: float
    p95: float
    max: float
    mean: float


def summarize(values: np.ndarray) -> NumberSummary | None:
    """Of no values: None."""
    if not len(values):
        return None
    return NumberSummary(*np.percentile(values, [0, 5, 50, 95, 100]).tolist(), float(values.mean()))


@dataclass(frozen=True)
class SplitStatistics:
    """One split. Counters count pairs by value; "" is for those that have none."""

    pairs: int
    numbers: Mapping[str, np.ndarray]
    """words, characters, tokens (estimated), width, height, shorter side: a value a pair. pairs per article."""
    counts: Mapping[str, Counter[str]]
    """license, source, concepts, keywords, semantic_types, label NAME, guessed modality, guessed organ."""
    caption_issues: Counter[str]
    """Pairs by what is odd about their captions; see `oddities.oddities`."""
    templates: Sequence[tuple[str, str, int]]
    """Words that TEMPLATE_SHARE or more of the captions have in common: where, the words, pairs."""
    largest_article: tuple[str, int]
    ungrouped_pairs: int
    """Pairs whose article is their own id: nothing groups them."""


@dataclass(frozen=True)
class Overlap:
    """What pairs of one split share with another, or with earlier pairs of their own."""

    split: str
    other: str
    counts: Mapping[str, int]
    """By way (see `leakage.WAYS`), and "any"; near images are absent where they were not looked for."""
    examples: Sequence[tuple[int, int, str]]
    """Row, other row, way: the first of each way."""


@dataclass(frozen=True)
class Statistics:
    """A dataset: what `dataset.json` says, and what was counted since."""

    dataset: Mapping[str, Any]
    splits: Mapping[str, SplitStatistics]
    overlaps: Sequence[Overlap]
    near_images: bool
    """Whether near images were looked for."""


def compute_statistics(data: Path, near_images: bool = True) -> Statistics:
    """Count and compare everything in the dataset `data`, near images too if `near` and there are not too many.

    UserError where it is no dataset.
    """
    dataset = read_dataset(data)
    opened = open_splits(data)
    near_images = near_images and sum(map(len, opened.values())) <= MAX_NEAR_PAIRS
    splits = {}
    for name in dataset["splits"]:
        table = opened[name].table if name in opened else SCHEMA.empty_table()
        with progress(f"count {name}", len(table), "pairs") as advance:
            splits[name] = compute_split_statistics(table, advance)
    order = sorted(opened, key=lambda name: name != "train")  # others are held against train, not train against them
    found = [_overlap(opened[b], opened[a], near_images) for a, b in combinations_with_replacement(order, 2)]
    return Statistics(dataset, splits, found, near_images)


def open_splits(data: Path) -> dict[str, Split]:
    """Every split of `data` that holds pairs."""
    return {name: Split(data, name) for name, about in read_dataset(data)["splits"].items() if about["pairs"]}


def compute_split_statistics(table: pa.Table, advance: Advance | None = None) -> SplitStatistics:
    """Count the rows of a table with the columns of `shards.SCHEMA`, a batch at a time; images are not read."""
    numbers = {name: array("i") for name in ("words", "characters", "width", "height")}
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    odd: Counter[str] = Counter()
    articles: Counter[str] = Counter()
    parts = {where: array("q") for where in _TEMPLATES}
    own_articles = 0
    for batch in table.select(_READ).to_batches():
        rows = {name: batch.column(name).to_pylist() for name in _READ}
        _count(rows, counts)
        for caption in rows["caption"]:
            numbers["words"].append(len(caption.split()))
            numbers["characters"].append(len(caption))
            odd.update(caption_issues(caption))
            words = skeleton(caption)
            for where, part in _TEMPLATES.items():
                parts[where].append(hash(part(words)))  # eight bytes a caption, whatever its length
        for name in ("width", "height"):
            numbers[name].extend(rows[name])
        articles.update(rows["article"])
        own_articles += sum(article == id for article, id in zip(rows["article"], rows["id"], strict=True))
        if advance:
            advance(len(batch))
    for name, counter in counts.items():
        if name.startswith("label "):
            counter[""] += len(table) - counter.total()
    made = {name: np.asarray(values, np.int32) for name, values in numbers.items()}
    made["tokens"] = np.rint(2 + TOKENS_PER_CHARACTER * made["characters"]).astype(np.int32)
    made["shorter side"] = np.minimum(made["width"], made["height"])
    made["pairs per article"] = np.fromiter(articles.values(), np.int32, len(articles))
    largest = next(iter(articles.most_common(1)), ("", 0))
    return SplitStatistics(len(table), made, counts, odd, _templates(table, parts), largest, own_articles)


def _count(rows: Mapping[str, list[Any]], counts: defaultdict[str, Counter[str]]) -> None:
    """Add a batch's values to the counters."""
    for name in ("license", "source"):
        counts[name].update(rows[name])
    for name in LIST_COLUMNS:
        counts[name].update(value for values in rows[name] for value in set(values or ("",)))
    for kind in ("modality", "organ"):
        counts[f"guessed {kind}"].update(keyword_label(kind, caption) for caption in rows["caption"])
    for labels in rows["labels"]:
        for name, value in labels:
            counts[f"label {name}"][value] += 1


# The parts of a caption by which templates are known; None: too short for the part to be less than the whole.
_TEMPLATES = {
    "whole caption": tuple,
    "beginning": lambda words: tuple(words[:TEMPLATE_WORDS]) if len(words) > TEMPLATE_WORDS else None,
    "end": lambda words: tuple(words[-TEMPLATE_WORDS:]) if len(words) > TEMPLATE_WORDS else None,
}


def _templates(table: pa.Table, parts: Mapping[str, array[int]]) -> list[tuple[str, str, int]]:
    found = []
    for where, hashes in parts.items():
        _, first, times = np.unique(np.asarray(hashes, np.int64), return_index=True, return_counts=True)
        for place in np.flatnonzero(times >= max(MIN_TEMPLATE_PAIRS, MIN_TEMPLATE_SHARE * len(table))):
            words = skeleton(table.column("caption")[int(first[place])].as_py())
            if part := _TEMPLATES[where](words):
                found.append((where, " ".join(part), int(times[place])))
    return sorted(found, key=lambda template: -template[2])


def _overlap(mine: Split, theirs: Split, near: bool) -> Overlap:
    found = find_matches(mine, theirs, near)
    ways = [way for way in MATCH_KINDS if (near or way != "near image") and (mine is not theirs or way != "article")]
    pairs = {way: len({s.row for s in found if s.kind == way}) for way in ways}
    examples = [(s.row, s.other_row, s.kind) for way in ways for s in [s for s in found if s.kind == way][:4]]
    return Overlap(mine.name, theirs.name, pairs | {"any": len({s.row for s in found})}, examples)


def summary(about: Statistics) -> dict[str, Any]:
    """The main numbers as plain values, for JSON."""

    def most(counter: Counter[str]) -> dict[str, int]:
        return dict(counter.most_common(20))

    def of_split(name: str, split: SplitStatistics) -> dict[str, Any]:
        spreads: Iterable[tuple[str, NumberSummary | None]] = (
            (n, summarize(values)) for n, values in split.numbers.items()
        )
        return {
            "pairs": split.pairs,
            "articles": len(split.numbers["pairs per article"]),
            f"over_{CONTEXT_LENGTH}_tokens": int((split.numbers["tokens"] > CONTEXT_LENGTH).sum()),
            "dropped": about.dataset.get("dropped", {}).get(name, {}),
            "numbers": {name.replace(" ", "_"): values and asdict(values) for name, values in spreads},
            "counts": {name.replace(" ", "_"): most(counter) for name, counter in split.counts.items()},
            "odd_captions": dict(split.caption_issues),
            "templates": [dict(zip(("where", "words", "pairs"), one, strict=True)) for one in split.templates],
        }

    return {
        "splits": {name: of_split(name, split) for name, split in about.splits.items()},
        "shared": [{"split": o.split, "with": o.other, **o.counts} for o in about.overlaps],
        "near_pictures": about.near_images,
    }
