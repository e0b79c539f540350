"""A run keeps pairs together, measures without augmentation, keeps its best, and resumes bit for bit."""

import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from medclip.data.dataset import Split
from medclip.errors import UserError, WorkError
from medclip.model.checkpoint import load
from medclip.train import loop
from medclip.train.config import resolve
from medclip.train.data import Pictures, rows_at
from medclip.train.feed import batch_of, batches, read_pairs, wrong_sides
from medclip.train.initial_model import initial_model
from medclip.train.log import Log
from medclip.train.loop import train
from medclip.train.validation import ValidationSet, read_validation_set, validate

KILLED_RUN = """
import json, sys
from medclip import backend
backend.start()
from pathlib import Path
from medclip.model.config import PRESETS, Preset
from medclip.train.loop import train
from medclip.train.config import Recipe
data, out, recipe, shape, resume = json.loads(sys.argv[1])
PRESETS["test"] = Preset(*shape)
print("ready", flush=True)
train(Path(data), Path(out), Recipe(**recipe | {"freeze": ()}), resume=resume)
"""


def records(run):
    """`metrics.jsonl` without what the clock said."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [{key: value for key, value in line.items() if key not in ("pairs_per_s", "waiting")} for line in lines]


def assert_same_run(run, other):
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert (run / "model" / name).read_bytes() == (other / "model" / name).read_bytes(), name
    assert records(run) == records(other)
    assert (run / "summary.json").read_bytes() == (other / "summary.json").read_bytes()


@pytest.fixture
def killed(data, recipe, tmp_path, monkeypatch):
    """A run that ended while it logged step 3; its last evaluation was at step 2."""

    def write(self, record, whole=Log.write):
        whole(self, record)
        if record["step"] == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Log, "write", write)
        with pytest.raises(KeyboardInterrupt):
            train(data, tmp_path / "run", recipe)
    return tmp_path / "run"


def test_captions_with_the_sides_exchanged_follow_the_pairs():
    captions = ["left lung", "a mass", "Right and left", "RIGHT hip", "left knee", "right eye"]
    assert wrong_sides(captions, 3) == ["right lung", "LEFT hip", "right knee"]
    assert wrong_sides(captions, 0) == wrong_sides(["a mass", "a cyst"], 1) == []


@pytest.mark.parametrize("blocks", [1, 2, 4])
def test_row_i_of_a_batch_is_one_pair_whatever_the_blocks(data, model, recipe, blocks):
    split = Split(data, "train")
    pixels = np.arange(len(split), dtype=np.uint8).reshape(-1, 1, 1, 1)
    pairs = read_pairs(split, pixels, False)
    recipe = dataclasses.replace(recipe, steps=7, micro_batch_size=8 // blocks)
    found = {number: (rows, batch) for number, rows, batch, _ in batches(pairs, model, recipe, 1, 2)}
    assert list(found) == [2, 3, 4, 5, 6]
    for number, (rows, batch) in found.items():
        assert rows.tolist() == rows_at(len(split), 8, recipe.seed, number).tolist()
        assert batch.images.reshape(8).tolist() == rows.tolist()
        m = 8 // blocks
        assert batch.caption_ids.shape == (blocks, m + 4 // blocks)  # room for half a batch of exchanged sides
        captions = split.take("caption", rows)
        words = [" ".join(caption.casefold().split()) for caption in captions]
        found = batch.caption_ids[:, :m].reshape(8)
        assert np.array_equal(found[:, None] == found, [[a == b for a in words] for b in words])
        assert batch.text_mask[:, :m].all()
        assert batch.text_mask[:, m:].sum() == len(wrong_sides(captions, 4))
        ids, valid = model.tokenizer.encode(captions)
        for i in range(8):
            mine = batch.texts.caption[i // m] == i % m
            assert batch.texts.ids[i // m][mine].tolist() == ids[i][valid[i]].tolist()


def test_equal_pictures_and_captions_have_equal_numbers(data, model, recipe):
    split = Split(data, "train")
    pairs = read_pairs(split, np.zeros((len(split), 1), np.float32), False)
    batch = batch_of(pairs, np.array([0, 0, 1, 2, 3, 4, 5, 6]), model, recipe, 1, 0)
    assert batch.image_ids[0, 0] == batch.image_ids[0, 1]
    assert batch.caption_ids[0, 0] == batch.caption_ids[0, 1]
    assert len(set(batch.image_ids[0].tolist())) == len(set(batch.caption_ids[0, :8].tolist())) == 7


def test_memory_does_not_grow_with_the_pairs(data, model, recipe, monkeypatch):
    """A batch asks for its own rows alone; nothing asks for a whole column."""
    split = Split(data, "train")
    monkeypatch.setattr(Split, "column", None)
    monkeypatch.setattr(Split, "each", None)
    pairs, asked, values = read_pairs(split, Pictures(split, model.preprocessor), False), [], Split.values
    monkeypatch.setattr(Split, "values", lambda self, name, rows: asked.append(len(rows)) or values(self, name, rows))
    monkeypatch.setattr(Split, "image", lambda self, row, image=Split.image: asked.append(1) or image(self, row))
    batch_of(pairs, np.arange(3, 11), model, recipe, 1, 0)
    assert sorted(asked) == [1] * 8 + [8, 8]  # images; captions and their images' hashes


def test_soft_targets_have_the_concepts_that_others_have_too(data, model, recipe):
    split = Split(data, "train")
    pairs, rows = read_pairs(split, np.zeros((len(split), 1), np.float32), True), np.arange(8)
    said = [set(row) for row in split.column("concepts")]
    often = {c for row in said for c in row if sum(c in other for other in said) > 1}
    assert pairs.concepts.keys() == often
    assert pairs.most == max(len(row & often) for row in said)
    (found,) = batch_of(pairs, rows, model, recipe, 1, 0).concepts
    named = {number: concept for concept, number in pairs.concepts.items()}
    assert [{named[i] for i in row if i < len(named)} for row in found] == [said[row] & often for row in rows]


def test_every_step_and_seed_has_its_own_changes(data, model, recipe):
    split = Split(data, "train")
    pairs, rows = read_pairs(split, np.zeros((len(split), 1), np.float32), False), np.arange(8)
    seeds = [dataclasses.replace(recipe, seed=seed) for seed in (0, 1)]
    keys = [batch_of(pairs, rows, model, seed, 1, number).aug_keys for seed in seeds for number in (0, 1, 0)]
    assert np.array_equal(keys[0], keys[2])
    assert len({key.tobytes() for key in keys}) == 4
    assert len(np.unique(keys[0].reshape(8, 2), axis=0)) == 8


def test_a_run_leaves_all_that_is_promised(run, recipe):
    assert {p.name for p in run.iterdir()} == {
        "config.json", "metrics.jsonl", "curves.png", "state", "model", "summary.json", "tensorboard",
    }  # fmt: skip
    said = json.loads((run / "config.json").read_text())
    assert {"train", "validation"} == set(said.pop("data"))
    assert said == {**dataclasses.asdict(resolve(recipe, 25)), "freeze": [], "limit": None}
    trained = [r["step"] for r in records(run) if "loss" in r]
    measured = [r["step"] for r in records(run) if "validation_loss" in r]
    assert (trained, measured) == ([1, 2, 3, 4], [0, 2, 4])
    with Image.open(run / "curves.png") as curves:
        curves.load()
        assert min(curves.size) > 200
        assert len(curves.convert("L").getcolors()) > 20  # more than an empty page


def test_the_model_kept_is_the_one_that_was_measured_best(run, model, data, recipe):
    measured = [r for r in records(run) if "mean_recall" in r]
    best = max(measured, key=lambda r: r["mean_recall"])
    assert json.loads((run / "summary.json").read_text())["best"] == best
    split = Split(data, "validation")
    found, ranks = validate(model, read_validation_set(split, model), recipe.batch_size)
    assert ranks.shape == (12, 2)
    assert found == {key: pytest.approx(best[key], abs=1e-6) for key in found}


@pytest.mark.slow
def test_validation_is_the_same_whatever_the_augmentation(data, recipe, tmp_path):
    recipe = dataclasses.replace(recipe, steps=1)  # the warm-up's first rate is 0: the weights stay as they were
    best = train(data, tmp_path / "run", recipe, augment=lambda keys, pixels: jnp.zeros(pixels.shape))["best"]
    split = Split(data, "validation")
    fresh = initial_model(recipe, Split(data, "train").column("caption"))
    unseen = read_validation_set(split, fresh)
    found, _ = validate(fresh, unseen, recipe.batch_size)
    assert {key: best[key] for key in found} == pytest.approx(found, abs=1e-6)
    black, _ = validate(
        fresh, ValidationSet(np.zeros_like(unseen.pixels), unseen.captions, unseen.articles), recipe.batch_size
    )
    assert black["validation_loss"] != pytest.approx(found["validation_loss"], abs=1e-3)


def test_a_fresh_model_starts_at_the_papers_temperature_and_follows_the_seed(recipe):
    first, again, other = (
        initial_model(dataclasses.replace(recipe, seed=s), ["CT of the chest"] * 3) for s in (0, 0, 1)
    )
    assert float(first.params["logit_scale"]) == pytest.approx(np.log(1 / 0.07), abs=1e-4)  # four decimals are stored
    weights = [m.params["visual_projection.weight"] for m in (first, again, other)]
    assert np.array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[0], weights[2])


def test_an_interrupted_run_resumes_bit_for_bit(killed, run, data, recipe):
    assert records(killed)[-1]["step"] == 3
    train(data, killed, recipe, resume=True)
    assert_same_run(killed, run)


@pytest.mark.slow
def test_a_run_killed_ten_times_at_random_ends_as_if_it_never_was(run, data, recipe, tmp_path):
    """SIGKILL, each time after another random part of what a whole run takes; what is lost is repeated."""
    from medclip.model.config import PRESETS

    out, chance = tmp_path / "run", random.Random(0)
    said = [str(data), str(out), dataclasses.asdict(recipe), PRESETS["test"]]

    def start(resume):
        command = [sys.executable, "-c", KILLED_RUN, json.dumps([*said, resume])]
        return subprocess.Popen(command, env=os.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    kills = 0
    while kills < 10:
        process = start((out / "config.json").exists())
        try:
            assert "ready" in process.stdout.readline()
            process.wait(chance.uniform(0, 4))
            break  # it finished before its turn
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
        finally:
            process.stdout.close()
            process.stderr.close()
    assert kills >= 3
    train(data, out, recipe, resume=(out / "config.json").exists())
    assert_same_run(out, run)


@pytest.mark.slow
def test_a_run_that_decodes_at_each_step_is_the_same_run(run, data, recipe, copy, tmp_path, capfd):
    folder = copy(data)
    shutil.rmtree(folder / "cache")
    train(folder, tmp_path / "run", recipe, image_cache_gb=0)
    assert_same_run(tmp_path / "run", run)
    assert not (folder / "cache").exists()
    said = "images of train: 25 take 0.00 GB decoded, not kept: decoded at each step (limit --image-cache-gb 0, "
    assert said in capfd.readouterr().err


class Later:
    """A number that a device will have at some time."""

    def __init__(self, value, at):
        self.value, self.at = value, at

    def block_until_ready(self):
        time.sleep(max(0.0, self.at - time.monotonic()))

    def __float__(self):
        self.block_until_ready()
        return float(self.value)


@pytest.mark.slow
@pytest.mark.parametrize(("making", "least", "most"), [(0.2, 0.0, 0.15), (0.6, 0.35, 0.65)])
def test_waiting_is_the_time_in_which_the_device_has_nothing_to_do(
    data, recipe, tmp_path, monkeypatch, making, least, most
):
    """A step takes 0.3 s, and its end finds the next batch, asked for when it began, made or half made."""

    def slow(*asked):
        for number, rows, batch, _ in batches(*asked):
            since = time.monotonic()
            time.sleep(making)
            yield number, rows, batch, since

    def on_a_device(*said, make=loop.make_step):
        step, free = make(*said), 0.0

        def queued(state, batch):
            nonlocal free
            free = max(free, time.monotonic()) + 0.3
            state, told = step(state, batch)
            return state, {name: Later(value, free) for name, value in told.items()}

        return queued

    monkeypatch.setattr(loop, "batches", slow)
    monkeypatch.setattr(loop, "make_step", on_a_device)
    train(data, tmp_path / "run", dataclasses.replace(recipe, steps=6, evaluations=1))
    lines = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    assert least <= [line["waiting"] for line in lines if "waiting" in line][-1] < most


def test_a_half_written_line_is_dropped_on_resume(tmp_path):
    lines = ['{"step": 1, "loss": 2.0}', '{"step": 2, "loss": 1.0}', '{"step": 3, "lo']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    log = Log(tmp_path, 8)
    log.rewind(1)
    assert (tmp_path / "metrics.jsonl").read_text() == lines[0] + "\n"
    assert log.records == [{"step": 1, "loss": 2.0}]


@pytest.mark.parametrize(
    ("name", "value"),
    [("lr", 2e-3), ("seed", 1), ("batch_size", 4), ("steps", 5), ("preset", "tiny"), ("ema_decay", 0.9)],
)
def test_a_resume_with_another_setting_names_it(run, data, recipe, name, value):
    with pytest.raises(UserError, match=rf"other settings \({name}: {getattr(recipe, name)} then, {value} now\)"):
        train(data, run, dataclasses.replace(recipe, **{name: value}), resume=True)


def test_a_resume_with_another_data_set_is_refused(run, data, recipe, copy):
    other, run = copy(data), copy(run)
    about = json.loads((other / "dataset.json").read_text())
    about["splits"]["validation"] = about["splits"]["train"]
    (other / "dataset.json").write_text(json.dumps(about))
    with pytest.raises(UserError, match="data"):
        train(other, run, recipe, resume=True)


def test_a_resume_of_nothing_is_refused(data, recipe, tmp_path):
    with pytest.raises(UserError, match="is not a run to resume"):
        train(data, tmp_path, recipe, resume=True)


def test_a_run_is_never_overwritten(run, data, recipe):
    before = (run / "metrics.jsonl").read_bytes()
    with pytest.raises(UserError, match="already"):
        train(data, run, recipe)
    assert (run / "metrics.jsonl").read_bytes() == before


def test_a_batch_larger_than_the_split_is_refused(data, recipe, tmp_path):
    with pytest.raises(UserError, match=r"--batch-size 100 is larger than the training split \(25 pairs\)"):
        train(data, tmp_path / "run", dataclasses.replace(recipe, batch_size=100))


def test_a_refused_run_leaves_its_folder_free(data, recipe, tmp_path):
    with pytest.raises(UserError):
        train(data, tmp_path / "run", dataclasses.replace(recipe, batch_size=100))
    assert not (tmp_path / "run" / "config.json").exists()


def nothing(images, texts, params, agree, counted):
    return jnp.nan * params["logit_scale"]


def test_a_loss_that_is_not_finite_stops_the_run_and_names_its_pairs(data, recipe, tmp_path):
    with pytest.raises(WorkError, match="the loss is nan") as said:
        train(data, tmp_path / "run", recipe, loss=nothing)
    assert "at step 1," in str(said.value)
    ids = Split(data, "train").column("id")
    assert all(ids[row] in str(said.value) for row in rows_at(25, recipe.batch_size, recipe.seed, 0))
    assert not (tmp_path / "run" / "summary.json").exists()
    assert load(tmp_path / "run").config  # the first weights, which were kept


def test_a_kept_model_loads_whole(run, model):
    assert load(Path(run) / "model").config == model.config == load(run).config


def test_the_card_says_what_a_stranger_must_know(run, recipe, roco):
    card = (run / "model" / "README.md").read_text(encoding="utf-8")
    best = json.loads((run / "summary.json").read_text())["best"]
    for said in (
        "not for clinical use",
        f"Source: {roco.folder.name}. 25 training pairs, 12 validation pairs",
        f"{recipe.steps} steps of {recipe.batch_size} pairs",
        f"the weights of step {best['step']}",
        "a pool of 12 pairs",
        f'trained_on: ["{roco.folder.name}"]\ntrained_on_nothing_else: true',
        "## Limitations",
        "## License",
    ):
        assert said in card
    rows = [line for line in card.splitlines() if line.startswith("| R@10")]
    both = [float(cell.split("%")[0]) for cell in rows[0].split("|")[2:4]]
    assert np.mean(both) == pytest.approx(100 * best["R@10"], abs=0.06)
