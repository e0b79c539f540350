"""A run keeps pairs together, measures without augmentation, keeps its best, and resumes bit for bit."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from medclip.data.batches import fitted_pixels, rows_at
from medclip.data.shards import Split
from medclip.errors import UserError, WorkError
from medclip.model.hub import load
from medclip.train import loop
from medclip.train.loop import Log, Pairs, train, validate
from medclip.train.start import first_model

KILLED_RUN = """
import json, os, signal, sys
from medclip import backend
backend.start()
from pathlib import Path
from medclip.model.presets import PRESETS
from medclip.train import loop
from medclip.train.recipe import Recipe
data, out, recipe, shape = json.loads(sys.argv[1])
PRESETS["test"] = shape
write = loop.Log.write
def write_or_die(self, record):
    write(self, record)
    if record["step"] == 3:
        os.kill(os.getpid(), signal.SIGKILL)
loop.Log.write = write_or_die
loop.train(Path(data), Path(out), Recipe(**recipe))
"""


def records(run):
    """`metrics.jsonl` without what the clock said."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [{key: value for key, value in line.items() if key != "pairs_per_s"} for line in lines]


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
    assert loop._wrong_sides(captions, 3) == ["right lung", "LEFT hip", "right knee"]
    assert loop._wrong_sides(captions, 0) == loop._wrong_sides(["a mass", "a cyst"], 1) == []


def test_row_i_of_a_batch_is_one_pair(recipe):
    rows = 25
    seen = Pairs(np.arange(rows, dtype=np.uint8).reshape(rows, 1, 1, 1), [str(row) for row in range(rows)])
    tokens = SimpleNamespace(
        encode=lambda captions: (np.array([[int(c)] for c in captions]), np.ones((len(captions), 1), bool))
    )
    batches = dict(loop._batches(seen, SimpleNamespace(tokens=tokens), dataclasses.replace(recipe, steps=7), 2))
    assert list(batches) == [2, 3, 4, 5, 6]
    for step, batch in batches.items():
        assert batch.pixels[:, 0, 0, 0].tolist() == batch.ids[:8, 0].tolist()
        assert batch.ids[:8, 0].tolist() == rows_at(rows, 8, recipe.seed, step).tolist()
        assert batch.ids.shape == batch.valid.shape == (12, 1)  # room for half a batch of exchanged sides
        assert not batch.valid[8:].any()  # these captions name no side


def test_a_run_leaves_all_that_is_promised(run, recipe):
    assert {p.name for p in run.iterdir()} == {
        "config.json", "metrics.jsonl", "curves.png", "state", "model", "summary.json",
    }  # fmt: skip
    said = json.loads((run / "config.json").read_text())
    assert {"train", "validation"} == set(said.pop("data"))
    assert said == {**dataclasses.asdict(recipe), "limit": None}
    trained = [r["step"] for r in records(run) if "loss" in r]
    measured = [r["step"] for r in records(run) if "validation_loss" in r]
    assert (trained, measured) == ([1, 2, 3, 4], [2, 4])
    with Image.open(run / "curves.png") as curves:
        curves.load()
        assert min(curves.size) > 200
        assert len(curves.convert("L").getcolors()) > 20  # more than an empty page


def test_the_model_kept_is_the_one_that_was_measured_best(run, model, data, recipe):
    measured = [r for r in records(run) if "mean_recall" in r]
    best = max(measured, key=lambda r: r["mean_recall"])
    assert json.loads((run / "summary.json").read_text())["best"] == best
    split = Split(data, "validation")
    unseen = Pairs(fitted_pixels(split, model.preprocessor), split.column("caption"))
    found = validate(model, unseen, recipe.batch)
    assert found == {key: pytest.approx(best[key], abs=1e-6) for key in found}


def test_validation_is_the_same_whatever_the_augmentation(data, recipe, tmp_path):
    recipe = dataclasses.replace(recipe, steps=1)  # the warm-up's first rate is 0: the weights stay as they were
    best = train(data, tmp_path / "run", recipe, augment=lambda key, pixels: jnp.zeros(pixels.shape))
    split = Split(data, "validation")
    fresh = first_model(recipe, Split(data, "train").column("caption"))
    unseen = Pairs(fitted_pixels(split, fresh.preprocessor), split.column("caption"))
    found = validate(fresh, unseen, recipe.batch)
    assert {key: best[key] for key in found} == pytest.approx(found, abs=1e-6)
    black = validate(fresh, Pairs(np.zeros_like(unseen.pixels), unseen.captions), recipe.batch)
    assert black["validation_loss"] != pytest.approx(found["validation_loss"], abs=1e-3)


def test_a_fresh_model_starts_at_the_papers_temperature_and_follows_the_seed(recipe):
    first, again, other = (first_model(dataclasses.replace(recipe, seed=s), ["CT of the chest"] * 3) for s in (0, 0, 1))
    assert float(first.params["logit_scale"]) == pytest.approx(np.log(1 / 0.07), abs=1e-4)  # four decimals are stored
    weights = [m.params["visual_projection.weight"] for m in (first, again, other)]
    assert np.array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[0], weights[2])


def test_an_interrupted_run_resumes_bit_for_bit(killed, run, data, recipe):
    assert records(killed)[-1]["step"] == 3
    train(data, killed, recipe, resume=True)
    assert_same_run(killed, run)


@pytest.mark.slow
def test_a_killed_run_resumes_bit_for_bit(run, data, recipe, tmp_path):
    from medclip.model.presets import PRESETS

    out = tmp_path / "run"
    said = json.dumps([str(data), str(out), dataclasses.asdict(recipe), PRESETS["test"]])
    done = subprocess.run([sys.executable, "-c", KILLED_RUN, said], env=os.environ, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert records(out)[-1]["step"] == 3
    train(data, out, recipe, resume=True)
    assert_same_run(out, run)


def test_a_half_written_line_is_dropped_on_resume(tmp_path):
    lines = ['{"step": 1, "loss": 2.0}', '{"step": 2, "loss": 1.0}', '{"step": 3, "lo']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    log = Log(tmp_path, 8)
    log.rewind(1)
    assert (tmp_path / "metrics.jsonl").read_text() == lines[0] + "\n"
    assert log.records == [{"step": 1, "loss": 2.0}]


@pytest.mark.parametrize(("name", "value"), [("lr", 2e-3), ("seed", 1), ("batch", 4), ("steps", 5), ("preset", "tiny")])
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
    with pytest.raises(UserError, match=r"--batch 100 is larger than the training split \(25 pairs\)"):
        train(data, tmp_path / "run", dataclasses.replace(recipe, batch=100))


def test_a_refused_run_leaves_its_folder_free(data, recipe, tmp_path):
    with pytest.raises(UserError):
        train(data, tmp_path / "run", dataclasses.replace(recipe, batch=100))
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_loss_that_is_not_finite_stops_the_run(data, recipe, tmp_path):
    with pytest.raises(WorkError, match="the loss is nan at step 1"):
        train(data, tmp_path / "run", recipe, loss=lambda images, texts, params, real: jnp.nan * params["logit_scale"])
    assert not (tmp_path / "run" / "summary.json").exists()


def test_a_kept_model_loads_whole(run, model):
    assert load(Path(run) / "model").config == model.config == load(run).config


def test_the_card_says_what_a_stranger_must_know(run, recipe, roco):
    card = (run / "model" / "README.md").read_text(encoding="utf-8")
    best = json.loads((run / "summary.json").read_text())["best"]
    for said in (
        "not for clinical use",
        f"Source: {roco.folder.name}. 25 training pairs, 12 validation pairs",
        f"{recipe.steps} steps of {recipe.batch} pairs",
        f"the weights of step {best['step']}",
        "a pool of 12 pairs",
        "## Limitations",
        "## Licence",
    ):
        assert said in card
    rows = [line for line in card.splitlines() if line.startswith("| R@10")]
    both = [float(cell.split("%")[0]) for cell in rows[0].split("|")[2:4]]
    assert np.mean(both) == pytest.approx(100 * best["R@10"], abs=0.06)
