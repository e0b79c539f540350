"""The model that a run saves: the best one evaluated, and what is written about it when the run ends."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from medclip import __version__
from medclip.atomic_io import json_text
from medclip.encode.encoder import jax_backend
from medclip.match_calibration import write_calibration
from medclip.metrics import DIRECTIONS, Queries
from medclip.model.checkpoint import Model, load, model_hash
from medclip.model.towers import Params
from medclip.recorded_files import write_recorded
from medclip.training import checksums, distributed
from medclip.training.config import FromModel
from medclip.training.log import SUMMARY_FILE, MetricsLog, quality
from medclip.training.model_card import write_run_card
from medclip.training.optim import merge_lora
from medclip.training.run import Run
from medclip.training.step import State
from medclip.training.validation import ValidationResult, calibrate, validate, wise_ft
from medclip.versions import source_commit


class BestModel:
    """`RUN/model`, which is that of the best evaluation so far.

    What validation gave of it is held for its card; a resumed run that saves none measures the saved one at its end.
    """

    def __init__(self, run: Run, log: MetricsLog):
        self._run, self._log = run, log
        self._result: ValidationResult | None = None

    def evaluate(self, state: State) -> dict[str, Queries]:
        """Log validation, save the model where it is the best so far; ranks by direction."""
        log, (model, loss_params) = self._log, eval_model(self._run, state)
        result = self._validate(model, loss_params)
        if not log.evaluations or quality(result.metrics) > quality(log.best):
            self._save(model, result)
        log.write(int(state.step), result.metrics)
        return result.queries

    def save_again(self, state: State) -> None:
        """Save the model of a state whose evaluation was the best and is logged."""
        self._save(eval_model(self._run, state)[0])

    def finish(self, state: State) -> dict[str, Any]:
        """Try the weights between the first and the last, write the summary and the card of the saved model."""
        out, best, interpolations = self._log.out, self._log.best, []
        if isinstance(self._run.config.start, FromModel):
            best, interpolations = self._interpolate(state)
        summary = {"best": best, "wise_ft": interpolations, "hard_negatives": self._run.foil_shares}
        summary |= {"medclip_version": __version__, "commit": source_commit()}
        if distributed.is_first():
            self._describe(best)
            checksums.record_ended(out)
            write_recorded(out / SUMMARY_FILE, json_text(summary))  # last: it says that the run has ended
        distributed.barrier("finished")
        return summary

    def _validate(self, model: Model, loss_params: Params) -> ValidationResult:
        return validate(model, self._run.validation_set, self._run.config.batch_size, self._run.loss, loss_params)

    def _save(self, model: Model, result: ValidationResult | None = None) -> None:
        self._result = result
        if distributed.is_first():
            checksums.save_model(model, self._log.out)

    def _interpolate(self, state: State) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The best of the run and of WiSE-FT's weights, which are saved if better; and the evaluations of these."""
        run, (last, loss_params) = self._run, eval_model(self._run, state)
        best, records = self._log.best, []
        for alpha, params in wise_ft(run.model.params, last.params):
            model = dataclasses.replace(run.model, params=params)
            result = self._validate(model, loss_params)
            records.append({"alpha": alpha, "step": int(state.step), **result.metrics})
            if quality(records[-1]) > quality(best):
                best = records[-1]
                self._save(model, result)
        return best, [*records, {"alpha": 1.0, **self._log.evaluations[-1]}]

    def _describe(self, best: dict[str, Any]) -> None:
        """Write the card and the calibration of the saved model."""
        run, folder = self._run, self._log.out / "model"
        validation_set, seed, model = run.validation_set, run.config.seed, load(folder)
        _, pairs, queries = self._result or validate(model, validation_set, run.config.batch_size)
        metrics = {name: own.metrics(validation_set.articles, seed) for name, own in queries.items()}
        write_run_card(folder, model, run.config, run.pairs.split, run.validation, best, queries, metrics)
        to_text, to_image = DIRECTIONS
        if len(queries[to_text].rows) > 1:
            recall, origin = metrics[to_image]["R@10"], (model_hash(folder), run.validation.digest)
            captions = validation_set.captions
            # a frozen tower gives the same in the next run; another's features are of this model alone
            backend = jax_backend(model, run.cache and validation_set.text_features is not None)
            calibration = calibrate(backend, pairs, queries[to_image], recall, captions, *origin, seed)
            write_calibration(folder, calibration)


def eval_model(run: Run, state: State) -> tuple[Model, Params]:
    """The model of a state under its own names, and the loss's own parameters.

    Numbers equal to those of the initial model are its own, bit for bit: adding an update of zero would lose -0.
    """
    params = merge_lora(distributed.replicate(state.eval_params, run.mesh))
    own = _restore_equal(run.model.params, {name: params[name] for name in run.model.params})
    return dataclasses.replace(run.model, params=own), {name: p for name, p in params.items() if name not in own}


@jax.jit  # one program: tensor by tensor, each of their shapes takes two
def _restore_equal(initial: Params, params: Params) -> Params:
    return jax.tree.map(lambda first, own: jnp.where(own == first, first, own), initial, params)
