"""How a run ends: by guard, by patience, by request, on a full disk, between its first and its last weights."""

import dataclasses
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from medclip.atomic_io import read_json
from medclip.errors import UserError, WorkError
from medclip.model.checkpoint import load
from medclip.train.loop import train
from medclip.train.validation import recall_change, wise_ft
from train.test_loop import assert_same_run, records

pytestmark = pytest.mark.slow  # each of these compiles a step of its own


@pytest.fixture(scope="module")
def tuned(data, recipe, tmp_path_factory):
    """A folder that retrieves so well that a fall to chance is a clear one with 12 images too."""
    out = tmp_path_factory.mktemp("tuned") / "run"
    train(data, out, dataclasses.replace(recipe, steps=100, lr=3e-3))
    return out


def test_a_fall_is_clear_or_not():
    rng, articles = np.random.default_rng(0), [str(i // 2) for i in range(100)]
    good, bad = rng.integers(1, 4, (100, 2)), rng.integers(20, 90, (100, 2))
    assert recall_change(good, bad, articles, 0)["high"] < 0
    assert recall_change(bad, good, articles, 0)["low"] > 0
    assert recall_change(good, good, articles, 0) == {"value": 0, "low": 0, "high": 0}
    assert recall_change(np.array([[1, 1], [11, 7]]), np.array([[7, 2], [11, 1]]), ["a", "b"], 0)[
        "value"
    ] == pytest.approx(np.mean([(1 / 3 - 1 + 2 / 3 - 1) / 2, (1 - 1 / 3) / 2]))


def test_a_planted_learning_rate_is_stopped_by_the_guard(data, recipe, tuned, tmp_path, monkeypatch):
    wild = dataclasses.replace(recipe, preset=None, init=str(tuned), lr=3.0, steps=8, warmup_fraction=0.0)
    with pytest.raises(WorkError, match=r"mean validation recall is .* below .* lower --lr \(now 3\)"):
        train(data, tmp_path / "run", wild)
    before, now = load(tuned), load(tmp_path / "run")
    assert all(np.array_equal(now.params[name], value) for name, value in before.params.items())  # step 0 was kept
    assert records(tmp_path / "run")[-1]["step"] < 8


def test_the_guard_may_warn_and_patience_ends_the_run(data, recipe, tuned, tmp_path, capfd):
    wild = dataclasses.replace(
        recipe,
        preset=None,
        init=str(tuned),
        lr=3.0,
        steps=12,
        evaluations=6,
        guard="warn",
        patience=2,
        warmup_fraction=0.0,
    )
    summary = train(data, tmp_path / "run", wild)
    said = capfd.readouterr().err
    assert "warning: step" in said
    assert "no better mean recall since step 0" in " ".join(said.split())
    assert records(tmp_path / "run")[-1]["step"] == 4
    assert [record["share"] for record in summary["wise_ft"]] == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert summary["best"]["mean_recall"] == max(
        r["mean_recall"] for r in [*summary["wise_ft"], records(tmp_path / "run")[0]]
    )


def test_weights_between_are_tried_and_the_best_kept(data, recipe, tuned, tmp_path):
    gentle = dataclasses.replace(recipe, preset=None, init=str(tuned), lr=1e-4, guard="warn")
    summary = train(data, tmp_path / "run", gentle)
    assert summary == read_json(tmp_path / "run" / "summary.json", "a run")
    tried = [*summary["wise_ft"], *(r for r in records(tmp_path / "run") if "mean_recall" in r)]
    assert summary["best"]["mean_recall"] == max(r["mean_recall"] for r in tried)
    last = [r for r in records(tmp_path / "run") if "mean_recall" in r][-1]
    whole = next(r for r in summary["wise_ft"] if r["share"] == 1.0)
    assert {k: whole[k] for k in last} == pytest.approx(last)


def test_a_sweep_is_a_line_between_the_ends():
    first, last = {"w": np.array([0.0, 4.0])}, {"w": np.array([1.0, 0.0])}
    found = wise_ft(first, last, lambda params: {"mean_recall": float(params["w"][0])})
    assert [record["share"] for record, _ in found] == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert [record["mean_recall"] for record, _ in found] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    np.testing.assert_allclose(found[1][1]["w"], [0.4, 2.4])


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_request_to_stop_saves_and_says_how_to_go_on(run, data, recipe, tmp_path, monkeypatch, kind):
    from medclip.train import loop

    tell = loop._tell

    def ask(run, at, *rest):
        tell(run, at, *rest)
        if at == 1:
            os.kill(os.getpid(), kind)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_tell", ask)
        with pytest.raises(WorkError, match=r"stopped at step \d of 4, saved; .* --resume"):
            train(data, tmp_path / "run", recipe)
    assert signal.getsignal(kind) in (signal.default_int_handler, signal.SIG_DFL)
    train(data, tmp_path / "run", recipe, resume=True)
    assert_same_run(tmp_path / "run", run)


def test_frozen_towers_are_encoded_once_and_stay(data, recipe, tmp_path):
    both = dataclasses.replace(recipe, freeze=("vision_model.*", "text_model.*"))
    train(data, tmp_path / "run", both)
    fresh, kept = (load(tmp_path / name) for name in ("run", "run"))
    from medclip.data.dataset import Split
    from medclip.train.initial_model import initial_model

    fresh = initial_model(both, Split(data, "train").column("caption"))
    for name, value in fresh.params.items():
        if name.startswith(("vision_model.", "text_model.")):
            assert np.array_equal(kept.params[name], value), name
    assert all(np.isfinite(r["loss"]) for r in records(tmp_path / "run") if "loss" in r)


def test_pools_give_the_loss_that_pixels_and_tokens_give(data, recipe, tmp_path):
    """A frozen tower's step is the same computed from its pools, where nothing is augmented."""
    plain = dataclasses.replace(recipe, steps=1, lr=1e-9)
    train(data, tmp_path / "pools", dataclasses.replace(plain, freeze=("vision_model.*", "text_model.*")))
    train(data, tmp_path / "whole", plain, augment=lambda keys, pixels: pixels.astype("float32"))
    one, other = ([r["loss"] for r in records(tmp_path / name) if "loss" in r] for name in ("pools", "whole"))
    assert one == pytest.approx(other, abs=1e-5)


@pytest.mark.parametrize(
    "asked",
    [{"loss": "sigmoid"}, {"lora_rank": 2, "ema_decay": 0.5, "patch_dropout": 0.5}, {"rotation": 5.0, "flip": True}],
    ids=["sigmoid", "lora", "rotation"],
)
def test_every_choice_trains_and_leaves_a_plain_model(data, recipe, model, tmp_path, asked):
    train(data, tmp_path / "run", dataclasses.replace(recipe, **asked))
    kept = load(tmp_path / "run")
    assert kept.params.keys() == model.params.keys()
    assert all(np.isfinite(r["loss"]) for r in records(tmp_path / "run") if "loss" in r)


def test_a_step_that_cannot_be_shared_out_is_refused(data, recipe, tmp_path):
    with pytest.raises(UserError, match="--micro-batch-size 3 does not divide --batch-size 8"):
        dataclasses.replace(recipe, micro_batch_size=3)


FULL_DISK = """
import json, resource, signal, sys
from medclip import backend
backend.start()
from pathlib import Path
from medclip.errors import WorkError
from medclip.model.config import PRESETS, Preset
from medclip.train import loop
from medclip.train.config import Recipe
data, out, recipe, shape = json.loads(sys.argv[1])
PRESETS["test"] = Preset(*shape)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
write = loop.Log.write
def write_and_fill(self, record):
    write(self, record)
    if record["step"] == 3:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
loop.Log.write = write_and_fill
try:
    loop.train(Path(data), Path(out), Recipe(**recipe | {"freeze": ()}))
except (WorkError, OSError) as error:
    print("said:", error)
    sys.exit(1)
"""


def test_a_disk_that_fills_leaves_the_last_state_whole(run, data, recipe, tmp_path):
    """Files may grow to 4 kB from step 3 on: what a full disk does to everything that is written."""
    from medclip.model.config import PRESETS

    out = tmp_path / "run"
    said = json.dumps([str(data), str(out), dataclasses.asdict(recipe), PRESETS["test"]])
    done = subprocess.run([sys.executable, "-c", FULL_DISK, said], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "said:" in done.stdout
    assert load(out).config  # the model before, whole
    train(data, out, recipe, resume=True)
    assert_same_run(out, run)


def test_a_flip_warns(data, recipe, tmp_path, capfd):
    train(data, tmp_path / "run", dataclasses.replace(recipe, flip=True, steps=1))
    assert "makes left and right wrong" in " ".join(capfd.readouterr().err.split())


def test_soft_targets_and_the_sigmoid_loss_exclude_each_other(data, recipe, tmp_path):
    with pytest.raises(UserError, match="defined for the contrastive loss"):
        train(data, tmp_path / "run", dataclasses.replace(recipe, loss="sigmoid", soft_targets=0.2))
