"""What a prepared dataset holds, in numbers: plain values computed from its columns."""

from __future__ import annotations

import re
from array import array
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Num

from medclip.data.dataset import Split, read_dataset, split_names
from medclip.data.header_values import ANY_MONTH, dates_in_words
from medclip.data.leakage import MATCH_KINDS, find_matches
from medclip.data.schema import names_no_group
from medclip.data.shards import SCHEMA
from medclip.data.stats.keyword_labels import KINDS, keyword_label
from medclip.progress import Advance, progress

# tokens = 2 + this × characters: pieces per character of CLIP's byte-pair encoding over ROCO's training captions, and
# its two special tokens. On the 668 validation captions half the estimates lie within 8 %, 95 % within 29 %; by them
# 5.8 % of the captions exceed 77 tokens, in truth 6.1 % (tests/data/stats/test_statistics.py). For English only.
TOKENS_PER_CHARACTER = 0.233
CONTEXT_LENGTH = 77
MAX_NEAR_PAIRS = 50_000  # comparing all images takes this number squared, about a minute
TEMPLATE_WORDS = 6
MIN_TEMPLATE_SHARE, MIN_TEMPLATE_PAIRS = 0.01, 5  # of a split, and pairs; what is more common is nobody's own text
LIST_COLUMNS = ("concepts", "keywords", "semantic_types")
_COLUMNS = ("id", "width", "height", "caption", "article", "license", "labels", "source", *LIST_COLUMNS)
_MAX_EXAMPLES = 4  # of each kind of match
_TOP_VALUES = 20  # of each counter, in JSON

_FILE_NAME = re.compile(r"[^\s\d_]*[\d_]\S*|.*\.(?:jpe?g|png|tiff?|gif|bmp|dcm|webp)", re.IGNORECASE)
_MARKUP = re.compile(r"</?[a-z][^<>]*>|&(?:#\d+|[a-z]{2,8});|\\(?:[a-z]{4,}|x[0-9a-f]{2}|u[0-9a-f]{4})|https?://", re.I)
_PANEL = re.compile(r"\(([a-h])\)", re.IGNORECASE)
_IDENTIFYING = re.compile(
    r"\b\d{1,2}[./-]\s?\d{1,2}[./-]\s?(?:19|20)\d\d\b|\b(?:19|20)\d\d-\d\d-\d\d\b|\S@\w+\.\w|"
    + "|".join(dates_in_words(r"\b\d{1,2}", ANY_MONTH, r"(?:19|20)\d\d\b")),
    re.IGNORECASE,
)
_ENGLISH_WORDS = re.compile(
    r"\b(?:the|of|in|and|with|an?|is|are|was|were|to|on|at|from|for|by|after|before|show(?:ing|s|n)|this|that)\b"
)
_FOREIGN_WORDS = re.compile(
    r"\b(?:de|la|les?|du|des|une?|et|en|el|l[ao]s|del|con|por|una|al|y|und|der|die|das|mit|von|im|de[nm]|di|della|il|"
    r"do|da|d[ao]s|em|com|n[ao]|på|och|med|av)\b"
)


@dataclass(frozen=True)
class NumberSummary:
    """Quantiles and mean of a column of numbers."""

    min: float
    p5: float
    median: float
    p95: float
    max: float
    mean: float


@dataclass(frozen=True)
class Template:
    """Words that at least MIN_TEMPLATE_SHARE of a split's captions have in common; numbers are "#"."""

    position: str
    """"whole caption", "beginning" or "end"."""
    text: str
    pairs: int


@dataclass(frozen=True)
class SplitStatistics:
    """One split. Counters count pairs by value; "" stands for pairs without one."""

    pairs: int
    numbers: Mapping[str, np.ndarray]
    """One value per pair: words, characters, tokens (estimated), width, height, shorter_side; pairs_per_article."""
    counts: Mapping[str, Counter[str]]
    """license, source, concepts, keywords, semantic_types."""
    labels: Mapping[str, Counter[str]]
    """By name of the label."""
    keyword_labels: Mapping[str, Counter[str]]
    """modality and organ; see `keyword_labels.keyword_label`."""
    caption_issues: Counter[str]
    """Pairs by issue; see `caption_issues`."""
    templates: Sequence[Template]
    """The most frequent first."""
    largest_article: tuple[str, int]
    ungrouped_pairs: int
    """Pairs whose article is their own id or made up."""


@dataclass(frozen=True)
class Overlap:
    """What pairs of one split share with another, or with earlier pairs of their own."""

    split: str
    other: str
    counts: Mapping[str, int]
    """Pairs by kind of match (`leakage.MATCH_KINDS`), and "any"; no "near image" where they were not compared."""
    examples: Sequence[tuple[int, int, str]]
    """Row, other row, kind: the first few of each kind."""


@dataclass(frozen=True)
class Statistics:
    """A dataset: its `dataset.json`, and what was counted."""

    dataset: Mapping[str, Any]
    splits: Mapping[str, SplitStatistics]
    overlaps: Sequence[Overlap]
    near_images: bool
    """Whether near images were compared."""

    def to_json(self) -> dict[str, Any]:
        """The main numbers as plain values."""
        dropped = self.dataset["dropped"]
        return {
            "splits": {
                name: _split_json(split) | {"dropped": dropped.get(name, {})} for name, split in self.splits.items()
            },
            "overlaps": [{"split": o.split, "other": o.other, **o.counts} for o in self.overlaps],
            "near_images": self.near_images,
        }


def summarize(values: Num[np.ndarray, " n"]) -> NumberSummary | None:
    """The summary of some numbers; None for none."""
    if not len(values):
        return None
    return NumberSummary(*map(float, np.percentile(values, [0, 5, 50, 95, 100])), mean=float(values.mean()))


def compute_statistics(data: Path, near_images: bool = True) -> Statistics:
    """Count and compare everything in the dataset `data`; near images up to MAX_NEAR_PAIRS pairs.

    Raises UserError where `data` is not a dataset.
    """
    dataset = read_dataset(data)
    opened = open_splits(data)
    near_images = near_images and sum(map(len, opened.values())) <= MAX_NEAR_PAIRS
    splits = {}
    for name in dataset["splits"]:
        table = opened[name].table if name in opened else SCHEMA.empty_table()
        with progress(f"count {name}", len(table), "pairs") as advance:
            splits[name] = compute_split_statistics(table, advance)
    order = sorted(
        opened, key=lambda name: name != "train"
    )  # other splits are compared with train, not train with them
    overlaps = [_overlap(opened[b], opened[a], near_images) for a, b in combinations_with_replacement(order, 2)]
    return Statistics(dataset, splits, overlaps, near_images)


def open_splits(data: Path) -> dict[str, Split]:
    """Every split of `data` that holds pairs."""
    return {name: Split(data, name) for name in split_names(data)}


def compute_split_statistics(table: pa.Table, advance: Advance | None = None) -> SplitStatistics:
    """Count the rows of a table with the columns of `shards.SCHEMA`, batch by batch; images are not read."""
    raw = {name: array("i") for name in ("words", "characters", "width", "height")}
    counts, labels, keyword_labels = (defaultdict[str, Counter[str]](Counter) for _ in range(3))
    issues, articles = Counter[str](), Counter[str]()
    part_hashes = {position: array("q") for position in _TEMPLATE_PARTS}
    ungrouped = 0
    for batch in table.select(_COLUMNS).to_batches():
        rows = {name: batch.column(name).to_pylist() for name in _COLUMNS}
        for name in ("license", "source"):
            counts[name].update(rows[name])
        for name in LIST_COLUMNS:
            counts[name].update(value for values in rows[name] for value in set(values or ("",)))
        for kind in KINDS:
            keyword_labels[kind].update(keyword_label(kind, caption) for caption in rows["caption"])
        for name, value in (item for items in rows["labels"] for item in items):
            labels[name][value] += 1
        for caption in rows["caption"]:
            raw["words"].append(len(caption.split()))
            raw["characters"].append(len(caption))
            issues.update(caption_issues(caption))
            words = caption_skeleton(caption)
            for position, part in _TEMPLATE_PARTS.items():
                part_hashes[position].append(hash(part(words)))  # eight bytes a caption, whatever its length
        for name in ("width", "height"):
            raw[name].extend(rows[name])
        articles.update(rows["article"])
        ungrouped += sum(map(names_no_group, rows["article"], rows["id"]))
        if advance:
            advance(len(batch))
    for counter in labels.values():
        counter[""] += len(table) - counter.total()
    numbers = {name: np.asarray(values, np.int32) for name, values in raw.items()}
    numbers["tokens"] = np.rint(2 + TOKENS_PER_CHARACTER * numbers["characters"]).astype(np.int32)
    numbers["shorter_side"] = np.minimum(numbers["width"], numbers["height"])
    numbers["pairs_per_article"] = np.fromiter(articles.values(), np.int32, len(articles))
    return SplitStatistics(
        pairs=len(table),
        numbers=numbers,
        counts=counts,
        labels=labels,
        keyword_labels=keyword_labels,
        caption_issues=issues,
        templates=_find_templates(table, part_hashes),
        largest_article=next(iter(articles.most_common(1)), ("", 0)),
        ungrouped_pairs=ungrouped,
    )


def caption_issues(caption: str) -> list[str]:
    """Issues of a cleaned caption, out of: file name, markup, several panels, not English, date or e-mail."""
    issues = {
        "file name": bool(_FILE_NAME.fullmatch(caption)),
        "markup": bool(_MARKUP.search(caption)),
        "several panels": len({letter.lower() for letter in _PANEL.findall(caption)}) > 1,
        "not English": _is_foreign(caption),
        "date or e-mail": bool(_IDENTIFYING.search(caption)),
    }
    return [name for name, present in issues.items() if present]


def _is_foreign(caption: str) -> bool:
    """Two or more function words of other languages and fewer English ones, or mostly non-Latin letters."""
    lower = caption.lower()
    foreign = len(_FOREIGN_WORDS.findall(lower))
    if foreign > 1 and foreign > len(_ENGLISH_WORDS.findall(lower)):
        return True
    letters = [letter for letter in lower if letter.isalpha()]
    return sum(letter > "ʯ" for letter in letters) > len(letters) / 2


def caption_skeleton(caption: str) -> list[str]:
    """The words of a caption without case, punctuation and numbers (each "#"): what templates have in common."""
    return ["#" if word.isdigit() else word for word in re.findall(r"\d+|[^\W\d]+", caption.casefold())]


# The parts of a caption that identify templates; None where it is too short for the part to be less than the whole.
_TEMPLATE_PARTS = {
    "whole caption": tuple,
    "beginning": lambda words: tuple(words[:TEMPLATE_WORDS]) if len(words) > TEMPLATE_WORDS else None,
    "end": lambda words: tuple(words[-TEMPLATE_WORDS:]) if len(words) > TEMPLATE_WORDS else None,
}


def _find_templates(table: pa.Table, part_hashes: Mapping[str, array[int]]) -> list[Template]:
    templates = []
    for position, hashes in part_hashes.items():
        _, first_rows, counts = np.unique(np.asarray(hashes, np.int64), return_index=True, return_counts=True)
        for i in np.flatnonzero(counts >= max(MIN_TEMPLATE_PAIRS, MIN_TEMPLATE_SHARE * len(table))):
            words = caption_skeleton(table.column("caption")[int(first_rows[i])].as_py())
            if part := _TEMPLATE_PARTS[position](words):
                templates.append(Template(position, " ".join(part), int(counts[i])))
    return sorted(templates, key=lambda template: -template.pairs)


def _overlap(split: Split, other: Split, near_images: bool) -> Overlap:
    matches = find_matches(split, other, near_images)
    kinds = [k for k in MATCH_KINDS if (near_images or k != "near image") and (split is not other or k != "article")]
    by_kind = {kind: [match for match in matches if match.kind == kind] for kind in kinds}
    counts = {kind: len({match.row for match in members}) for kind, members in by_kind.items()}
    examples = [(m.row, m.other_row, m.kind) for members in by_kind.values() for m in members[:_MAX_EXAMPLES]]
    return Overlap(split.name, other.name, counts | {"any": len({match.row for match in matches})}, examples)


def _split_json(split: SplitStatistics) -> dict[str, Any]:
    def top(counters: Mapping[str, Counter[str]]) -> dict[str, dict[str, int]]:
        return {name: dict(counter.most_common(_TOP_VALUES)) for name, counter in counters.items()}

    summaries = {name: summarize(values) for name, values in split.numbers.items()}
    return {
        "pairs": split.pairs,
        "articles": len(split.numbers["pairs_per_article"]),
        f"over_{CONTEXT_LENGTH}_tokens": int((split.numbers["tokens"] > CONTEXT_LENGTH).sum()),
        "numbers": {name: summary and asdict(summary) for name, summary in summaries.items()},
        "counts": top(split.counts),
        "labels": top(split.labels),
        "keyword_labels": top(split.keyword_labels),
        "caption_issues": dict(split.caption_issues),
        "templates": [asdict(template) for template in split.templates],
    }
