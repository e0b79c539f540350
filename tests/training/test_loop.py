"""A run keeps pairs together, measures without augmentation, keeps its best, and resumes bit for bit."""

import dataclasses
import json
import random
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import Mesh
from PIL import Image

from medclip import __version__
from medclip.api import prepare
from medclip.atomic_io import write_with_checksum
from medclip.data.dataset import Split
from medclip.data.foils import swap_left_right
from medclip.data.hard_negatives import KINDS
from medclip.encode.encoder import jax_backend
from medclip.errors import UserError, WorkError
from medclip.metrics import DIRECTIONS
from medclip.model.checkpoint import load
from medclip.training import distributed
from medclip.training.config import resolve
from medclip.training.data import rows_at
from medclip.training.log import quality
from medclip.training.loop import train
from medclip.training.run import initial_model
from medclip.training.validation import read_validation_set, validate
from support.material import draw_image
from support.touches import run_to_touch

TRAIN_IN_A_PROCESS = """
import json, sys
from support.touches import count_touches
touches = count_touches()
from medclip import jax_setup
jax_setup.start()
import jax
jax.config.update("jax_disable_most_optimizations", True)  # as in the tests' own process, bit for bit
from pathlib import Path
from medclip.model.config import PRESETS, Preset
from medclip.training.loop import train
from medclip.training.config import TrainConfig
data, out, config, shape, resume = json.loads(sys.argv[1])
PRESETS["test"] = Preset(*shape)
train(Path(data), Path(out), TrainConfig(**config | {"freeze": ()}), resume=resume)
print(touches.count)
"""


def records(run):
    """`metrics.jsonl` without what was read from the clock."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [
        {key: value for key, value in line.items() if key not in ("pairs_per_s", "data_wait_fraction")}
        for line in lines
    ]


def assert_same_run(run, other):
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert (run / "model" / name).read_bytes() == (other / "model" / name).read_bytes(), name
    assert records(run) == records(other)
    assert (run / "summary.json").read_bytes() == (other / "summary.json").read_bytes()


class Killed(Exception):
    """Raised from a callback: as abrupt for the run as a kill."""


def killer(at):
    def callback(step, metrics):
        if step == at:
            raise Killed

    return callback


@pytest.fixture
def killed_run(data, train_config, tmp_path):
    """A run that ended while it logged step 3; its last evaluation was at step 2."""
    with pytest.raises(Killed):
        train(data, tmp_path / "run", train_config, callbacks=[killer(3)])
    return tmp_path / "run"


@pytest.mark.slow
def test_callbacks_get_every_line_of_the_log(run, data, train_config, tmp_path):
    calls = []
    train(data, tmp_path / "run", train_config, callbacks=[lambda step, metrics: calls.append((step, dict(metrics)))])
    lines = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    assert [{"step": step, **metrics} for step, metrics in calls] == list(lines)
    assert_same_run(tmp_path / "run", run)  # who listens changes nothing


def test_a_run_leaves_all_that_is_promised(run, data, train_config):
    assert {p.name for p in run.iterdir()} == {
        "train_config.json", "metrics.jsonl", "curves.png", "state", "model", "summary.json", "checksums.json",
        "tensorboard",
    }  # fmt: skip
    written = json.loads((run / "train_config.json").read_text())
    assert {"train", "validation"} == set(written.pop("data"))
    assert [session["medclip"] for session in written.pop("software")] == [__version__]
    tuples = {"freeze": [], "hard_negatives": ["left-right"]}
    assert written == {**resolve(train_config, 25).to_json(), **tuples, "max_samples": None}
    named = [swap_left_right(caption) is not None for caption in Split(data, "train").column("caption")]
    assert json.loads((run / "summary.json").read_text())["hard_negatives"] == {
        "left-right": pytest.approx(np.mean(named), abs=1e-4)
    }
    steps = [r["step"] for r in records(run) if "loss" in r]
    evaluations = [r["step"] for r in records(run) if "validation_loss" in r]
    assert (steps, evaluations) == ([1, 2, 3, 4], [0, 2, 4])
    with Image.open(run / "curves.png") as curves:
        curves.load()
        assert min(curves.size) > 200


def test_the_saved_model_is_the_one_that_was_measured_best(run, model, data, train_config):
    best = max((r for r in records(run) if "mean_recall" in r), key=quality)
    assert json.loads((run / "summary.json").read_text())["best"] == best
    split = Split(data, "validation")
    validation_set = read_validation_set(split, jax_backend(model), resolve(train_config, 25))
    metrics, _, queries = validate(model, validation_set, train_config.batch_size)
    assert metrics.keys() >= {"foil_accuracy", "mean_recall"}
    assert [len(queries[direction].ranks) for direction in DIRECTIONS] == [12, 12]
    assert metrics == {key: pytest.approx(best[key], abs=1e-6) for key in metrics}


@pytest.mark.slow
def test_validation_is_the_same_whatever_the_augmentation(run, data, train_config, tmp_path):
    plain = dataclasses.replace(train_config, min_crop_scale=1.0, color_jitter=0.0)
    train(data, tmp_path / "run", plain)
    (first, *_, step), (first_plain, *_, plain_step) = records(run)[:2], records(tmp_path / "run")[:2]
    assert first == first_plain  # before the first step both have the same weights
    assert step["loss"] != plain_step["loss"]


def test_validation_depends_on_its_pixels(data, train_config):
    model = initial_model(resolve(train_config, 25), Split(data, "train").column("caption"))
    images = read_validation_set(Split(data, "validation"), jax_backend(model))
    black = dataclasses.replace(images, images=np.zeros_like(images.images))
    losses = [validate(model, pairs, train_config.batch_size).metrics["validation_loss"] for pairs in (images, black)]
    assert losses[0] != pytest.approx(losses[1], abs=1e-3)


def test_a_fresh_model_starts_at_the_papers_temperature_and_follows_the_seed(train_config):
    first, again, other = (
        initial_model(resolve(dataclasses.replace(train_config, seed=seed), 25), ["CT of the chest"] * 3)
        for seed in (0, 0, 1)
    )
    assert float(first.params["logit_scale"]) == pytest.approx(np.log(1 / 0.07), abs=1e-4)  # four decimals are stored
    weights = [m.params["visual_projection.weight"] for m in (first, again, other)]
    assert np.array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[0], weights[2])


def test_an_interrupted_run_resumes_bit_for_bit(killed_run, run, data, train_config):
    assert records(killed_run)[-1]["step"] == 3
    train(data, killed_run, train_config, resume=True)
    assert_same_run(killed_run, run)


@pytest.mark.slow
def test_a_run_killed_ten_times_at_random_ends_as_if_it_never_was(run, data, train_config, tmp_path):
    """SIGKILL, each time before another file of the run is touched; what is lost is repeated."""
    from medclip.model.config import PRESETS

    def train_until(out, kill_at):
        """How many times a whole run touches its files; none where it was killed."""
        resume = (out / "train_config.json").exists()
        arguments = [str(data), str(out), dataclasses.asdict(train_config), PRESETS["test"], resume]
        return run_to_touch(TRAIN_IN_A_PROCESS, out, kill_at, json.dumps(arguments))

    touches = train_until(tmp_path / "whole", kill_at=0)
    kills, runs, chance = 0, [], random.Random(0)
    while kills < 10:
        out = tmp_path / str(len(runs))
        if train_until(out, chance.randint(1, touches)) is None:
            kills += 1
        else:
            runs.append(out)
    train(data, out, train_config, resume=(out / "train_config.json").exists())
    for finished in {*runs, out}:
        assert_same_run(finished, run)


@pytest.mark.slow
def test_a_run_that_decodes_at_each_step_is_the_same_run(run, data, train_config, copy, tmp_path, capfd):
    folder = copy(data)
    shutil.rmtree(folder / "cache")
    train(folder, tmp_path / "run", train_config, image_cache_gb=0.0)
    assert_same_run(tmp_path / "run", run)
    assert not (folder / "cache").exists()
    message = "images of train: 25 take 0.00 GB decoded, not cached: decoded at each step (limit --image-cache-gb 0, "
    assert message in capfd.readouterr().err


@pytest.mark.parametrize(
    ("name", "value"),
    [("lr", 2e-3), ("seed", 1), ("batch_size", 4), ("steps", 5), ("preset", "tiny"), ("ema_decay", 0.9)],
)
def test_a_resume_with_another_setting_names_it(run, data, train_config, name, value):
    with pytest.raises(
        UserError, match=rf"other settings \(.*\b{name}: {getattr(train_config, name)} then, {value} now"
    ):
        train(data, run, dataclasses.replace(train_config, **{name: value}), resume=True)


def test_a_resume_with_another_dataset_is_refused(run, data, train_config, copy):
    other, run = copy(data), copy(run)
    dataset = json.loads((other / "dataset.json").read_text())
    dataset["splits"]["validation"] = dataset["splits"]["train"]
    write_with_checksum(other / "dataset.json", dataset)
    with pytest.raises(UserError, match="data"):
        train(other, run, train_config, resume=True)


def test_a_resume_of_nothing_is_refused(data, train_config, tmp_path):
    with pytest.raises(UserError, match="is not a run to resume"):
        train(data, tmp_path, train_config, resume=True)


def test_a_run_is_never_overwritten(run, data, train_config):
    before = (run / "metrics.jsonl").read_bytes()
    with pytest.raises(UserError, match="already"):
        train(data, run, train_config)
    assert (run / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("settings", "devices", "reason"),
    [
        ({"batch_size": 100}, 1, "is larger than the training split"),
        ({"freeze": ("nothing",)}, 1, "names no tensor"),
        ({}, 3, "does not divide into 3 blocks"),
    ],
)
def test_a_refused_run_leaves_its_folder_free(data, train_config, tmp_path, monkeypatch, settings, devices, reason):
    monkeypatch.setattr(distributed, "all_devices", lambda: Mesh(np.array(jax.devices() * devices), "data"))
    with pytest.raises(UserError, match=reason):
        train(data, tmp_path / "run", dataclasses.replace(train_config, **settings))
    assert not (tmp_path / "run").exists()


def test_a_dataset_without_validation_says_how_to_get_one(train_config, tmp_path):
    prepare({"train": [(draw_image(0), "CT of the chest")]}, tmp_path / "data", num_workers=1)
    with pytest.raises(UserError, match=r"has no split 'validation'.* --resplit"):
        train(tmp_path / "data", tmp_path / "run", train_config)


def test_patches_are_dropped_of_a_vit_alone(data, train_config, tmp_path, monkeypatch):
    model = initial_model(resolve(train_config, 25), ["CT of the chest"] * 3)
    resnet = dataclasses.replace(model.config.vision, stages=(1, 1, 1, 1))
    model = dataclasses.replace(model, config=dataclasses.replace(model.config, vision=resnet))
    monkeypatch.setattr("medclip.training.run.initial_model", lambda config, captions: model)
    with pytest.raises(UserError, match="drops the tokens of a ViT; this vision tower is a ResNet"):
        train(data, tmp_path / "run", dataclasses.replace(train_config, patch_dropout=0.5))
    assert not (tmp_path / "run").exists()


def test_a_tokenizer_that_pads_at_the_pooled_token_is_refused_before_the_work(
    data, train_config, tmp_path, monkeypatch
):
    model = initial_model(resolve(train_config, 25), ["CT of the chest"] * 3)
    library_tokenizer = model.tokenizer.tokenizer
    library_tokenizer.enable_padding(**library_tokenizer.padding | {"direction": "left"})
    monkeypatch.setattr("medclip.training.run.initial_model", lambda config, captions: model)
    monkeypatch.setattr("medclip.training.run.read_pairs", None)
    with pytest.raises(UserError, match="train with padding_side right"):
        train(data, tmp_path / "run", train_config)
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_stops_the_run_and_names_its_pairs(data, train_config, tmp_path):
    wild = dataclasses.replace(train_config, lr=1e37, warmup_ratio=0.0, num_evals=1)  # the first step ruins them
    with pytest.raises(WorkError, match="the loss is nan and the norm of its gradient nan at step 2,") as failure:
        train(data, tmp_path / "run", wild)
    ids = Split(data, "train").column("id")
    assert all(ids[row] in str(failure.value) for row in rows_at(25, wild.batch_size, wild.seed, 1))
    assert not (tmp_path / "run" / "summary.json").exists()
    assert load(tmp_path / "run").config  # the first weights, which were saved


@pytest.mark.slow
def test_weights_that_are_not_finite_stop_the_run_at_its_evaluation(data, train_config, tmp_path):
    wild = dataclasses.replace(train_config, lr=1e37, warmup_ratio=0.0, num_evals=4)
    with pytest.raises(WorkError, match=r"embeddings that are not finite: .* a lower --lr"):
        train(data, tmp_path / "run", wild)
    assert records(tmp_path / "run")[-1]["step"] == 1


def test_a_saved_model_loads_whole(run, model):
    assert load(Path(run) / "model").config == model.config == load(run).config


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [{}, {"micro_batch_size": 4}, {"freeze": ("text_model.*",)}, {"loss": "sigmoid"}, {"lora_rank": 2}],
    ids=lambda settings: next(iter(settings), "plain"),
)
def test_a_run_with_every_kind_of_hard_negative_resumes_bit_for_bit(data, train_config, tmp_path, settings):
    """Whatever cuts up the batch, freezes the text tower or changes the loss; and the foils are in the loss."""
    config = dataclasses.replace(train_config, hard_negatives=KINDS, **settings)
    summary = train(data, tmp_path / "whole", config)
    assert summary["hard_negatives"].keys() == {*KINDS}
    assert summary["hard_negatives"]["left-right"] > 0.2
    with pytest.raises(Killed):
        train(data, tmp_path / "cut", config, callbacks=[killer(3)])
    train(data, tmp_path / "cut", config, resume=True)
    assert_same_run(tmp_path / "cut", tmp_path / "whole")
    train(data, tmp_path / "without", dataclasses.replace(config, hard_negatives=()))
    first = [next(r["loss"] for r in records(tmp_path / name) if "loss" in r) for name in ("whole", "without")]
    assert first[0] > first[1]
