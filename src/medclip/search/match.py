"""What the calibration says of the hits of a text: how likely the right image is among them, or that none is here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medclip.errors import UserError
from medclip.match_calibration import Calibration, read_calibration
from medclip.no_match import MIN_WORDS, Withheld, group_by_words, is_no_match
from medclip.search.query import Embedding, Query, SearchOptions, rank
from medclip.search.reader import Hit, IndexReader

LEAST_SHOWN = 0.01
SINGLE_TEXT = "only searches by a single text are calibrated."


@dataclass(frozen=True)
class SearchResult:
    """The hits of a query and what the model's calibration says of them."""

    hits: list[Hit]
    """Best first."""
    probabilities: tuple[float, ...] | None = None
    """For each hit, that the right image is it or one above it, if the index holds that; None: see `note`."""
    no_match: bool | None = None
    """Whether the index seems to hold nothing that the text describes; None: see `note`."""
    note: str = ""
    """What both mean for these hits, or why they are absent; and that a text is longer than the model reads."""

    def hits_with_probability(self) -> Iterator[tuple[Hit, float | None]]:
        """Each hit, best first, with its probability; None where there is none."""
        return zip(self.hits, self.probabilities or [None] * len(self.hits), strict=True)


def calibration_or_reason(model: Path, sha256: str) -> Calibration | str:
    """The calibration in a model's folder, or why it has none for these weights."""
    try:
        return read_calibration(model, sha256)
    except UserError as error:
        return str(error)


def answer_query(
    reader: IndexReader,
    calibration: Calibration | str,
    query: Query,
    embedding: Embedding,
    options: SearchOptions,
    exclude_row: int | None = None,
) -> SearchResult:
    """The hits of a query and what the calibration says of them; only why not where it says nothing of such a query.

    `embedding` is that of the query; without `exclude_row` and its duplicates, as in `search_embedding`.
    """
    ranking = rank(reader, embedding, options, exclude_row)
    hits = ranking.hits
    if (len(query.texts), len(query.images), len(query.negative_texts)) != (1, 0, 0):
        calibration = SINGLE_TEXT
    if isinstance(calibration, str):
        return SearchResult(hits, note=f"No probability: {calibration}")
    if not hits:
        return SearchResult(hits)
    num_images = int(np.count_nonzero(reader.allowed_mask(options.filter)))
    sample = reader.sample_allowed(options.filter) @ embedding
    log_total = calibration.log_total(ranking.cosines, sample, num_images)
    cosines = np.array([hit.score for hit in hits])
    counts = np.array([1 + len(hit.duplicates) for hit in hits])
    probabilities = tuple(calibration.probabilities(cosines, counts, log_total, num_images).tolist())
    group = group_by_words(query.texts[0])
    no_match = is_no_match(calibration.thresholds, ranking.cosines, num_images, group)
    note = _note(calibration, len(hits), probabilities[-1], no_match, num_images)
    return SearchResult(hits, probabilities, no_match, note)


def describe_model(calibration: Calibration) -> str:
    """How good a model is on its own validation, and a warning where that is near chance."""
    recall, withheld = calibration.recall_at_10, calibration.withheld
    text = (
        f"The model on its own validation: the right image is among the first 10 for {recall.value:.1%} of "
        f"{recall.num_captions:,} captions (95 % interval {recall.low:.1%} to {recall.high:.1%}), of "
        f"{recall.num_images:,} images; by chance for {recall.chance:.1%}."
    )
    if withheld:
        rates = " and ".join(map(_describe_withheld, dict.fromkeys((withheld[0], withheld[-1]))))
        text += f" Of texts about an organ that no image shows, {rates} are told to have no match."
    if recall.is_near_chance:
        text += " That is near chance: which images come first says next to nothing."
    return text


def _describe_withheld(withheld: Withheld) -> str:
    """The rate of a length: "40 % of 4 to 7 words"."""
    above = [least for least in MIN_WORDS if least > withheld.min_words]
    length = f"{withheld.min_words} to {above[0] - 1}" if above else f"{withheld.min_words} or more"
    return f"{withheld.no_match_rate:.0%} of {length} words"


def to_percent(probability: float) -> str:
    """A probability for people; only what is certain is 100 % or 0 %."""
    if 0 < probability < LEAST_SHOWN:
        return f"below {LEAST_SHOWN:.0%}"
    most = 1 - LEAST_SHOWN
    return f"over {most:.0%}" if most < probability < 1 else f"{probability:.0%}"


def _note(calibration: Calibration, num_hits: int, probability: float, no_match: bool | None, num_images: int) -> str:
    if no_match:
        rate = calibration.false_no_match_rate
        return f"No match: of texts as long whose image is in the index, {rate:.0%} at most have hits as far away."
    these = "this one" if num_hits == 1 else f"these {num_hits}"
    note = f"The right image, if the index holds it, is among {these} with a probability of {to_percent(probability)}."
    num_calibrated = calibration.recall_at_10.num_images
    if num_images <= num_calibrated:
        return note
    return f"{note} It is extrapolated from {num_calibrated:,} images of validation to {num_images:,}."
