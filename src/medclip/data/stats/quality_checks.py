"""Warnings about a dataset that a careful colleague would give before anyone trains on it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import sqrt

from medclip.data.dropped_rows import remedy_of
from medclip.data.stats.statistics import CONTEXT_LENGTH, SplitStatistics, Statistics

MIN_HELD_OUT_PAIRS, MIN_TRAINING_PAIRS = 200, 1000
MIN_GROUP_PAIRS = 20
"""A group of fewer is no sign that the column is the wrong one."""
MAX_ARTICLE_SHARE = 0.2  # of a split
MAX_ISSUE_SHARE = 0.05  # of a split: captions with issues, small images, repetitions
_DROPPED = "rows dropped: "  # begins the message about them
MAX_DROPPED_SHARE = 0.1  # of a split's rows
MIN_SHORTER_SIDE = 128  # pixels
_MAX_TEMPLATES = 3
_GROUP_REMEDY = "Name the column with --group-column."
_NO_LICENSE = ("", "no cc code")  # the second is ROCO's word for none


@dataclass(frozen=True)
class Occurrence:
    """How many pairs of a split a warning is about."""

    split: str
    count: int
    total: int
    """Out of how many; 0 where that is meaningless."""


@dataclass(frozen=True)
class QualityWarning:
    """Something to know before training, and what to do about it."""

    message: str
    remedy: str
    occurrences: tuple[Occurrence, ...] = ()


def quality_warnings(stats: Statistics) -> list[QualityWarning]:
    """All warnings: overlaps, splits and dropped rows first, then articles, licenses, captions and images."""
    warnings = [*_check_overlaps(stats), *_check_splits(stats), *_check_dropped(stats)]
    for name, split in stats.splits.items():
        if split.pairs:
            warnings += _check_groups(name, split, stats.dataset["synthetic"])
            warnings += _check_pairs(name, split)
    merged: dict[tuple[str, str], QualityWarning] = {}
    for warning in warnings:
        key = (warning.message, warning.remedy)
        earlier = merged[key].occurrences if key in merged else ()
        merged[key] = replace(warning, occurrences=earlier + warning.occurrences)
    return list(merged.values())


def urgent_warnings(stats: Statistics) -> list[QualityWarning]:
    """What preparation says at once: rows dropped for what can be mended, several images that may share a person or a
    study and no group to tell, or one group for most of them.
    """
    if stats.dataset["synthetic"]:
        return []
    dropped = (warning for warning in _check_dropped(stats) if remedy_of(warning.message.removeprefix(_DROPPED)))
    return [*dropped, *_check_ungrouped(stats), *_check_one_group(stats)]


def _check_one_group(stats: Statistics) -> Iterator[QualityWarning]:
    num_pairs = sum(split.pairs for split in stats.splits.values())
    for name, split in stats.splits.items():
        count = split.largest_article[1]
        if count >= MIN_GROUP_PAIRS and 2 * count > num_pairs:
            remedy = (
                "They share this split. Where that is no patient but a placeholder (unknown) or a folder of many, name "
                "another column with --group-column."
            )
            yield _warn("one patient, study or article holds most pairs", remedy, name, count, num_pairs)


def _check_ungrouped(stats: Statistics) -> list[QualityWarning]:
    splits = {name: split for name, split in stats.splits.items() if split.ungrouped_pairs}
    if sum(split.ungrouped_pairs for split in splits.values()) < 2:
        return []
    remedy = "Images of one person or study may lie in training and validation. " + _GROUP_REMEDY
    occurrences = (Occurrence(name, split.ungrouped_pairs, split.pairs) for name, split in splits.items())
    return [QualityWarning("pairs without a patient, study or article", remedy, tuple(occurrences))]


def _warn(message: str, remedy: str, split: str, count: int, total: int) -> QualityWarning:
    return QualityWarning(message, remedy, (Occurrence(split, count, total),))


def _check_overlaps(stats: Statistics) -> Iterator[QualityWarning]:
    for overlap in stats.overlaps:
        pairs, count = stats.splits[overlap.split].pairs, overlap.counts["any"]
        shared = {kind: n for kind, n in overlap.counts.items() if n and kind != "any"}
        kinds = ", ".join(f"{kind} {n:,}" for kind, n in shared.items())
        if overlap.split != overlap.other and shared:
            remedy = "Metrics on the two are not independent: let whole articles or patients go to one split."
            if overlap.other == "train":
                remedy = "Metrics on them measure memory. See medclip leakage DATA; its --out writes a copy without."
            message = f"pairs that share something with {overlap.other} ({kinds})"
            yield _warn(message, remedy, overlap.split, count, pairs)
        if overlap.split == overlap.other and count > MAX_ISSUE_SHARE * pairs:
            remedy = (
                "Training and retrieval take an equal image or caption as one: there is less here than the pairs say."
            )
            if shared.get("near image"):
                remedy = "Retrieval counts near images as errors, equal ones as one; deduplicate at the source."
            yield _warn(f"pairs that repeat an earlier one ({kinds})", remedy, overlap.split, count, pairs)


def _check_splits(stats: Statistics) -> Iterator[QualityWarning]:
    for name, purpose in (("train", "trained on"), ("validation", "chosen by")):
        if name not in stats.splits:
            yield QualityWarning(
                f"there is no split {name}, so nothing that a model could be {purpose}",
                "Name splits in a column (--split-column), or leave the column out and a tenth becomes validation.",
            )
    for name, split in stats.splits.items():
        if not split.pairs:
            remedy = "See why its rows were dropped, below and in dropped.jsonl."
            yield _warn("a split is empty", remedy, name, 0, 0)
        elif name == "train" and split.pairs < MIN_TRAINING_PAIRS:
            remedy = "Too few to learn from scratch: start from a trained model (medclip train --init)."
            yield _warn(f"fewer than {MIN_TRAINING_PAIRS:,} training pairs", remedy, name, split.pairs, 0)
        elif name != "train" and split.pairs < MIN_HELD_OUT_PAIRS:
            half_width = 196 * sqrt(0.3 * 0.7 / split.pairs)  # of a normal 95 % interval, in percent
            remedy = f"Intervals are wide: a recall of 30 % is known to ± {half_width:.0f} points. Hold out more."
            yield _warn(f"fewer than {MIN_HELD_OUT_PAIRS} pairs to measure on", remedy, name, split.pairs, 0)


def _check_dropped(stats: Statistics) -> Iterator[QualityWarning]:
    for name, reasons in stats.dataset["dropped"].items():
        rows = sum(reasons.values()) + (stats.splits[name].pairs if name in stats.splits else 0)
        for reason, count in reasons.items():
            if count > MAX_DROPPED_SHARE * rows:
                usual = "Look at some of them in dropped.jsonl: so many for one reason are rarely intended."
                yield _warn(f"{_DROPPED}{reason}", remedy_of(reason) or usual, name, count, rows)


def _check_groups(name: str, split: SplitStatistics, synthetic: bool) -> Iterator[QualityWarning]:
    article, count = split.largest_article
    if count > MAX_ARTICLE_SHARE * split.pairs and split.pairs > 1:
        remedy = "Training and metrics are mostly about it. Check the group column, or take fewer of its pairs."
        yield _warn(f"one article or patient ({article}) holds much of the split", remedy, name, count, split.pairs)
    if split.ungrouped_pairs == split.pairs and not synthetic:
        remedy = f"Images of one patient may lie in training and validation. {_GROUP_REMEDY}"
        yield _warn("no pair names its article or patient", remedy, name, split.pairs, split.pairs)


def _check_pairs(name: str, split: SplitStatistics) -> Iterator[QualityWarning]:
    unlicensed = sum(
        n for value, n in split.counts["license"].items() if value.lower().replace("-", " ") in _NO_LICENSE
    )
    checks = (
        (
            unlicensed,
            0,
            "pairs without a known license",
            "Unknown is not free: keep the images, and models trained on them, private until you know.",
        ),
        (
            int((split.numbers["tokens"] > CONTEXT_LENGTH).sum()),
            MAX_ISSUE_SHARE,
            f"captions that probably exceed {CONTEXT_LENGTH} tokens, CLIP's limit",
            "Their ends are cut off. Train with a longer context (--context-length), or begin with what matters.",
        ),
        (
            int((split.numbers["shorter_side"] < MIN_SHORTER_SIDE).sum()),
            MAX_ISSUE_SHARE,
            f"images with a shorter side under {MIN_SHORTER_SIDE} pixels",
            "Models see 224 pixels or more, so these are enlarged and blurred. Were thumbnails fetched by mistake?",
        ),
        *((split.caption_issues[issue], *check) for issue, check in _CAPTION_CHECKS.items()),
    )
    for count, max_share, message, remedy in checks:
        if count > max_share * split.pairs:
            yield _warn(message, remedy, name, count, split.pairs)
    for template in split.templates[:_MAX_TEMPLATES]:
        message = f"captions with the same {template.position}: “{template.text}”"
        remedy = "Text that so many captions share cannot tell images apart. Remove boilerplate at the source."
        yield _warn(message, remedy, name, template.pairs, split.pairs)


# By issue of a caption: the share of a split above which it is worth a warning, the message, the remedy.
_CAPTION_CHECKS = {
    "file name": (0, "captions that look like a file's name", "Is the caption column the right one?"),
    "markup": (0, "captions with markup, escapes or links", "Remove them at the source: models would learn them."),
    "several panels": (
        MAX_ISSUE_SHARE,
        "captions that describe several panels, (a) and (b)",
        "The image may be one panel of them. Split figure and caption, or expect captions that say too much.",
    ),
    "not English": (
        0.01,
        "captions that are not English",
        "Most text towers know English only. Translate them, leave them out, or start from a multilingual one.",
    ),
    "date or e-mail": (
        0,
        "captions with a full date or an e-mail address",
        "They may identify a person. Look at them before sharing the data.",
    ),
}
