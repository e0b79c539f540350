"""One run: from a prepared dataset to RUN/model, its curves and its metrics, a step at a time."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import jax
import numpy as np

from medclip import __version__, jax_setup
from medclip.data.dataset import Split
from medclip.data.paths import AnyPath
from medclip.errors import StoppedError, UserError, WorkError
from medclip.folder_locks import check_folder, lock_output
from medclip.metrics import Queries
from medclip.progress import Advance, console, progress
from medclip.recorded_files import CHECKSUMS_FILE
from medclip.training import checksums, distributed
from medclip.training.best_model import BestModel
from medclip.training.checkpoints import StateFolder
from medclip.training.config import ResolvedTrainConfig, TrainConfig, resolve
from medclip.training.data import Loader, make_loader
from medclip.training.log import CONFIG_FILE, METRICS_FILE, Callback, MetricsLog, open_run
from medclip.training.optim import make_optimizer
from medclip.training.run import Run, prepare_run
from medclip.training.step import Metrics, State, TrainStep, init_state, make_step
from medclip.training.trackers import open_trackers, require_trackers
from medclip.training.validation import recall_change, validate
from medclip.versions import library_versions, source_commit

LIBRARIES = ("jax", "jaxlib", "numpy", "optax", "pillow", "tokenizers", "ftfy")
NUM_LOG_LINES = 200  # steps of a run that leave a line


def train(
    data: AnyPath,
    out: Path,
    config: TrainConfig,
    *,
    max_samples: int | None = None,
    resume: bool = False,
    report_to: Sequence[str] = (),
    image_cache_gb: float = 8.0,
    cache: bool = True,
    callbacks: Sequence[Callback] = (),
) -> dict[str, Any]:
    """Train into the folder `out`; returns `summary.json`: `best`, the evaluation of the saved model, and `wise_ft`.

    The saved model is the one of the best mean validation recall: before the first step, after any or between the
    first and the last weights. `max_samples` limits both splits. With `resume` a run that ended early goes on from its
    last state, bit for bit; its settings must be the same. `report_to` names trackers besides TensorBoard. Images are
    decoded once where they then take at most `image_cache_gb` GB (10^9 bytes), or else at each step: the batches are
    the same. With `cache`, a frozen tower's features are read from and saved in the feature cache.
    Each of `callbacks` is called with the step and the metrics of every line that `metrics.jsonl` gets; what
    one raises ends the run. Raises UserError for a wrong setting, WorkError where the run cannot or should not go on.
    """
    training, validation = Split(data, "train", max_samples), Split(data, "validation", max_samples)
    resolved = resolve(config, len(training))
    require_trackers(report_to)
    if not distributed.is_first():
        check_folder(out)  # all processes stop, or none
    with lock_output(out, "model") if distributed.is_first() else nullcontext():
        if distributed.is_first():
            dataset_settings = {"max_samples": max_samples, "data": {s.name: s.digest for s in (training, validation)}}
            open_run(out, resolved.to_json() | dataset_settings, software_versions(), resume)
            checksums.record(out, CONFIG_FILE)
        try:
            run = prepare_run(resolved, training, validation, image_cache_gb, cache)
        except (UserError, WorkError):
            if distributed.is_first() and not resume:  # with other settings or data it is another run
                for name in (CONFIG_FILE, CHECKSUMS_FILE):
                    (out / name).unlink(missing_ok=True)
            raise
        return fit(run, out, resume=resume, report_to=report_to, callbacks=callbacks)


def software_versions() -> dict[str, str | None]:
    """What decides numbers besides the settings and the data."""
    devices = f"{jax.device_count()} {jax.devices()[0].device_kind}"
    return library_versions(*LIBRARIES) | {"commit": source_commit(), "devices": devices}


def fit(
    run: Run,
    out: Path,
    *,
    resume: bool = False,
    report_to: Sequence[str] = (),
    callbacks: Sequence[Callback] = (),
) -> dict[str, Any]:
    """Train a prepared run into `out`, which `open_run` made; arguments and result as of `train`."""
    config, mesh = run.config, run.mesh
    log = MetricsLog(out, config.batch_size, distributed.is_first())
    optimizer, trainable = make_optimizer(config, run.lr_scales), {name for name, lr in run.lr_scales.items() if lr}
    step = make_step(run.model, config, trainable, optimizer, run.loss, mesh)
    with ExitStack() as stack:
        states = stack.enter_context(StateFolder(out))
        first = init_state(run.params, trainable, optimizer, config.ema_decay > 0)
        first = jax.device_put(first, distributed.shardings(first, mesh, config.fsdp))
        log.rewind(config.steps)
        damaged_step = checksums.damaged_best_step(log) if resume else None
        before = min(damaged_step or math.inf, _first_unlogged(log, config, states))  # of step 0 the model is at hand
        state = (states.latest(first, before) if resume else None) or first
        log.rewind(int(state.step))
        distributed.barrier("log")  # all have read it before the first writes
        if distributed.is_first():
            settings = config.to_json() | {"medclip_version": __version__}
            trackers = stack.enter_context(open_trackers(report_to, out, settings, int(state.step)))
            log.callbacks = [trackers, *callbacks]
        best = BestModel(run, log)
        if damaged_step == 0:  # no step needs to be repeated for it
            best.save_again(first)
        return best.finish(_run_steps(run, log, best, states, step, state))


def _run_steps(
    run: Run, log: MetricsLog, best: BestModel, states: StateFolder, train_step: TrainStep, state: State
) -> State:
    """The training loop: from the state's step to the last one, or to early stopping."""
    config, first_step = run.config, int(state.step)
    if first_step == config.steps or _is_out_of_patience(config, log):
        return state  # the process that did these steps was killed afterwards
    ranks_before = _ranks_before(run, log, best, state)
    loader = make_loader(run.pairs, run.model, config, run.mesh.size, first_step)
    with (
        distributed.stop_requests() as stop_requested,
        progress("train", config.steps, "pairs", config.batch_size, first_step) as advance,
    ):
        logger = StepLogger(run, log, loader, advance)
        for step, (rows, batch) in enumerate(loader, first_step + 1):
            state, metrics = train_step(state, distributed.shard_blocks(batch, run.mesh))
            loader.device_output = metrics
            logger.push(step, rows, metrics)
            advance(1)
            jax_setup.limit_retained_memory()
            if is_evaluation_step(step, config):
                logger.flush()
                ranks = best.evaluate(state)
                states.save(state)
                logger.restart_clock(step)
                if _should_end(run, log, step, ranks_before, ranks):
                    break
            elif step == first_step + 1:  # it was compiled
                logger.flush()
                logger.restart_clock(step)
            if (received := stop_requested(step)) and step < config.steps:
                logger.flush()
                states.save(state)
                message = f"stopped at step {step} of {config.steps}, saved; the same command with --resume goes on."
                raise StoppedError(message, received)
    return state


def is_evaluation_step(step: int, config: ResolvedTrainConfig) -> bool:
    """Whether validation is measured and the state saved after `step` steps."""
    return step * config.num_evals // config.steps > (step - 1) * config.num_evals // config.steps


def _first_unlogged(log: MetricsLog, config: ResolvedTrainConfig, states: StateFolder) -> float:
    """The first step whose evaluation the log lacks; it is named where there are states of it or later."""
    logged = {record["step"] for record in log.evaluations}
    steps = (step for step in range(config.steps + 1) if step == 0 or is_evaluation_step(step, config))
    first = next((step for step in steps if step not in logged), math.inf)
    if first <= states.newest and distributed.is_first():
        console.print(f"warning: {METRICS_FILE} lacks the evaluation of step {first}, and maybe more: it was cut.")
    return first


class StepLogger:
    """Logs steps one late, so that the device always has the next one to do, and their speed.

    The clock starts after the first step, which compiles, and again after each evaluation.
    """

    def __init__(self, run: Run, log: MetricsLog, loader: Loader, advance: Advance):
        self._run, self._log, self._loader, self._advance = run, log, loader, advance
        self._pending: tuple[int, np.ndarray, Metrics] | None = None
        self._clock: tuple[int, float, float] | None = None

    def push(self, step: int, rows: np.ndarray, metrics: Metrics) -> None:
        """Take the metrics of a step under way, and log those of the step before."""
        self.flush()
        self._pending = step, rows, metrics

    def flush(self) -> None:
        """Log the last step, once it is done. WorkError where its loss or its gradient is not finite."""
        if not self._pending:
            return
        (step, rows, metrics), self._pending = self._pending, None
        values = {name: float(value) for name, value in metrics.items()}
        if not (math.isfinite(values["loss"]) and math.isfinite(values["gradient_norm"])):
            raise self._not_finite(step, rows, values)
        config = self._run.config
        if step % max(1, config.steps // NUM_LOG_LINES) == 0 or is_evaluation_step(step, config):
            speed = self._speed(step)
            self._log.write(step, values | speed)
            self._advance(0, loss=values["loss"], **_notes(speed))

    def restart_clock(self, step: int) -> None:
        """Measure speed from the end of `step` on."""
        self._clock = step, time.monotonic(), self._loader.wait_seconds

    def _speed(self, step: int) -> dict[str, float]:
        if not self._clock:
            return {}
        first_step, start, wait_before = self._clock
        seconds = time.monotonic() - start
        return {
            "pairs_per_s": round((step - first_step) * self._run.config.batch_size / seconds, 1),
            "data_wait_fraction": round((self._loader.wait_seconds - wait_before) / seconds, 3),
        }

    def _not_finite(self, step: int, rows: np.ndarray, values: dict[str, float]) -> WorkError:
        saved = max((record["step"] for record in self._log.evaluations), default=0)
        state = f"the state of step {saved} and " if saved else ""
        return WorkError(
            f"the loss is {values['loss']} and the norm of its gradient {values['gradient_norm']} at step {step}, "
            f"on the pairs {', '.join(self._run.pairs.split.take('id', rows))}. {self._log.out} holds "
            f"{state}the best model so far. Look at those pairs, or start again with a lower --lr."
        )


def _notes(speed: dict[str, float]) -> dict[str, float]:
    """What the progress line shows besides the loss."""
    memory = jax.local_devices()[0].memory_stats() or {}
    notes = {"% waiting for data": 100 * speed["data_wait_fraction"]} if speed else {}
    return notes | ({"GB": memory["peak_bytes_in_use"] / 1e9} if "peak_bytes_in_use" in memory else {})


def _ranks_before(run: Run, log: MetricsLog, best: BestModel, state: State) -> dict[str, Queries]:
    """Validation ranks by direction before the first step; a resumed run has logged that evaluation."""
    if log.evaluations:
        return validate(run.model, run.validation_set, run.config.batch_size).queries
    return best.evaluate(state)


def _should_end(
    run: Run, log: MetricsLog, step: int, ranks_before: dict[str, Queries], ranks: dict[str, Queries]
) -> bool:
    """Whether early stopping ends the run. WorkError for a significant regression with --on-regression stop."""
    config, unfinished = run.config, step < run.config.steps
    change = recall_change(ranks_before, ranks, run.validation_set.articles, config.seed)
    if math.isnan(change.high) and change.value < 0:
        console.print(
            f"warning: step {step}: mean validation recall is {-change.value:.1%} below that before the first step; as "
            "validation is of one article or patient, nothing says whether that is noise, and the run goes on."
        )
    if change.high < 0:
        message = (
            f"step {step}: mean validation recall is {-change.value:.1%} below that before the first step "
            f"(95 % interval {-change.high:.1%} to {-change.low:.1%})."
        )
        if config.on_regression == "stop" and unfinished:
            raise WorkError(
                f"{message} {log.out}/model holds the best weights so far. Start again with a lower --lr (now "
                f"{config.lr:g}), or with --on-regression warn where a regression at first is expected."
            )
        console.print(f"warning: {message}")
    if unfinished and _is_out_of_patience(config, log):
        console.print(f"stopped at step {step}: no better evaluation since step {log.best['step']}.")
        return True
    return False


def _is_out_of_patience(config: ResolvedTrainConfig, log: MetricsLog) -> bool:
    return 0 < config.early_stopping_patience <= log.evaluations_since_best
