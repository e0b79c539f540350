"""The numbers of a run elsewhere: TensorBoard's file read back, other trackers as stand-ins that remember."""

import json
import struct
import sys
from types import ModuleType, SimpleNamespace

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from medclip.errors import UserError
from medclip.train.loop import train
from medclip.train.trackers import require, tracking

TRAINED = {"step": 1, "loss": 2.0, "pairs_per_s": 10.0}
MEASURED = {"step": 1, "validation_loss": 2.5, "R@1": 0.25, "mean_recall": 0.5, "pool": 12}


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

    def init(**given):
        module.started.append(given)
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
    module.runs, module.sent, module.ended = [], [], []

    def batch(run, metrics=(), params=()):
        module.sent += [(run, m.key, m.value, m.step) for m in metrics]

    client = SimpleNamespace(
        get_experiment_by_name=lambda name: None,
        create_experiment=lambda name: "1",
        create_run=lambda experiment, run_name: (
            module.runs.append(run_name) or SimpleNamespace(info=SimpleNamespace(run_id="r1"))
        ),
        log_batch=batch,
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
    module.init = lambda **given: module.started.append(given)
    module.log = lambda numbers, step: module.sent.append((step, numbers))
    module.finish = lambda: module.ended.append(True)
    monkeypatch.setitem(sys.modules, "trackio", module)
    return module


def test_tensorboard_has_every_number_of_metrics_jsonl(run):
    found = scalars(run / "tensorboard")
    for line in (run / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        part = "validation" if "validation_loss" in record else "train"
        for name, value in record.items():
            if name != "step":
                tag = f"{part}/{name.removeprefix('validation_').replace('@', '_at_')}"
                assert found.pop((tag, record["step"])) == pytest.approx(value, rel=1e-6), tag
    assert not found


def test_a_resumed_run_has_tensorboard_forget_what_comes_again(tmp_path):
    with tracking((), tmp_path, {}, 0) as track:
        for step in (1, 2, 3):
            track({"step": step, "loss": 1.0})
    with tracking((), tmp_path, {}, 2) as track:
        track({"step": 3, "loss": 2.0})
    starts = [e.step for e in events(tmp_path / "tensorboard") if e.session_log.status == SessionLog.START]
    assert starts[-1] == 3  # TensorBoard drops what an older file says from this step on
    assert not (tmp_path / "tracking.json").exists()


def test_every_tracker_gets_every_number_once_and_stays_one_run(wandb, mlflow, trackio, tmp_path):
    names = ("wandb", "mlflow", "trackio")
    require(names)
    with tracking(names, tmp_path, {"lr": 0.1}, 0) as track:
        track(TRAINED)
        track(MEASURED)
    with tracking(names, tmp_path, {"lr": 0.1}, 0) as track:  # killed before its first state: all comes again
        track(TRAINED)
        track(MEASURED)
        track(TRAINED | {"step": 2})
    train_1 = {"train/loss": 2.0, "train/pairs_per_s": 10.0}
    measured = {
        "validation/loss": 2.5,
        "validation/R_at_1": 0.25,
        "validation/mean_recall": 0.5,
        "validation/pool": 12.0,
    }
    expected = [(1, train_1), (1, measured), (2, train_1)]
    assert wandb.sent == [{"step": step, **numbers} for step, numbers in expected]
    assert trackio.sent == expected
    assert mlflow.sent == [("r1", name, value, step) for step, numbers in expected for name, value in numbers.items()]
    assert len({given["id"] for given in wandb.started}) == len({given["name"] for given in trackio.started}) == 1
    assert len(mlflow.runs) == 1
    assert (wandb.ended, mlflow.ended) == ([0, 0], [("r1", "FINISHED")] * 2)


def test_a_run_that_fails_is_marked_as_failed(wandb, mlflow, tmp_path):
    with pytest.raises(RuntimeError, match="loss"), tracking(("wandb", "mlflow"), tmp_path, {}, 0):
        raise RuntimeError("the loss is nan")
    assert (wandb.ended, mlflow.ended) == ([1], [("r1", "FAILED")])


def test_where_things_lie_on_this_machine_is_not_told(wandb, tmp_path):
    with tracking(("wandb",), tmp_path, {"init": "/home/jane.doe/models/clip/model", "batch": 8}, 0):
        pass
    assert wandb.started[0]["config"] == {"init": "clip/model", "batch": 8}
    switched_off = {k: v for k, v in wandb.started[0]["settings"].items() if k.startswith(("disable", "x_disable"))}
    assert switched_off
    assert all(switched_off.values())


def test_a_tracker_that_breaks_costs_the_run_nothing(wandb, data, recipe, tmp_path, capsys, monkeypatch):
    def unreachable(_):
        raise ConnectionError("no route")

    monkeypatch.setattr(wandb, "init", lambda **_: SimpleNamespace(
        define_metric=lambda *_, **__: None, log=unreachable, finish=lambda exit_code: None
    ))  # fmt: skip
    train(data, tmp_path / "run", recipe, report_to=("wandb",))
    assert (tmp_path / "run" / "summary.json").exists()
    said = capsys.readouterr().err
    assert said.count("wandb failed (ConnectionError: no route)") == 1


def test_a_tracker_that_does_not_start_is_a_mistake_in_words(wandb, tmp_path, monkeypatch):
    def refused(**_):
        raise PermissionError("no key")

    monkeypatch.setattr(wandb, "init", refused)
    with (
        pytest.raises(UserError, match=r"wandb did not start \(PermissionError: no key\)"),
        tracking(("wandb",), tmp_path, {}, 0),
    ):
        pass


def test_an_absent_library_is_named_before_anything_is_made(data, recipe, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="pip install wandb"):
        train(data, tmp_path / "run", recipe, report_to=("wandb",))
    assert not (tmp_path / "run").exists()
