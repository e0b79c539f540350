"""Validation: loss and recall on held-out pairs, regression against the start, WiSE-FT, calibration of searches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float32, Int, UInt8

from medclip.data.dataset import Split, duplicate_ids
from medclip.data.stats.keyword_labels import keyword_label
from medclip.encode.decode import BATCH_SIZE
from medclip.encode.encoder import (
    Backend,
    embed_captions,
    embed_pixels,
    jax_backend,
    project_features,
    run_in_batches,
    tower_batch_size,
)
from medclip.errors import WorkError
from medclip.match_calibration import Calibration, ValidationRecall, fit_calibration
from medclip.metrics import (
    CHANGE_OF_SHARE,
    DIRECTIONS,
    KS,
    DistinctPairs,
    Estimate,
    Queries,
    estimate,
    hits_at_k,
    max_candidates,
    mean_of_directions,
    merge_articles,
)
from medclip.model.checkpoint import Model
from medclip.model.towers import AnyArray, Params, token_features
from medclip.no_match import Excerpt, ExcerptCosines, cut_captions
from medclip.progress import Advance, progress
from medclip.training.config import ResolvedTrainConfig
from medclip.training.data import SplitImages, batch_foils, decode_into
from medclip.training.frozen_features import CachedViews, frozen_captions, frozen_images, plain_tokens
from medclip.training.losses import Loss, contrastive_loss, duplicate_aware_mask
from medclip.training.optim import is_frozen

MAX_VALIDATION_PAIRS = 2000  # enough for one point of standard error at R@1 = 31 %
ALPHAS = (0.2, 0.4, 0.6, 0.8)


@dataclass(frozen=True)
class ValidationSet:
    """Validation pairs as a model's towers take them; row i of everything is pair i."""

    images: UInt8[np.ndarray, "n s s 3"] | Float32[np.ndarray, "n w"] | CachedViews
    """Pixels, the features of a frozen vision tower, or what its frozen first layers give."""
    text_features: Float32[np.ndarray, "t v"] | None
    """Those of a frozen text tower, of captions and then of foils."""
    captions: Sequence[str]
    foils: Sequence[str]
    """The captions' hard negatives, as the run trains with them: none that another pair says of the same image."""
    foil_rows: Int[np.ndarray, " m"]
    """The pair of each foil."""
    articles: Sequence[str]
    """Those that share an image are one."""
    image_ids: Int[np.ndarray, " n"]
    caption_ids: Int[np.ndarray, " n"]
    """Equal where images, and where captions, are: see `duplicate_ids`."""


class ValidationResult(NamedTuple):
    """What a model gives on a validation set."""

    metrics: dict[str, Any]
    pairs: DistinctPairs
    queries: dict[str, Queries]
    """Ranks by direction."""


def read_validation_set(
    split: Split,
    backend: Backend,
    config: ResolvedTrainConfig | None = None,
    scales: Mapping[str, float] | None = None,
) -> ValidationSet:
    """The first pairs of the validation split, decoded once and held in memory: 0.3 GB at 224 px.

    With a run's `config` and its tensors' learning-rate scales, what frozen layers give takes the place of their input,
    as in training: no evaluation runs them again.
    """
    model, rows = backend.model, range(min(MAX_VALIDATION_PAIRS, len(split)))
    captions, scales = split.take("caption", rows), scales or {name: 1.0 for name in model.params}
    if is_frozen(model.config.vision, scales):
        images = frozen_images(backend, split, rows)
    elif config and config.cached_views:
        images = plain_tokens(backend, split, config, scales, rows)
    else:
        images = _pixels(split, model, len(rows))
    hashes = split.take("sha256", rows)
    own_foils = batch_foils(captions, hashes, config) if config else []
    foils = [(row, foil) for row, own in enumerate(own_foils) for foil in own if foil is not None]
    texts = [*captions, *(foil for _, foil in foils)]
    text_features = frozen_captions(backend, texts) if is_frozen(model.config.text, scales) else None
    ids = duplicate_ids(hashes, captions)
    return ValidationSet(
        images,
        text_features,
        captions,
        foils=texts[len(captions) :],
        foil_rows=np.array([row for row, _ in foils], int),
        articles=merge_articles(split.take("article", rows), ids[0]),
        image_ids=ids[0],
        caption_ids=ids[1],
    )


def _pixels(split: Split, model: Model, num_rows: int) -> UInt8[np.ndarray, "n s s 3"]:
    images = SplitImages(split, model.image_processor)
    pixels = np.empty((num_rows, *images.shape[1:]), np.uint8)
    decode_into(images, pixels)
    return pixels


def embed_validation_set(
    model: Model, validation_set: ValidationSet
) -> tuple[Float32[np.ndarray, "n p"], Float32[np.ndarray, "t p"]]:
    """Embeddings of the images of the pairs, and of their captions, then foils. WorkError where they are not finite.

    Of a frozen tower's features, its projection alone is run.
    """
    config, inputs, features = model.config, validation_set.images, validation_set.text_features
    if isinstance(inputs, np.ndarray) and inputs.ndim == 2:
        images = project_features(model, inputs, config.vision)
    else:
        with progress("validation", len(inputs), "images") as advance:
            if isinstance(inputs, CachedViews):
                images = _embed_views(model, inputs, advance)
            else:
                images = embed_pixels(model, inputs, advance)
    if features is None:
        texts = embed_captions(jax_backend(model), [*validation_set.captions, *validation_set.foils])
    else:
        texts = project_features(model, features, config.text)
    if not (np.isfinite(images).all() and np.isfinite(texts).all()):
        raise WorkError("the weights give embeddings that are not finite: start again with a lower --lr.")
    return images, texts


def _embed_views(model: Model, views: CachedViews, advance: Advance) -> Float32[np.ndarray, "n p"]:
    """Embeddings of images of which frozen first layers gave their only view."""
    embeddings = []
    for start in range(0, len(views), BATCH_SIZE):
        rows = np.arange(start, min(start + BATCH_SIZE, len(views)))
        tokens = views.draw(rows, np.zeros(len(rows), np.uint32))
        encode = partial(_token_features, model.params, config=model.config, first_layer=views.num_layers)
        features = run_in_batches(encode, (tokens,), (tower_batch_size("images"),), advance)
        embeddings.append(project_features(model, features, model.config.vision))
    return np.concatenate(embeddings)


_token_features = jax.jit(token_features, static_argnames=("config", "first_layer"))


def validate(
    model: Model,
    validation_set: ValidationSet,
    batch_size: int,
    loss: Loss = contrastive_loss,
    loss_params: Params | None = None,
) -> ValidationResult:
    """Loss in batches as in training, recall averaged over both directions, and the ranks by direction.

    Nothing is augmented. Pairs that share an image or a caption are no negatives of each other, as in training, and
    recall is of distinct images and captions. Foils are candidates in neither; `foil_accuracy` is the share of them
    that are further from their image than its caption. `loss_params` holds what the loss needs beside the model's own
    parameters. WorkError where embeddings are not finite.
    """
    images, texts = embed_validation_set(model, validation_set)
    texts, foils = np.split(texts, [len(images)])
    size, params = min(batch_size, len(images)), model.params | (loss_params or {})
    image_ids, caption_ids = validation_set.image_ids, validation_set.caption_ids
    losses = []
    for start in range(0, len(images) - size + 1, size):
        batch = slice(start, start + size)
        ids = jnp.asarray(image_ids[batch]), jnp.asarray(caption_ids[batch])
        mask = duplicate_aware_mask(*ids)
        losses.append(float(loss(jnp.asarray(images[batch]), jnp.asarray(texts[batch]), params, mask, None)))
    pairs = DistinctPairs.of_rows(images, texts, image_ids, caption_ids)
    queries = pairs.rank()
    ranks = _columns(queries, len(images))
    recalls = {f"R@{k}": mean_of_directions(hits_at_k(ranks, k)) for k in KS}
    mean_recall = float(np.mean(list(recalls.values())))
    metrics = {"validation_loss": float(np.mean(losses)), **recalls, "mean_recall": mean_recall}
    if len(foils):
        metrics["foil_accuracy"] = _foil_accuracy(images, texts, foils, validation_set.foil_rows)
    return ValidationResult(metrics | {"num_candidates": max_candidates(queries)}, pairs, queries)


def _foil_accuracy(
    images: Float32[np.ndarray, "n p"],
    texts: Float32[np.ndarray, "n p"],
    foils: Float32[np.ndarray, "m p"],
    rows: Int[np.ndarray, " m"],
) -> float:
    """The share of foils, each of the pair in `rows`, whose cosine with the image is below its caption's."""
    own, other = (np.einsum("mp,mp->m", images[rows], embeddings) for embeddings in (texts[rows], foils))
    return float(np.mean(own > other))


def calibrate(
    backend: Backend,
    pairs: DistinctPairs,
    queries: Queries,
    recall_at_10: Estimate,
    captions: Sequence[str],
    model_sha256: str,
    data_sha256: str,
    seed: int,
) -> Calibration:
    """Calibration of searches by text on validation pairs, whose `captions` are of every row of the table.

    `queries` are from texts to images; their first words are embedded by the `backend`.
    """
    side = pairs.sides()[DIRECTIONS[1]]
    images, right = side.candidates.T.astype(np.float64), np.zeros((len(side.queries), len(side.candidates)), bool)
    right[side.right[:, 0], side.right[:, 1]] = True
    recall = ValidationRecall(
        value=recall_at_10.value,
        low=float(np.nan_to_num(recall_at_10.low, nan=0)),  # of one article nothing is known: any share may be true
        high=float(np.nan_to_num(recall_at_10.high, nan=1)),
        chance=queries.chance()["R@10"],
        num_images=len(side.candidates),
        num_captions=len(side.queries),
    )
    query_rows: list[int] = side.query_rows.tolist()
    candidate_rows: list[int] = side.candidate_rows.tolist()
    excerpts = cut_captions([captions[row] for row in query_rows])
    cosines = ExcerptCosines(
        embed_excerpts(backend, excerpts, side.queries).astype(np.float64) @ images,
        right[[excerpt.row for excerpt in excerpts]],
        np.array([excerpt.min_words for excerpt in excerpts]),
        [keyword_label("organ", excerpt.text) for excerpt in excerpts],
        [keyword_label("organ", captions[row]) for row in candidate_rows],
    )
    return fit_calibration(
        side.queries.astype(np.float64) @ images, right, cosines, recall, model_sha256, data_sha256, seed
    )


def embed_excerpts(
    backend: Backend, excerpts: Sequence[Excerpt], captions: Float32[np.ndarray, "n p"]
) -> Float32[np.ndarray, "t p"]:
    """Embeddings of excerpts of `captions`, whose own are given."""
    embeddings = captions[[excerpt.row for excerpt in excerpts]]
    if rows := [row for row, excerpt in enumerate(excerpts) if excerpt.is_cut]:
        embeddings[rows] = embed_captions(backend, [excerpts[row].text for row in rows])
    return embeddings


def recall_change(
    before: Mapping[str, Queries], after: Mapping[str, Queries], articles: Sequence[str], seed: int
) -> Estimate:
    """Change of the mean recall between two ranks of the same pairs, with its 95 % interval over articles."""
    ranks = [_columns(queries, len(articles)) for queries in (before, after)]
    hits_before, hits_after = (np.mean([hits_at_k(columns, k) for k in KS], axis=0) for columns in ranks)
    return estimate(hits_after - hits_before, articles, mean_of_directions, seed, CHANGE_OF_SHARE)


def _columns(queries: Mapping[str, Queries], num_pairs: int) -> Float[np.ndarray, "n 2"]:
    """The ranks of both directions as columns of the table of pairs."""
    return np.stack([queries[direction].column(num_pairs) for direction in DIRECTIONS], axis=1)


def wise_ft(first: Params, last: Params) -> Iterator[tuple[float, Params]]:
    """Weights between the first and the last ones, by the share of the last (WiSE-FT, Wortsman et al. 2022, eq. 1)."""
    for alpha in ALPHAS:
        yield alpha, {name: _interpolate(first[name], p, alpha) for name, p in last.items()}


def _interpolate(first: AnyArray, last: AnyArray, alpha: float) -> jax.Array:
    """`first + alpha (last - first)`; exact, bit for bit, where both are equal (-0, denormals)."""
    last = jnp.asarray(last)  # the first stays as it is: an array of this process alone does not meet one of several
    return jnp.where(first == last, first, first + alpha * (last - first))
