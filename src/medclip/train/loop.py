"""One run: from a prepared data set to RUN/model, its curves and its numbers."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from medclip import __version__
from medclip.data.batches import fitted_pixels, rows_at
from medclip.data.captions import mirrored
from medclip.data.shards import Split
from medclip.encoder import embed_pixels, embed_texts
from medclip.errors import UserError, WorkError
from medclip.evaluate.metrics import KS, both_ways, ranks, recall_at
from medclip.files import claim, read_json, whole_file, write_json
from medclip.model.hub import Model, load, save
from medclip.progress import Advance, progress
from medclip.train.augment import crop_and_jitter
from medclip.train.card import write_card
from medclip.train.curves import draw_curves
from medclip.train.losses import contrastive, sigmoid
from medclip.train.recipe import Recipe, optimizer
from medclip.train.start import first_model
from medclip.train.state import StateFolder
from medclip.train.step import Augment, Batch, Loss, State, first_state, make_step

VALIDATION_PAIRS = 2000  # enough for one point of standard error at R@1 = 31 %


@dataclass(frozen=True)
class Pairs:
    """A split made ready for a model: pixels u8 (n, s, s, 3) and captions, row i of both being pair i."""

    pixels: np.ndarray
    captions: Sequence[str]


def train(
    data: Path,
    out: Path,
    recipe: Recipe,
    *,
    limit: int | None = None,
    resume: bool = False,
    loss: Loss | None = None,
    augment: Augment = crop_and_jitter,
) -> dict[str, Any]:
    """Train into the folder `out`; returns the record of the best evaluation.

    The loss is the contrastive one, or the sigmoid loss for a model with a logit bias, where none is given. The model
    kept is the one of the best mean validation recall. With `resume` a killed run goes on from
    its last evaluation, bit for bit; its settings must be the same.
    """
    training, validation = Split(data, "train", limit), Split(data, "validation", limit)
    if recipe.batch > len(training):
        raise UserError(f"--batch {recipe.batch} is larger than the training split ({len(training)} pairs).")
    said = {"limit": limit, "data": {split.name: split.digest for split in (training, validation)}}
    _open_run(out, dataclasses.asdict(recipe) | said, resume)
    captions = training.column("caption")
    model = first_model(recipe, captions)
    loss = loss or (sigmoid if model.config.logit_bias else contrastive)
    seen = Pairs(fitted_pixels(training, model.preprocessor), captions)
    held = fitted_pixels(validation, model.preprocessor)[:VALIDATION_PAIRS]
    unseen = Pairs(held, validation.column("caption")[:VALIDATION_PAIRS])
    rule = optimizer(recipe)
    step = make_step(model, rule, recipe.seed, loss, augment)
    log = Log(out, recipe.batch)
    with StateFolder(out) as states:
        state = first_state(model.params, rule)
        state = (states.latest(state) if resume else None) or state
        log.rewind(int(state.step))
        with progress("train", recipe.steps, "pairs", recipe.batch, int(state.step)) as advance:
            _run(recipe, model, step, state, seen, unseen, loss, log, states, advance)
    write_json(out / "summary.json", {"best": log.best, "medclip": __version__})
    articles = validation.column("article")[:VALIDATION_PAIRS]
    kept = load(out / "model")
    vectors = embed_pixels(kept, unseen.pixels), embed_texts(kept, unseen.captions)
    found = both_ways(*vectors, articles, recipe.seed)
    write_card(out / "model", recipe, training, len(validation), log.best["step"], found)
    return log.best


def _run(
    recipe: Recipe,
    model: Model,
    step: Any,
    state: State,
    seen: Pairs,
    unseen: Pairs,
    loss: Loss,
    log: Log,
    states: StateFolder,
    advance: Advance,
) -> None:
    first = int(state.step)
    for number, batch in _batches(seen, model, recipe, first):
        state, told = step(state, batch)
        if number == first:  # which compiles, so it is left out of the rate
            jax.block_until_ready(told)
            start = time.monotonic()
        at = number + 1
        due = at * recipe.evaluations // recipe.steps > number * recipe.evaluations // recipe.steps
        if at % max(1, recipe.steps // 200) == 0 or due:
            told = {name: float(value) for name, value in told.items()}
            if not math.isfinite(told["loss"]):
                raise WorkError(f"the loss is {told['loss']} at step {at}; the last good model is in {log.out}/model.")
            rate = (number - first) * recipe.batch / (time.monotonic() - start)
            log.write({"step": at, **told, **({"pairs_per_s": round(rate, 1)} if number > first else {})})
            advance(0, loss=told["loss"])
        advance(1)
        if due:
            _evaluate(recipe, dataclasses.replace(model, params=state.params), unseen, loss, at, log)
            states.save(state)


def _batches(seen: Pairs, model: Model, recipe: Recipe, first: int) -> Iterator[tuple[int, Batch]]:
    """Batches from step `first` on, the next one made while the device works on this one."""

    def make(number: int) -> Batch:
        rows = rows_at(len(seen.pixels), recipe.batch, recipe.seed, number)
        captions = [seen.captions[row] for row in rows]
        room = int(recipe.batch * recipe.exchanged_sides)
        ids, valid = model.tokens.encode(captions + _wrong_sides(captions, room))
        pad = ((0, recipe.batch + room - len(ids)), (0, 0))
        return Batch(seen.pixels[rows], np.pad(ids, pad), np.pad(valid, pad))

    with ThreadPoolExecutor(1) as ahead:
        waiting = ahead.submit(make, first)
        for number in range(first, recipe.steps):
            batch = waiting.result()
            if number + 1 < recipe.steps:
                waiting = ahead.submit(make, number + 1)
            yield number, batch


def _wrong_sides(captions: Sequence[str], most: int) -> list[str]:
    """The first one-sided captions with left and right exchanged."""
    return [wrong for caption in captions if (wrong := mirrored(caption))][:most]


def _evaluate(recipe: Recipe, model: Model, unseen: Pairs, loss: Loss, at: int, log: Log) -> None:
    record = {"step": at, **validate(model, unseen, recipe.batch, loss)}
    if log.best is None or record["mean_recall"] > log.best["mean_recall"]:
        save(model, log.out / "model")
    log.write(record)


def validate(model: Model, unseen: Pairs, batch: int, loss: Loss = contrastive) -> dict[str, Any]:
    """Validation loss in batches of `batch`, as in training, and recall both ways averaged; no augmentation."""
    images, texts = embed_pixels(model, unseen.pixels), embed_texts(model, unseen.captions)
    whole = max(1, len(images) // batch) * batch
    chunks = [slice(start, start + batch) for start in range(0, whole, batch)]
    losses = [float(loss(images[chunk], texts[chunk], model.params, None)) for chunk in chunks]
    found = ranks(images, texts), ranks(texts, images)
    recalls = {f"R@{k}": float(np.mean([recall_at(r, k) for r in found])) for k in KS}
    mean = float(np.mean(list(recalls.values())))
    return {"validation_loss": float(np.mean(losses)), **recalls, "mean_recall": mean, "pool": len(images)}


def _open_run(out: Path, settings: dict[str, Any], resume: bool) -> None:
    if not resume:
        claim(out, "config.json")
        write_json(out / "config.json", settings)
        return
    before = read_json(out / "config.json", "a run to resume")
    changed = [f"{k}: {before.get(k)} then, {v} now" for k, v in settings.items() if before.get(k) != v]
    if changed:
        raise UserError(f"--resume {out} with other settings ({'; '.join(changed)}). Repeat the run's own.")


class Log:
    """`metrics.jsonl` and `curves.png` of a run, and the best evaluation so far."""

    def __init__(self, out: Path, batch: int):
        self.out, self._batch, self._path = out, batch, out / "metrics.jsonl"
        self.records: list[dict[str, Any]] = []

    def rewind(self, step: int) -> None:
        """Keep what was logged up to `step`: a killed run may have logged beyond its last state."""
        lines = self._path.read_text(encoding="utf-8").splitlines() if self._path.exists() else []
        self.records = [r for r in map(_whole_line, lines) if r and r["step"] <= step]
        with whole_file(self._path) as partial:
            partial.write_text("".join(json.dumps(r) + "\n" for r in self.records), encoding="utf-8")

    def write(self, record: dict[str, Any]) -> None:
        """Append one line; an evaluation redraws the curves."""
        self.records.append(record)
        with self._path.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(record) + "\n")
        if "validation_loss" in record:
            draw_curves(self.records, self.out / "curves.png", self._batch)

    @property
    def best(self) -> dict[str, Any] | None:
        """The evaluation of the best mean recall."""
        measured = [r for r in self.records if "mean_recall" in r]
        return max(measured, key=lambda r: r["mean_recall"], default=None)


def _whole_line(line: str) -> dict[str, Any] | None:
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return None
