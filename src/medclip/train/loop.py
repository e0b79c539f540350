"""One run: from a prepared dataset to RUN/model, its curves and its numbers."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from medclip import __version__
from medclip.atomic_io import write_json
from medclip.data.dataset import Split
from medclip.data.paths import AnyPath
from medclip.encode.encoder import embed_pixels, embed_texts
from medclip.errors import WorkError
from medclip.metrics import retrieval_metrics
from medclip.model.checkpoint import Model, load, save
from medclip.progress import console, progress
from medclip.train import distributed as devices
from medclip.train.augment import augmented
from medclip.train.checkpoints import StateFolder
from medclip.train.config import TrainConfig, resolve
from medclip.train.data import Pictures
from medclip.train.feed import Pairs, batches, read_images, read_pairs
from medclip.train.frozen_features import with_cached_features
from medclip.train.initial_model import initial_model
from medclip.train.learning import is_sigmoid, trainable_params
from medclip.train.log import Clock, Log, open_run
from medclip.train.lora import merged
from medclip.train.losses import contrastive, sigmoid
from medclip.train.model_card import write_card
from medclip.train.optim import is_frozen, optimizer
from medclip.train.signals import interruptible
from medclip.train.step import Augment, Loss, State, init_state, make_step
from medclip.train.trackers import require, tracking
from medclip.train.validation import ValidationSet, read_validation_set, recall_change, validate, wise_ft

LOGGED = 200  # steps of a run that leave a line


@dataclass(frozen=True)
class Run:
    """What does not change while a run goes on."""

    config: TrainConfig
    model: Model
    """As it was before the first step."""
    loss: Loss
    pairs: Pairs
    validation_set: ValidationSet
    mesh: Mesh
    log: Log


def train(
    data: AnyPath,
    out: Path,
    config: TrainConfig,
    *,
    max_samples: int | None = None,
    resume: bool = False,
    report_to: Sequence[str] = (),
    image_cache_gb: float = 8.0,
    loss: Loss | None = None,
    augment: Augment | None = None,
) -> dict[str, Any]:
    """Train into the folder `out`; returns its `summary.json`: the evaluation of the model kept, and those of WiSE-FT.

    The model kept is the one of the best mean validation recall, before the first step, after any or between. With
    `resume` a run that ended early goes on from its last state, bit for bit; its settings must be the same. `track`
    names trackers to show the numbers in. Images are decoded once where they then take at most `cache_gb` GB (10^9
    bytes), or else at each step: the batches are the same. `loss` and `augment` take the place of the recipe's own.
    Raises UserError for a wrong setting, WorkError where the run cannot or should not go on.
    """
    training, validation = Split(data, "train", max_samples), Split(data, "validation", max_samples)
    config = resolve(config, len(training))
    require(report_to)
    if devices.is_first():
        said = {"limit": max_samples, "data": {split.name: split.digest for split in (training, validation)}}
        open_run(out, dataclasses.asdict(config) | said, resume)
    if config.flip:
        console.print("warning: --flip makes left and right wrong in captions that name them.")
    model = initial_model(config, training.iter_column("caption"))
    params, shares = trainable_params(model, config)
    loss = loss or (sigmoid if is_sigmoid(model, config) else contrastive)
    once = is_frozen(model.config.vision, shares)  # then pools take the place of pixels
    images = (
        Pictures(training, model.preprocessor) if once else read_images(training, model.preprocessor, image_cache_gb)
    )
    pairs = with_cached_features(read_pairs(training, images, bool(config.soft_target_temperature)), model, shares)
    log, mesh = Log(out, config.batch_size, devices.is_first()), devices.all_devices()
    run = Run(config, model, loss, pairs, read_validation_set(validation, model), mesh, log)
    learn, rule = {name for name, share in shares.items() if share}, optimizer(config, shares)
    augment = augment or partial(augmented, recipe=config)
    step = make_step(model, config, learn, rule, loss, augment, mesh, len(pairs.concepts))
    with ExitStack() as stack:
        states = stack.enter_context(StateFolder(out))
        state = init_state(params, learn, rule, bool(config.ema_decay))
        state = jax.device_put(state, devices.shardings(state, mesh, config.fsdp))
        state = (states.latest(state) if resume else None) or state
        log.rewind(int(state.step))
        devices.wait_for_all("log")  # all have read it before the first writes
        if devices.is_first():
            settings = dataclasses.asdict(config) | {"medclip": __version__}
            log.track = stack.enter_context(tracking(report_to, out, settings, int(state.step)))
        state = _steps(run, step, state, states)
        return _finish(run, state, training, len(validation))


def _steps(run: Run, step: Any, state: State, states: StateFolder) -> State:
    recipe, first = run.config, int(state.step)
    again = bool(run.log.measured)  # a resumed run has logged its first evaluation
    before = validate(run.model, run.validation_set, recipe.batch_size)[1] if again else _evaluate(run, state, first)
    with ExitStack() as stack:
        asked, watch = stack.enter_context(interruptible()), stack.enter_context(ThreadPoolExecutor(1))
        advance = stack.enter_context(progress("train", recipe.steps, "pairs", recipe.batch_size, first))
        clock = Clock(recipe.batch_size)
        waiting: list[Any] = []
        ended: Future[float] | None = None
        for number, rows, batch, since in batches(run.pairs, run.model, recipe, run.mesh.size, first):
            ready = time.monotonic()
            state, told = step(state, devices.by_blocks(batch, run.mesh))
            at = number + 1
            if waiting:  # told one step late, so that the device always has the next one to do
                _tell(run, *waiting.pop(), clock, advance)
            if ended:  # until the step before was done the device did not wait, though this thread may have
                clock.waited += max(0.0, ready - max(since, ended.result()))
            ended = watch.submit(_end, told)
            waiting.append((at, rows, told))
            due = _due(at, recipe)
            stop = asked() or devices.stop_asked(at)
            if due or stop or number == first:
                _tell(run, *waiting.pop(), clock, advance)
            if due:
                now = _evaluate(run, state, at)
            if due or stop:
                states.save(state)
            if due or number == first:
                clock.restart(at)
            advance(1)
            if due and _ends(run, before, now, at):
                return state
            if stop and at < recipe.steps:
                raise WorkError(
                    f"stopped at step {at} of {recipe.steps}, saved; the same command with --resume goes on."
                )
    return state


def _end(told: dict[str, jax.Array]) -> float:
    """When a step was done."""
    jax.block_until_ready(told)
    return time.monotonic()


def _due(at: int, recipe: TrainConfig) -> bool:
    return at * recipe.num_evals // recipe.steps > (at - 1) * recipe.num_evals // recipe.steps


def _tell(run: Run, at: int, rows: np.ndarray, told: dict[str, jax.Array], clock: Clock, advance: Any) -> None:
    """Log a step where its turn is. WorkError where its loss or its gradient is not finite."""
    values = {name: float(value) for name, value in told.items()}
    if not (math.isfinite(values["loss"]) and math.isfinite(values["gradient_norm"])):
        last = max((r["step"] for r in run.log.measured), default=0)
        raise WorkError(
            f"the loss is {values['loss']} and the norm of its gradient {values['gradient_norm']} at step {at}, "
            f"on the pairs {', '.join(run.pairs.split.take('id', rows))}. {run.log.out} holds the state of step "
            f"{last} and the best model so far. Look at those pairs, or start again with a lower --lr."
        )
    if at % max(1, run.config.steps // LOGGED) == 0 or _due(at, run.config):
        speed = clock.read(at)
        run.log.write({"step": at, **values, **speed})
        advance(0, loss=values["loss"], **_shown(speed))


def _shown(speed: dict[str, float]) -> dict[str, float]:
    memory = jax.local_devices()[0].memory_stats() or {}
    shown = {"% waiting for data": 100 * speed["waiting"]} if speed else {}
    return shown | ({"GB": memory["peak_bytes_in_use"] / 1e9} if "peak_bytes_in_use" in memory else {})


def _evaluate(run: Run, state: State, at: int) -> np.ndarray:
    """Log how good the weights are, keep the model where it is the best so far; ranks (n, 2)."""
    model, rest = plain(run, state)
    record, ranks = validate(model, run.validation_set, run.config.batch_size, run.loss, rest)
    if devices.is_first() and (run.log.best is None or record["mean_recall"] > run.log.best["mean_recall"]):
        save(model, run.log.out / "model")
    run.log.write({"step": at, **record})
    return ranks


def plain(run: Run, state: State) -> tuple[Model, dict[str, Any]]:
    """The model of a state under its own names, and what is trained beside it."""
    whole = merged(devices.everywhere(state.eval_params, run.mesh))
    own = {name: whole[name] for name in run.model.params}
    return dataclasses.replace(run.model, params=own), {n: whole[n] for n in whole if n not in own}


def _ends(run: Run, before: np.ndarray, now: np.ndarray, at: int) -> bool:
    """Whether the run should end here. WorkError where it fell clearly below its start and the guard says stop."""
    recipe, measured = run.config, run.log.measured
    change = recall_change(before, now, run.validation_set.articles, recipe.seed)
    if change["high"] < 0:
        said = (
            f"step {at}: mean validation recall is {-change['value']:.1%} below that before the first step "
            f"(95 % interval {-change['high']:.1%} to {-change['low']:.1%})."
        )
        if recipe.on_regression == "stop" and at < recipe.steps:  # at the end nothing is left to stop
            raise WorkError(
                f"{said} {run.log.out}/model holds the best weights so far. Start again with a lower --lr (now "
                f"{recipe.lr:g}), or with --on-regression warn where a fall at first is expected."
            )
        console.print(f"warning: {said}")
    since = len(measured) - 1 - measured.index(run.log.best)
    if recipe.early_stopping_patience and since >= recipe.early_stopping_patience and at < recipe.steps:
        console.print(f"stopped at step {at}: no better mean recall since step {run.log.best['step']}.")
        return True
    return False


def _finish(run: Run, state: State, training: Split, held: int) -> dict[str, Any]:
    out, best, tried = run.log.out, run.log.best, []
    if run.config.init:
        best, tried = _between(run, state, best)
    summary = {"best": best, "wise_ft": tried, "medclip": __version__}
    if devices.is_first():
        write_json(out / "summary.json", summary)
        kept = load(out / "model")
        vectors = embed_pixels(kept, run.validation_set.pixels), embed_texts(kept, run.validation_set.captions)
        found = retrieval_metrics(*vectors, run.validation_set.articles, run.config.seed)
        write_card(out / "model", run.config, training, held, best, found)
    devices.wait_for_all("finished")
    return summary


def _between(run: Run, state: State, best: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The best of the run and of the weights between its first and its last, which is kept; and what was tried."""
    last, rest = plain(run, state)

    def measure(params: dict[str, Any]) -> dict[str, Any]:
        model = dataclasses.replace(run.model, params=params)
        return {
            "step": int(state.step),
            **validate(model, run.validation_set, run.config.batch_size, run.loss, rest)[0],
        }

    tried = []
    for record, params in wise_ft(run.model.params, last.params, measure):
        tried.append(record)
        if record["mean_recall"] > best["mean_recall"]:
            best = record
            if devices.is_first():
                save(dataclasses.replace(run.model, params=params), run.log.out / "model")
    return best, tried
