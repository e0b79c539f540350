"""Results of the service in the forms of the API."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from urllib.parse import quote

import numpy as np

from medclip.errors import UserError
from medclip.match_calibration import Calibration
from medclip.search.match import SearchResult
from medclip.serve import schemas


def search_result(result: SearchResult) -> schemas.SearchResult:
    """The form of a result."""
    return schemas.SearchResult(
        probabilities=None if result.probabilities is None else list(result.probabilities),
        no_match=result.no_match,
        note=result.note,
        hits=[
            schemas.Hit(
                id=hit.id,
                sha256=hit.sha256,
                score=hit.score,
                caption=hit.caption,
                article=hit.article,
                license=hit.license,
                attribution=hit.attribution,
                labels=hit.labels,
                source=hit.source,
                added=hit.added,
                duplicates=list(hit.duplicates),
                thumbnail=f"/thumbnails/{quote(hit.id, safe='')}?sha256={hit.sha256}",
            )
            for hit in result.hits
        ],
    )


def classify_response(labels: Sequence[str], probabilities: Sequence[float]) -> schemas.ClassifyResponse:
    """The form of the probabilities of labels, in their order."""
    scores = [
        schemas.LabelScore(label=label, probability=probability)
        for label, probability in zip(labels, probabilities, strict=True)
    ]
    return schemas.ClassifyResponse(best=max(scores, key=lambda score: score.probability).label, scores=scores)


def embed_response(embeddings: np.ndarray, model_sha256: str) -> schemas.EmbedResponse:
    """The form of embeddings f32 (n, p)."""
    return schemas.EmbedResponse(
        embeddings=embeddings.tolist(), embedding_dim=embeddings.shape[1], model_sha256=model_sha256
    )


def validation(calibration: Calibration | str) -> schemas.Validation | None:
    """The form of a calibration; None where there is none, for the reason that stands in its place."""
    if isinstance(calibration, str):
        return None
    recall = calibration.recall_at_10
    return schemas.Validation(
        recall_at_10=recall.value,
        low=recall.low,
        high=recall.high,
        chance=recall.chance,
        num_images=recall.num_images,
        num_captions=recall.num_captions,
        near_chance=recall.is_near_chance,
        false_no_match_rate=calibration.false_no_match_rate,
        withheld=[schemas.Withheld(**dataclasses.asdict(withheld)) for withheld in calibration.withheld],
    )


def require_one_image(image: object, id: str | None, sha256: str | None) -> None:
    """UserError unless there is either an image or the id of one; a hash goes with an id."""
    if (image is None) == (id is None) or (id is None and sha256 is not None):
        raise UserError("give either an image or the id of one of the index; sha256 goes with an id.")
