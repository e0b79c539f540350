"""A run's metrics elsewhere: TensorBoard's file read back, other trackers as stand-ins that record what they get."""

import errno
import json
import struct
import sys
from types import ModuleType, SimpleNamespace
from unittest.mock import Mock

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from medclip.errors import UserError
from medclip.training.loop import train
from medclip.training.trackers import open_trackers, require_trackers

STEP = {"loss": 2.0, "pairs_per_s": 10.0}
EVALUATION = {"validation_loss": 2.5, "R@1": 0.25, "mean_recall": 0.5, "num_candidates": 12}
STEP_SCALARS = {"train/loss": 2.0, "train/pairs_per_s": 10.0}
EVALUATION_SCALARS = {
    "validation/loss": 2.5,
    "validation/R_at_1": 0.25,
    "validation/mean_recall": 0.5,
    "validation/num_candidates": 12.0,
}


def events(folder):
    """Every event of TensorBoard's files in order: length u64, its checksum, the message, its checksum."""
    for path in sorted(folder.glob("events.*")):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            yield Event.FromString(data[at + 12 : at + 12 + length])
            at += 16 + length


def scalars(folder):
    return {
        (v.tag, e.step): v.simple_value for e in events(folder) for v in e.summary.value if v.HasField("simple_value")
    }


@pytest.fixture
def wandb(monkeypatch):
    """A stand-in for Weights & Biases: what it was started with and sent."""
    module = ModuleType("wandb")
    module.started, module.sent, module.ended = [], [], []
    module.Settings = lambda **settings: settings

    def init(**arguments):
        module.started.append(arguments)
        return SimpleNamespace(
            define_metric=lambda *_, **__: None,
            log=module.sent.append,
            finish=lambda exit_code: module.ended.append(exit_code),
        )

    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


@pytest.fixture
def mlflow(monkeypatch):
    """A stand-in for MLflow's client."""
    module = ModuleType("mlflow")
    module.runs, module.sent, module.settings, module.ended = [], [], {}, []

    def log_batch(run, metrics=(), params=()):
        module.sent += [(run, m.key, m.value, m.step) for m in metrics]
        module.settings |= {p.key: p.value for p in params}

    client = SimpleNamespace(
        get_experiment_by_name=lambda name: None,
        create_experiment=lambda name: "1",
        create_run=lambda experiment, run_name: (
            module.runs.append(run_name) or SimpleNamespace(info=SimpleNamespace(run_id="r1"))
        ),
        log_batch=log_batch,
        update_run=lambda run, status: None,
        set_terminated=lambda run, status: module.ended.append((run, status)),
    )
    module.MlflowClient = lambda: client
    module.entities = SimpleNamespace(
        Param=lambda key, value: SimpleNamespace(key=key, value=value),
        Metric=lambda key, value, timestamp, step: SimpleNamespace(key=key, value=value, step=step),
    )
    monkeypatch.setitem(sys.modules, "mlflow", module)
    return module


@pytest.fixture
def trackio(monkeypatch):
    """A stand-in for trackio."""
    module = ModuleType("trackio")
    module.started, module.sent, module.ended = [], [], []
    module.init = lambda **arguments: module.started.append(arguments)
    module.log = lambda numbers, step: module.sent.append((step, numbers))
    module.finish = lambda: module.ended.append(True)
    monkeypatch.setitem(sys.modules, "trackio", module)
    return module


def test_tensorboard_has_every_number_of_metrics_jsonl(run):
    events_scalars = scalars(run / "tensorboard")
    for line in (run / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        part = "validation" if "validation_loss" in record else "train"
        for name, value in record.items():
            if name != "step":
                tag = f"{part}/{name.removeprefix('validation_').replace('@', '_at_')}"
                assert events_scalars.pop((tag, record["step"])) == pytest.approx(value, rel=1e-6), tag
    assert not events_scalars


def test_a_resumed_run_has_tensorboard_forget_what_comes_again(tmp_path):
    with open_trackers((), tmp_path, {}, 0) as send:
        for step in (1, 2, 3):
            send(step, {"loss": 1.0})
    with open_trackers((), tmp_path, {}, 2) as send:
        send(3, {"loss": 2.0})
    starts = [e.step for e in events(tmp_path / "tensorboard") if e.session_log.status == SessionLog.START]
    assert starts[-1] == 3  # TensorBoard drops what an older file says from this step on
    assert not (tmp_path / "tracking.json").exists()


@pytest.mark.parametrize(
    "text", ["[]", '{"id": "a"}', '{"id": 3, "sent": {}}', '{"id": "a", "sent": {"wandb": ["x"]}}']
)
def test_a_memory_of_another_form_is_named_before_a_step(tmp_path, text):
    (tmp_path / "tracking.json").write_text(text)
    with pytest.raises(UserError, match=r"tracking\.json"), open_trackers((), tmp_path, {}, 0):
        raise AssertionError


def send_twice(name, out):
    """A run that is killed before its first state, and resumed: all comes again, and one step more."""
    require_trackers([name])
    with open_trackers([name], out, {"lr": 0.1}, 0) as send:
        send(1, STEP)
        send(1, EVALUATION)
    with open_trackers([name], out, {"lr": 0.1}, 0) as send:
        send(1, STEP)
        send(1, EVALUATION)
        send(2, STEP)


EXPECTED = [(1, STEP_SCALARS), (1, EVALUATION_SCALARS), (2, STEP_SCALARS)]


def test_wandb_gets_every_number_once_and_keeps_one_run(wandb, tmp_path):
    send_twice("wandb", tmp_path)
    assert wandb.sent == [{"step": step, **scalars} for step, scalars in EXPECTED]
    assert len({arguments["id"] for arguments in wandb.started}) == 1
    assert {arguments["name"] for arguments in wandb.started} == {tmp_path.name}
    assert wandb.started[0]["config"] == {"lr": 0.1}
    assert wandb.ended == [0, 0]


def test_mlflow_gets_every_number_once_and_keeps_one_run(mlflow, tmp_path):
    send_twice("mlflow", tmp_path)
    assert mlflow.sent == [("r1", name, value, step) for step, scalars in EXPECTED for name, value in scalars.items()]
    assert (mlflow.runs, mlflow.settings) == ([tmp_path.name], {"lr": "0.1"})
    assert mlflow.ended == [("r1", "FINISHED")] * 2


def test_trackio_gets_every_number_once_and_keeps_one_run(trackio, tmp_path):
    send_twice("trackio", tmp_path)
    assert trackio.sent == EXPECTED
    assert len({arguments["name"] for arguments in trackio.started}) == 1
    assert trackio.started[0]["name"].startswith(tmp_path.name)
    assert trackio.started[0]["config"] == {"lr": 0.1}
    assert trackio.ended == [True, True]


def test_several_trackers_get_the_same(wandb, mlflow, trackio, tmp_path):
    with open_trackers(("wandb", "mlflow", "trackio"), tmp_path, {}, 0) as send:
        send(1, STEP)
    assert wandb.sent == [{"step": 1, **STEP_SCALARS}]
    assert trackio.sent == [(1, STEP_SCALARS)]
    assert {(name, value) for _, name, value, _ in mlflow.sent} == set(STEP_SCALARS.items())


def test_a_run_that_fails_is_marked_as_failed(wandb, mlflow, tmp_path):
    with pytest.raises(RuntimeError, match="loss"), open_trackers(("wandb", "mlflow"), tmp_path, {}, 0):
        raise RuntimeError("the loss is nan")
    assert (wandb.ended, mlflow.ended) == ([1], [("r1", "FAILED")])


def test_paths_of_this_machine_are_not_sent(wandb, tmp_path):
    with open_trackers(("wandb",), tmp_path, {"init": "/home/jane.doe/models/clip/model", "batch_size": 8}, 0):
        pass
    assert wandb.started[0]["config"] == {"init": "clip/model", "batch_size": 8}
    off = {k: v for k, v in wandb.started[0]["settings"].items() if k.startswith(("disable", "x_disable"))}
    assert off
    assert all(off.values())


@pytest.mark.slow
def test_a_tracker_that_breaks_costs_the_run_nothing(wandb, data, train_config, tmp_path, capsys, monkeypatch):
    def unreachable(_):
        raise ConnectionError("no route")

    monkeypatch.setattr(wandb, "init", lambda **_: SimpleNamespace(
        define_metric=lambda *_, **__: None, log=unreachable, finish=lambda exit_code: None
    ))  # fmt: skip
    train(data, tmp_path / "run", train_config, report_to=("wandb",))
    assert (tmp_path / "run" / "summary.json").exists()
    assert capsys.readouterr().err.count("wandb failed (ConnectionError: no route)") == 1


def test_a_tracker_that_does_not_start_is_a_mistake_in_words(wandb, tmp_path, monkeypatch):
    def refuse(**_):
        raise PermissionError("no key")

    monkeypatch.setattr(wandb, "init", refuse)
    with (
        pytest.raises(UserError, match=r"wandb did not start \(PermissionError: no key\)"),
        open_trackers(("wandb",), tmp_path, {}, 0),
    ):
        pass


@pytest.mark.parametrize(
    ("name", "remedy"),
    [("wandb", "pip install wandb"), ("mlflow", "pip install mlflow-skinny"), ("trackio", "pip install trackio")],
)
def test_an_absent_library_is_named_before_anything_is_made(data, train_config, tmp_path, monkeypatch, name, remedy):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=remedy):
        train(data, tmp_path / "run", train_config, report_to=(name,))
    assert not (tmp_path / "run").exists()


def test_an_unknown_tracker_is_refused_before_anything_is_made(data, train_config, tmp_path):
    with pytest.raises(UserError, match=r"--report-to wandbs is not one of: wandb, mlflow, trackio"):
        train(data, tmp_path / "run", train_config, report_to=("wandbs",))
    assert not (tmp_path / "run").exists()


def test_a_run_goes_on_without_tensorboard_where_there_is_no_shared_memory(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("_multiprocessing.SemLock", Mock(side_effect=OSError(errno.EROFS, "Read-only file system")))
    with open_trackers([], tmp_path, {}, 0) as send:
        send(1, STEP)
    warning = capsys.readouterr().err
    assert warning.startswith("warning: tensorboard failed (OSError: [Errno 30] Read-only file system) and is dropped;")
