"""Where the numbers of a run are shown besides `metrics.jsonl`: TensorBoard always, other trackers where asked for.

Scalars are named train/NAME or validation/NAME; R@1 is R_at_1, as not every tracker takes an @.
"""

from __future__ import annotations

import importlib
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

from medclip.atomic_io import read_json, write_json
from medclip.errors import UserError
from medclip.progress import console

_PROJECT = "medclip"
_INSTALL = {
    "wandb": "pip install wandb",
    # All of mlflow asks for an older pyarrow than ours. Its core is enough; the other two are for a local store.
    "mlflow": "pip install mlflow-skinny sqlalchemy alembic",
    # It asks for a Pillow below 13, and works with 13.
    "trackio": 'pip install trackio, then pip install "pillow>=13"',
}
# Libraries report to their makers what they are used for, and their errors with the paths in them.
_SILENCE = {"WANDB_ERROR_REPORTING": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}

Numbers = Mapping[str, float]


class Tracker(NamedTuple):
    """One place where a run is shown."""

    log: Callable[[int, Numbers], None]
    """Takes a step and its numbers by name."""
    close: Callable[[bool], None]
    """Takes whether the run failed."""


def require(names: Sequence[str]) -> None:
    """Import the libraries of trackers: a UserError names one that is absent, before a run's folder is made."""
    for name in names:
        _library(name)


@contextmanager
def tracking(
    names: Sequence[str], out: Path, settings: Mapping[str, Any], first: int
) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Show the run in `out` in TensorBoard and in `names`; yields `track(record)`, a line of `metrics.jsonl`.

    `first` is the step of the state that the run goes on from. A resumed run stays one run everywhere, by
    `out/tracking.json`. Raises UserError for a tracker that cannot start; one that fails later is left out, and said.
    """
    file = out / "tracking.json"
    kept = read_json(file, "a run") if file.exists() else {"id": secrets.token_hex(4), "sent": {}}
    settings = {name: _public(value) for name, value in settings.items()}
    sent, lost, failed = kept["sent"], set(), True
    trackers = {"tensorboard": _tensorboard(out, settings, first)}

    def track(record: Mapping[str, Any]) -> None:
        at = [record["step"], "validation_loss" in record]
        # What a killed run showed beyond its last state comes again. TensorBoard forgets it, the others have it.
        due = [name for name in trackers if name not in lost and at > sent.get(name, [-1])]
        for name in due:
            if not _worked(name, trackers[name].log, record["step"], _numbers(record)):
                lost.add(name)
            elif name in names:
                sent[name] = at
        if names:
            write_json(file, kept)

    try:
        for name in names:
            trackers[name] = _started(name, out, kept, settings)
        yield track
        failed = False
    finally:
        for name, tracker in trackers.items():
            _worked(name, tracker.close, failed)


def _tensorboard(out: Path, settings: Mapping[str, Any], first: int) -> Tracker:
    from tensorboardX import SummaryWriter

    purge = first + 1 if first else 0  # the record of the state's own step stays; without a state, a run begins anew
    writer = SummaryWriter(str(out / "tensorboard"), purge_step=purge, flush_secs=1)  # seconds that a kill loses
    rows = (f"| {name} | {value} |" for name, value in settings.items())
    writer.add_text("settings", "\n".join(["| setting | value |", "|---|---|", *rows]), first)

    def log(step: int, numbers: Numbers) -> None:
        for name, value in numbers.items():
            writer.add_scalar(name, value, step)

    return Tracker(log, lambda failed: writer.close())


def _started(name: str, out: Path, kept: dict[str, Any], settings: dict[str, Any]) -> Tracker:
    library = _library(name)
    start = {"wandb": _wandb, "mlflow": _mlflow, "trackio": _trackio}[name]
    try:
        tracker = start(library, out, kept, settings)
    except Exception as error:  # each library raises kinds of its own
        raise UserError(
            f"{name} did not start ({_first_line(error)}). Put that right (it was installed by: {_INSTALL[name]}?), or "
            f"leave out --report-to {name}."
        ) from None
    write_json(out / "tracking.json", kept)
    return tracker


def _wandb(wandb: Any, out: Path, kept: dict[str, Any], settings: dict[str, Any]) -> Tracker:
    numbers_only = wandb.Settings(
        console="off",
        disable_code=True,
        disable_git=True,
        disable_job_creation=True,
        host="",
        x_disable_machine_info=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_save_requirements=False,
        x_transaction_log_flush_interval=1.0,  # seconds that a kill loses
    )
    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT", _PROJECT),
        id=kept["id"],
        name=_name(out),
        dir=str(out),
        config=settings,
        allow_val_change=True,
        resume="allow",
        settings=numbers_only,
    )
    run.define_metric("*", step_metric="step")  # its own steps only rise, and an evaluation shares its step
    return Tracker(
        lambda step, numbers: run.log({"step": step, **numbers}), lambda failed: run.finish(exit_code=int(failed))
    )


def _mlflow(mlflow: Any, out: Path, kept: dict[str, Any], settings: dict[str, Any]) -> Tracker:
    client = mlflow.MlflowClient()  # not start_run, which tags the run with user, file and commit
    if "mlflow" not in kept:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT)
        there = client.get_experiment_by_name(name)
        experiment = there.experiment_id if there else client.create_experiment(name)
        kept["mlflow"] = client.create_run(experiment, run_name=_name(out)).info.run_id
        params = [mlflow.entities.Param(name, str(value)) for name, value in settings.items()]
        client.log_batch(kept["mlflow"], params=params)
    client.update_run(kept["mlflow"], status="RUNNING")

    def log(step: int, numbers: Numbers) -> None:
        now = int(time.time() * 1000)
        metrics = [mlflow.entities.Metric(name, value, now, step) for name, value in numbers.items()]
        client.log_batch(kept["mlflow"], metrics=metrics)

    return Tracker(log, lambda failed: client.set_terminated(kept["mlflow"], "FAILED" if failed else "FINISHED"))


def _trackio(trackio: Any, out: Path, kept: dict[str, Any], settings: dict[str, Any]) -> Tracker:
    with redirect_stdout(sys.stderr):
        trackio.init(
            project=_PROJECT,
            name=f"{_name(out)}-{kept['id']}",  # it knows runs by their names
            config=settings,
            resume="allow",
            private=True,  # where TRACKIO_SPACE_ID sends it to a Space
            embed=False,
            auto_log_cpu=False,
            auto_log_gpu=False,
        )

    def close(failed: bool) -> None:
        with redirect_stdout(sys.stderr):
            trackio.finish()

    return Tracker(lambda step, numbers: trackio.log(dict(numbers), step=step), close)


def _library(name: str) -> Any:
    for variable, value in _SILENCE.items():
        os.environ.setdefault(variable, value)
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(f"--report-to {name} needs a library that is not here ({error}): {_INSTALL[name]}.") from None


def _worked(name: str, do: Callable[..., None], *given: Any) -> bool:
    """Whether a tracker did it; that one cannot be reached must not cost hours of training."""
    try:
        do(*given)
    except Exception as error:
        said = f"warning: {name} failed ({_first_line(error)}) and is left out; metrics.jsonl has every number."
        console.print(said, markup=False, soft_wrap=True)
        return False
    return True


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def _name(out: Path) -> str:
    return out.resolve().name


def _numbers(record: Mapping[str, Any]) -> dict[str, float]:
    part = "validation" if "validation_loss" in record else "train"
    named = {name.removeprefix("validation_").replace("@", "_at_"): value for name, value in record.items()}
    return {f"{part}/{n}": float(v) for n, v in named.items() if n != "step" and isinstance(v, (int, float))}


def _public(value: Any) -> Any:
    """A setting without where it lies on this machine: of a path, its last two parts."""
    if isinstance(value, (list, tuple)):
        return [_public(one) for one in value]
    if isinstance(value, Path) or (isinstance(value, str) and "/" in value):
        path = Path(value)
        return "/".join([part for part in path.parts if part != path.anchor][-2:])
    return value
