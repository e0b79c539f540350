"""What a careful colleague would say about a dataset before anyone trains on it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import sqrt

from medclip.data.stats.statistics import CONTEXT_LENGTH, SplitStatistics, Statistics

MIN_HELD_OUT_PAIRS, MIN_TRAINING_PAIRS = 200, 1000
MAX_ARTICLE_SHARE = 0.2  # of a split
MAX_ISSUE_SHARE = 0.05  # of a split: odd captions, tiny images, repetitions
MAX_DROPPED_SHARE = 0.1  # of a split's rows
MIN_SHORTER_SIDE = 128  # pixels, shorter side
_NO_LICENSE = ("", "no cc code")  # the second is ROCO's word for none


@dataclass(frozen=True)
class QualityWarning:
    """One thing to know before training."""

    message: str
    remedy: str
    occurrences: tuple[tuple[str, int, int], ...]
    """Split, how many there, and of how many; of 0 where that says nothing."""


def quality_warnings(about: Statistics) -> list[QualityWarning]:
    """Everything worth a warning: leaks, splits and what was lost, then articles, licenses, captions and images."""
    found = [*_shared(about), *_splits(about), *_dropped(about)]
    for name, split in about.splits.items():
        if split.pairs:
            found += _pairs(name, split, bool(about.dataset.get("synthetic")))
    merged: dict[tuple[str, str], QualityWarning] = {}
    for one in found:
        before = merged.get((one.message, one.remedy))
        occurrences = before.occurrences + one.occurrences if before else one.occurrences
        merged[one.message, one.remedy] = replace(one, occurrences=occurrences)
    return list(merged.values())


def _shared(about: Statistics) -> Iterator[QualityWarning]:
    for overlap in about.overlaps:
        pairs = about.splits[overlap.split].pairs
        repeated = {way: n for way, n in overlap.counts.items() if n and way != "any"}
        said = ", ".join(f"{way} {n:,}" for way, n in repeated.items())
        if overlap.split != overlap.other and repeated:
            remedy = "Numbers on the two are not independent: let whole articles or patients go to one split."
            if overlap.other == "train":
                remedy = "Numbers on them measure memory. See medclip leakage DATA; its --out writes a copy without."
            yield QualityWarning(
                f"pairs that share something with {overlap.other} ({said})",
                remedy,
                ((overlap.split, overlap.counts["any"], pairs),),
            )
        if overlap.split == overlap.other and overlap.counts["any"] > MAX_ISSUE_SHARE * pairs:
            yield QualityWarning(
                f"pairs that repeat an earlier one ({said})",
                "Retrieval cannot tell equal pairs apart and counts them as errors; thin them out at the source.",
                ((overlap.split, overlap.counts["any"], pairs),),
            )


def _splits(about: Statistics) -> Iterator[QualityWarning]:
    for name, what in (("train", "trained on"), ("validation", "chosen by")):
        if name not in about.splits:
            yield QualityWarning(
                f"there is no split {name}, and so nothing that a model could be {what}",
                "Name splits in a column (--split-column), or leave the column out and a tenth becomes validation.",
                (),
            )
    for name, split in about.splits.items():
        if not split.pairs:
            remedy = "See why its rows were dropped, below and in dropped.jsonl."
            yield QualityWarning("a split is empty", remedy, ((name, 0, 0),))
        elif name == "train" and split.pairs < MIN_TRAINING_PAIRS:
            yield QualityWarning(
                f"fewer than {MIN_TRAINING_PAIRS:,} training pairs",
                "Too few to learn from scratch: start from a trained model (medclip train --init).",
                ((name, split.pairs, 0),),
            )
        elif name != "train" and split.pairs < MIN_HELD_OUT_PAIRS:
            half = 196 * sqrt(0.3 * 0.7 / split.pairs)
            yield QualityWarning(
                f"fewer than {MIN_HELD_OUT_PAIRS} pairs to measure on",
                f"Intervals are wide: a recall of 30 % is known to ± {half:.0f} points. Hold out more.",
                ((name, split.pairs, 0),),
            )


def _dropped(about: Statistics) -> Iterator[QualityWarning]:
    for name, reasons in about.dataset.get("dropped", {}).items():
        rows = about.splits[name].pairs + sum(reasons.values()) if name in about.splits else sum(reasons.values())
        for reason, n in reasons.items():
            if n > MAX_DROPPED_SHARE * rows:
                remedy = (
                    "Fetch the absent files and prepare again; what arrived since is taken."
                    if reason == "image missing"
                    else "Look at some of them in dropped.jsonl: so many lost for one reason is seldom meant."
                )
                yield QualityWarning(f"rows dropped: {reason}", remedy, ((name, n, rows),))


def _pairs(name: str, split: SplitStatistics, synthetic: bool) -> Iterator[QualityWarning]:
    largest, most = split.largest_article
    if most > MAX_ARTICLE_SHARE * split.pairs and split.pairs > 1:
        yield QualityWarning(
            f"one article or patient ({largest}) holds much of the split",
            "What is measured or learnt is mostly about it. Check the group column, or take fewer of its pairs.",
            ((name, most, split.pairs),),
        )
    if split.ungrouped_pairs == split.pairs and not synthetic:
        yield QualityWarning(
            "no pair names its article or patient",
            "Images of one patient may lie in training and validation. Name the column with --group-column.",
            ((name, split.pairs, split.pairs),),
        )
    checks = (
        (
            sum(n for name, n in split.counts["license"].items() if name.lower().replace("-", " ") in _NO_LICENSE),
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
            int((split.numbers["shorter side"] < MIN_SHORTER_SIDE).sum()),
            MAX_ISSUE_SHARE,
            f"images with a shorter side under {MIN_SHORTER_SIDE} pixels",
            "Models see 224 pixels or more, so these are enlarged and blurred. Were thumbnails fetched by mistake?",
        ),
        *((split.caption_issues[odd], share, what, remedy) for odd, (share, what, remedy) in _ODD.items()),
    )
    for count, share, what, remedy in checks:
        if count > share * split.pairs:
            yield QualityWarning(what, remedy, ((name, count, split.pairs),))
    for where, words, count in split.templates[:3]:
        what = f"captions with the same {where}: “{words}”"
        remedy = "Words that so many share tell images apart for nobody. Take boilerplate out at the source."
        yield QualityWarning(what, remedy, ((name, count, split.pairs),))


# What captions can have odd about them: the share of a split above which it is said, how, and what to do.
_ODD = {
    "file name": (0, "captions that look like a file's name", "Is the caption column the right one?"),
    "markup": (0, "captions with markup, escapes or links", "Take them out at the source: models would learn them."),
    "several panels": (
        MAX_ISSUE_SHARE,
        "captions that describe several panels, (a) and (b)",
        "The image may be one panel of them. Split figure and caption, or expect captions that say too much.",
    ),
    "not English": (
        0.01,
        "captions that are not English",
        "Most text towers know English alone. Translate them, leave them out, or start from a multilingual one.",
    ),
    "date or e-mail": (
        0,
        "captions with a full date or an e-mail address",
        "They may point to a person. Look at them before anyone else does.",
    ),
}
