"""Experiment trackers that show a run's metrics: TensorBoard always, others on request.

Scalars are named train/NAME or validation/NAME; R@1 is R_at_1, as not every tracker takes an @.
"""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from configparser import ConfigParser
from configparser import Error as ConfigParserError
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from medclip.atomic_io import read_optional, write_json
from medclip.bounded_files import read_text
from medclip.errors import UserError
from medclip.hosts import check_clear_text, check_hub_endpoint, without_credentials
from medclip.progress import console
from medclip.require import require
from medclip.training import checksums
from medclip.training.log import Callback, is_evaluation

TENSORBOARD_DIR, TRACKING_FILE = "tensorboard", "tracking.json"
_PROJECT = "medclip"
_INSTALL = {
    "wandb": "wandb",
    "mlflow": "mlflow-skinny sqlalchemy alembic",  # its core, and the two that a local store needs
    "trackio": "trackio",
}
# The variable that names a tracker's server, and those whose secrets are sent there.
_SERVERS = {
    "wandb": ("WANDB_BASE_URL", ("WANDB_API_KEY",)),
    "mlflow": ("MLFLOW_TRACKING_URI", ("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_PASSWORD")),
    "trackio": ("TRACKIO_SERVER_URL", ("TRACKIO_WRITE_TOKEN",)),
}
_WANDB_NAMES = {"entity", "project", "organization"}
# Libraries report to their makers what they are used for, and their errors with the paths in them.
_NO_TELEMETRY = {"WANDB_ERROR_REPORTING": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}


@runtime_checkable
class Tracker(Protocol):
    """A place that shows a run."""

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Show the scalars of a step."""
        ...

    def close(self, failed: bool) -> None:
        """Mark the run as finished or failed."""
        ...


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker starts from."""

    out: Path
    settings: Mapping[str, Any]
    """Without paths of this machine."""
    first_step: int
    """The step of the state that the run goes on from."""
    memory: dict[str, Any]
    """`tracking.json`, by which a resumed run stays one run: `id`, `sent` (the last record by tracker), and more."""

    @property
    def name(self) -> str:
        """The name of the run's folder."""
        return self.out.resolve().name


class TensorBoard:
    """Event files in RUN/tensorboard."""

    def __init__(self, run: TrackedRun):
        from tensorboardX import SummaryWriter

        # the record of the state's own step stays; without a state, a run begins anew
        purge_step = run.first_step + 1 if run.first_step else 0
        flush_secs = 1  # seconds that a kill loses
        self._writer = SummaryWriter(str(run.out / TENSORBOARD_DIR), purge_step=purge_step, flush_secs=flush_secs)
        rows = (f"| {name} | {value} |" for name, value in run.settings.items())
        self._writer.add_text("settings", "\n".join(["| setting | value |", "|---|---|", *rows]), run.first_step)

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)

    def close(self, failed: bool) -> None:
        self._writer.close()


class Wandb:
    """Weights & Biases, scalars and settings only."""

    def __init__(self, run: TrackedRun):
        wandb = _library("wandb")
        scalars_only = wandb.Settings(
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
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT),
            id=run.memory["id"],
            name=run.name,
            dir=str(run.out),
            config=run.settings,
            allow_val_change=True,
            resume="allow",
            settings=scalars_only,
        )
        self._run.define_metric("*", step_metric="step")  # its own steps only rise, and an evaluation shares its step

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        self._run.log({"step": step, **scalars})

    def close(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


class Mlflow:
    """MLflow, by its client: `start_run` would tag the run with user, file and commit."""

    def __init__(self, run: TrackedRun):
        self._entities = _library("mlflow").entities
        self._client = client = _library("mlflow").MlflowClient()
        if "mlflow" not in run.memory:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT)
            experiment = client.get_experiment_by_name(name)
            experiment_id = experiment.experiment_id if experiment else client.create_experiment(name)
            run.memory["mlflow"] = client.create_run(experiment_id, run_name=run.name).info.run_id
            params = [self._entities.Param(name, str(value)) for name, value in run.settings.items()]
            client.log_batch(run.memory["mlflow"], params=params)
        self._run_id = run.memory["mlflow"]
        client.update_run(self._run_id, status="RUNNING")

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        metrics = [self._entities.Metric(name, value, now, step) for name, value in scalars.items()]
        self._client.log_batch(self._run_id, metrics=metrics)

    def close(self, failed: bool) -> None:
        self._client.set_terminated(self._run_id, "FAILED" if failed else "FINISHED")


class Trackio:
    """Trackio; what it prints goes to standard error."""

    def __init__(self, run: TrackedRun):
        self._trackio = _library("trackio")
        with redirect_stdout(sys.stderr):
            self._trackio.init(
                project=_PROJECT,
                name=f"{run.name}-{run.memory['id']}",  # it knows runs by their names
                config=run.settings,
                resume="allow",
                private=True,  # where TRACKIO_SPACE_ID sends it to a Space
                embed=False,
                auto_log_cpu=False,
                auto_log_gpu=False,
            )

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        self._trackio.log(dict(scalars), step=step)

    def close(self, failed: bool) -> None:
        with redirect_stdout(sys.stderr):
            self._trackio.finish()


TRACKERS: dict[str, Callable[[TrackedRun], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": Wandb,
    "mlflow": Mlflow,
    "trackio": Trackio,
}


def require_trackers(names: Sequence[str]) -> None:
    """Import the libraries of trackers: a UserError names an unknown or absent one, before a run's folder is made."""
    require("tensorboardX", extra="train")
    for name in names:
        if name not in _INSTALL:
            raise UserError(f"--report-to {name} is not one of: {', '.join(_INSTALL)}.")
        _check_secrets(*_SERVERS[name])
        if name == "wandb":
            _check_wandb_settings()
        if name == "trackio" and os.environ.get("TRACKIO_SPACE_ID"):  # a Space of the Hub
            check_hub_endpoint()
        _library(name)


def _check_secrets(server: str, variables: Sequence[str]) -> None:
    """UserError where a secret would go over clear text to the server that the variable `server` names."""
    url = os.environ.get(server, "").strip()
    sent = [name for name in variables if os.environ.get(name)]
    if without_credentials(url) != url:
        sent.append(f"the secret in {server}")
    for name in sent:
        check_clear_text(name, url, f"give {server} as https://.")


def _check_wandb_settings() -> None:
    """UserError for settings beside the user's own that say more than whose the run is: where the key goes, say.

    Weights & Biases reads them from the working folder, which may be a stranger's.
    """
    for file in (Path(folder, "settings") for folder in ("wandb", ".wandb")):
        settings = ConfigParser(interpolation=None)
        try:
            settings.read_string(read_text(file, errors="replace") if file.is_file() else "")
            names = {name for section in settings.values() for name in section}
        except ConfigParserError:
            names = {"what is no setting"}
        if others := sorted(names - _WANDB_NAMES):
            raise UserError(
                f"{file} of the working folder holds {others[0]}, which may choose where WANDB_API_KEY goes: delete "
                "that, and name the server in WANDB_BASE_URL."
            )


@contextmanager
def open_trackers(names: Sequence[str], out: Path, settings: Mapping[str, Any], first_step: int) -> Iterator[Callback]:
    """Show the run in `out` in TensorBoard and in `names`; yields the callback that sends them a record.

    `first_step` is the step of the state that the run goes on from. A resumed run stays one run everywhere, by
    `out/tracking.json`. UserError for a tracker of `names` that cannot start; one that fails later, or TensorBoard, is
    dropped with a warning.
    """
    file = out / TRACKING_FILE
    memory = _read_memory(file)
    run = TrackedRun(out, {name: _without_paths(value) for name, value in settings.items()}, first_step, memory)
    trackers: dict[str, Tracker] = {}
    _attempt("tensorboard", lambda: trackers.update(tensorboard=TensorBoard(run)))  # it needs /dev/shm
    failed, dropped = True, set()

    def send(step: int, metrics: Mapping[str, Any]) -> None:
        position = [step, is_evaluation(metrics)]
        for name, tracker in trackers.items():
            # What a killed run sent beyond its last state comes again. TensorBoard forgets it, the others have it.
            if name in dropped or position <= memory["sent"].get(name, [-1]):
                continue
            if not _attempt(name, lambda tracker=tracker: tracker.log(step, _scalars(metrics))):
                dropped.add(name)
            elif name in names:
                memory["sent"][name] = position
        if names:
            write_json(file, memory)

    try:
        for name in names:
            trackers[name] = _start(name, run)
            write_json(file, memory)
        yield send
        failed = False
    finally:
        for name, tracker in trackers.items():
            _attempt(name, lambda tracker=tracker: tracker.close(failed))
        for name in (TENSORBOARD_DIR, TRACKING_FILE):
            checksums.record(out, name)


def _read_memory(file: Path) -> dict[str, Any]:
    memory = read_optional(file, "a run") or {"id": secrets.token_hex(4), "sent": {}}
    sent = memory.get("sent")
    places = list(sent.values()) if isinstance(sent, dict) else [None]
    is_whole = all(isinstance(place, list) and all(isinstance(part, int) for part in place) for place in places)
    if not is_whole or not isinstance(memory.get("id"), str):
        raise UserError(f"{file} is damaged: delete it, and the trackers begin another run.")
    return memory


def _start(name: str, run: TrackedRun) -> Tracker:
    _library(name)
    try:
        return TRACKERS[name](run)
    except Exception as error:  # each library raises kinds of its own
        raise UserError(
            f"{name} did not start ({_first_line(error)}). Fix that (was it installed by pip install "
            f"{_INSTALL[name]}?), or leave out --report-to {name}."
        ) from None


def _library(name: str) -> Any:
    for variable, value in _NO_TELEMETRY.items():
        os.environ.setdefault(variable, value)
    return require(name, install=_INSTALL[name])


def _attempt(name: str, call: Callable[[], None]) -> bool:
    """Whether a tracker did it; that one cannot be reached must not cost hours of training."""
    try:
        call()
    except Exception as error:
        warning = f"warning: {name} failed ({_first_line(error)}) and is dropped; metrics.jsonl has every number."
        console.print(warning, markup=False, soft_wrap=True)
        return False
    return True


def _first_line(error: Exception) -> str:
    return without_credentials(f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}")


def _scalars(metrics: Mapping[str, Any]) -> dict[str, float]:
    part = "validation" if is_evaluation(metrics) else "train"
    named = {name.removeprefix("validation_").replace("@", "_at_"): value for name, value in metrics.items()}
    return {f"{part}/{name}": float(value) for name, value in named.items() if isinstance(value, (int, float))}


def _without_paths(value: Any) -> Any:
    """A setting without where it lies on this machine: of a path, its last two parts."""
    if isinstance(value, (list, tuple)):
        return [_without_paths(element) for element in value]
    if isinstance(value, Path) or (isinstance(value, str) and "/" in value):
        path = Path(value)
        return "/".join([part for part in path.parts if part != path.anchor][-2:])
    return value
