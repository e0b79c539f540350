"""How a run ends: by regression, patience, request or a full disk; and what each setting does to its weights."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from medclip.atomic_io import read_json
from medclip.data.dataset import Split
from medclip.data.foils import swap_left_right
from medclip.dot_products import Ranking
from medclip.encode.encoder import embed_split, jax_backend
from medclip.errors import StoppedError, WorkError
from medclip.match_calibration import CALIBRATION_FILE
from medclip.metrics import DIRECTIONS, DistinctPairs, Queries
from medclip.model.checkpoint import load
from medclip.no_match import cut_captions
from medclip.training import loop
from medclip.training.config import resolve
from medclip.training.data import rows_at
from medclip.training.log import quality
from medclip.training.loop import train
from medclip.training.run import initial_model
from medclip.training.validation import calibrate, recall_change, wise_ft
from training.test_loop import assert_same_run, records

pytestmark = pytest.mark.slow  # each of these compiles a step of its own


@pytest.fixture(scope="module")
def tuned_run(data, train_config, tmp_path_factory):
    """A folder that retrieves so well that a fall to chance is a clear one with 12 images too."""
    out = tmp_path_factory.mktemp("tuned") / "run"
    train(data, out, dataclasses.replace(train_config, steps=100, lr=3e-3))
    return out


def queries_of(ranks, rows=None):
    """The ranks (n, 2) of both directions; `rows` are those of distinct queries, if not all."""
    queries = {}
    for direction, column, own in zip(
        DIRECTIONS, zip(*ranks, strict=True), rows or [range(len(ranks))] * 2, strict=True
    ):
        n = len(own)
        ranking = Ranking.none_yet(np.ones(n), np.arange(n), n)
        queries[direction] = Queries(
            np.array(own), np.array(column)[list(own)], np.ones(n, int), np.full(n, 99), ranking
        )
    return queries


def test_a_fall_is_clear_or_not():
    rng, articles = np.random.default_rng(0), [str(i // 2) for i in range(100)]
    good, bad = queries_of(rng.integers(1, 4, (100, 2))), queries_of(rng.integers(20, 90, (100, 2)))
    assert recall_change(good, bad, articles, 0).high < 0
    assert recall_change(bad, good, articles, 0).low > 0
    fewest = 0.025 ** (1 / 50)  # of 50 articles that all stay, the share of all that do
    assert dataclasses.astuple(recall_change(good, good, articles, 0)) == pytest.approx((0, fewest - 1, 1 - fewest))
    change = recall_change(queries_of([[1, 1], [11, 7]]), queries_of([[7, 2], [11, 1]]), ["a", "b"], 0)
    assert change.value == pytest.approx(np.mean([(1 / 3 - 1 + 2 / 3 - 1) / 2, (1 - 1 / 3) / 2]))


def test_of_one_patient_nothing_says_whether_a_fall_is_noise(model, capfd):
    """A tenth of ten patients is one: resampling gives the same one again, and any fall would be a certain one."""
    before, after = queries_of([[1, 1]] * 20), queries_of([[50, 50]] * 20)
    run = SimpleNamespace(
        config=SimpleNamespace(steps=9, seed=0, on_regression="stop", early_stopping_patience=0),
        validation_set=SimpleNamespace(articles=["patient 7"] * 20),
    )
    assert not loop._should_end(run, SimpleNamespace(), 1, before, after)
    assert "100.0% below" in (warning := " ".join(capfd.readouterr().err.split())) and "one article" in warning
    assert not loop._should_end(run, SimpleNamespace(), 1, before, before)
    assert "warning" not in capfd.readouterr().err
    embeddings = np.eye(20, dtype=np.float32)
    pairs = DistinctPairs.of_rows(embeddings, embeddings, np.arange(20), np.arange(20))
    recall = pairs.rank()[DIRECTIONS[1]].metrics(["patient 7"] * 20, 0)["R@10"]
    calibration = calibrate(jax_backend(model), pairs, pairs.rank()[DIRECTIONS[1]], recall, ["chest"] * 20, "", "", 0)
    assert (calibration.recall_at_10.low, calibration.recall_at_10.high) == (0, 1)
    assert calibration.recall_at_10.is_near_chance


def test_each_direction_of_a_fall_counts_alike():
    """One image with three captions: the image falls behind rank 10, and one caption of three gains all."""
    rows = ([0], [0, 1, 2])
    before, after = queries_of([[1, 11], [0, 11], [0, 11]], rows), queries_of([[11, 1], [0, 11], [0, 11]], rows)
    assert recall_change(before, after, ["a", "b", "c"], 0).value == pytest.approx((-1 + 1 / 3) / 2)


def test_a_planted_learning_rate_is_stopped_by_the_guard(data, train_config, tuned_run, tmp_path, monkeypatch):
    wild = dataclasses.replace(train_config, preset=None, init=str(tuned_run), lr=3.0, steps=8, warmup_ratio=0.0)
    with pytest.raises(WorkError, match=r"mean validation recall is .* below .* lower --lr \(now 3\)"):
        train(data, tmp_path / "run", wild)
    before, now = load(tuned_run), load(tmp_path / "run")
    assert all(np.array_equal(now.params[name], value) for name, value in before.params.items())  # step 0 was kept
    assert records(tmp_path / "run")[-1]["step"] < 8


def test_the_guard_may_warn_and_patience_ends_the_run(data, train_config, tuned_run, tmp_path, capfd):
    wild = dataclasses.replace(
        train_config,
        preset=None,
        init=str(tuned_run),
        lr=3.0,
        steps=12,
        num_evals=6,
        on_regression="warn",
        early_stopping_patience=2,
        warmup_ratio=0.0,
    )
    summary = train(data, tmp_path / "run", wild)
    messages = " ".join(capfd.readouterr().err.split())
    assert "warning: step" in messages
    assert "no better evaluation since step 0" in messages
    assert records(tmp_path / "run")[-1]["step"] == 4
    assert [record["alpha"] for record in summary["wise_ft"]] == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert quality(summary["best"]) == max(map(quality, [*summary["wise_ft"], records(tmp_path / "run")[0]]))
    (tmp_path / "run" / "summary.json").unlink()  # as if it had been killed before its end
    assert train(data, tmp_path / "run", wild, resume=True) == summary
    assert records(tmp_path / "run")[-1]["step"] == 4


def test_weights_between_are_tried_and_the_best_kept(data, train_config, tuned_run, tmp_path, tower_runs):
    gentle = dataclasses.replace(train_config, preset=None, init=str(tuned_run), lr=1e-4, on_regression="warn")
    summary = train(data, tmp_path / "run", gentle)
    assert summary == read_json(tmp_path / "run" / "summary.json", "a run")
    # of the 12 pairs and their foils: before the first step, two on the way, and four of WiSE-FT's five; then, for the
    # calibration, first words of captions
    captions = Split(data, "validation").column("caption")
    foils = sum(swap_left_right(caption) is not None for caption in captions)
    first_words = len({excerpt.text for excerpt in cut_captions(captions) if excerpt.is_cut})
    assert foils > 0 and first_words > 0
    assert tower_runs["captions"] == (12 + foils) * (1 + 2 + 4) + first_words
    tried = [*summary["wise_ft"], *(r for r in records(tmp_path / "run") if "mean_recall" in r)]
    assert quality(summary["best"]) == max(map(quality, tried))
    last = [r for r in records(tmp_path / "run") if "mean_recall" in r][-1]
    whole = next(r for r in summary["wise_ft"] if r["alpha"] == 1.0)
    assert whole == {"alpha": 1.0, **last}


def test_a_sweep_is_a_line_between_the_ends():
    first, last = {"w": np.array([0.0, 4.0])}, {"w": np.array([1.0, 0.0])}
    results = list(wise_ft(first, last))
    assert [alpha for alpha, _ in results] == [0.2, 0.4, 0.6, 0.8]
    assert [float(params["w"][0]) for _, params in results] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    np.testing.assert_allclose(results[1][1]["w"], [0.4, 2.4])


def test_a_run_resumed_after_its_best_describes_it_to_the_same_byte(run, data, train_config, copy):
    """What the process that saved the model held in memory, another one measures again."""
    again = copy(run)
    (again / "summary.json").unlink()
    train(data, again, train_config, resume=True)
    for name in ("summary.json", "model/README.md", f"model/{CALIBRATION_FILE}"):
        assert (again / name).read_text().replace(again.name, run.name) == (run / name).read_text()


@pytest.mark.usefixtures("ordinary_signals")
@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGHUP])
def test_a_request_to_stop_saves_and_says_how_to_go_on(run, data, train_config, tmp_path, kind):
    def interrupt(step, metrics):
        if step == 1:
            os.kill(os.getpid(), kind)

    with pytest.raises(StoppedError, match=r"stopped at step \d of 4, saved; .* --resume") as stopped:
        train(data, tmp_path / "run", train_config, callbacks=[interrupt])
    assert stopped.value.signal == kind
    assert signal.getsignal(kind) in (signal.default_int_handler, signal.SIG_DFL)
    train(data, tmp_path / "run", train_config, resume=True)
    assert_same_run(tmp_path / "run", run)


@pytest.mark.usefixtures("ordinary_signals")
def test_a_request_to_stop_during_an_evaluation_saves_too(run, data, train_config, tmp_path):
    def interrupt(step, metrics):
        if step == 2 and "validation_loss" in metrics:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(WorkError, match="stopped at step 2 of 4, saved"):
        train(data, tmp_path / "run", train_config, callbacks=[interrupt])
    train(data, tmp_path / "run", train_config, resume=True)
    assert_same_run(tmp_path / "run", run)


@pytest.mark.usefixtures("ordinary_signals")
def test_where_ctrl_c_is_ignored_it_stays_so_and_the_run_says_how_to_stop_it(data, train_config, tmp_path, caplog):
    """As in a background job of a script, which must not die of the Ctrl-C that is meant for what runs before it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def interrupt(step, metrics):
        if step in (1, 2) and "loss" in metrics:
            os.kill(os.getpid(), signal.SIGINT if step == 1 else signal.SIGTERM)

    with pytest.raises(WorkError, match=r"stopped at step [23] of 4, saved"):
        train(data, tmp_path / "run", train_config, callbacks=[interrupt])
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    assert f"Ctrl-C (SIGINT) is ignored here, as in a background job: kill {os.getpid()} stops this" in caplog.text


def start_of(config, data):
    """The model before the first step."""
    split = Split(data, "train")
    return initial_model(resolve(config, len(split)), split.column("caption"))


def test_a_frozen_tower_stays_and_its_images_are_read_once(data, copy, train_config, tmp_path):
    """All images of training are gone after the first step, and the run does not notice."""
    folder = copy(data)
    shutil.rmtree(folder / "cache", ignore_errors=True)
    frozen = dataclasses.replace(train_config, freeze=("vision_model.*",), steps=8, num_evals=1)
    train(folder, tmp_path / "whole", frozen)

    def damage(step, metrics):
        if step == 1:
            path, split = folder / "train-00000.arrow", Split(folder, "train")
            with path.open("r+b") as shard:  # in place: the run has it mapped
                content = path.read_bytes()
                for row in range(len(split)):
                    image = split.image(row)
                    shard.seek(content.index(image))
                    shard.write(bytes(len(image)))

    train(folder, tmp_path / "run", frozen, callbacks=[damage], image_cache_gb=0.0)
    with pytest.raises(WorkError, match="is not the one that was written"):
        train(folder, tmp_path / "again", frozen, image_cache_gb=0.0)
    assert records(tmp_path / "run") == records(tmp_path / "whole")
    assert not (folder / "cache").exists()
    first, last = start_of(frozen, data), load(tmp_path / "run")
    assert all(np.array_equal(last.params[n], p) for n, p in first.params.items() if n.startswith("vision_model."))


def test_features_give_the_loss_that_pixels_and_tokens_give(data, train_config, tmp_path):
    """A frozen tower's step is the same computed from its features, where nothing is augmented."""
    plain = dataclasses.replace(train_config, steps=1, lr=1e-9, min_crop_scale=1.0, color_jitter=0.0)
    frozen = dataclasses.replace(plain, freeze=("vision_model.*", "text_model.*"))
    train(data, tmp_path / "features", frozen)
    train(data, tmp_path / "pixels", plain)
    losses = [[r["loss"] for r in records(tmp_path / name) if "loss" in r] for name in ("features", "pixels")]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def saved_and_first(data, config, out):
    """A run's saved parameters, and those it started from; the weights of the last step are those saved."""
    train(data, out, dataclasses.replace(config, num_evals=1))
    model, first = load(out), start_of(config, data)
    assert model.params.keys() == first.params.keys()  # a plain model, whatever was trained
    return model.params, first.params


@pytest.fixture
def always_better(monkeypatch):
    """Every evaluation finds a better recall than the one before, so that the last weights are saved."""
    from medclip.training import best_model

    recalls = iter(range(0, 10_000, 10))

    def validate(*arguments, measure=best_model.validate):
        result = measure(*arguments)
        return result._replace(metrics={**result.metrics, "mean_recall": float(next(recalls))})

    monkeypatch.setattr(best_model, "validate", validate)


def test_lora_changes_the_towers_matrices_by_its_rank_and_nothing_else_of_them(
    data, train_config, tmp_path, always_better
):
    config = dataclasses.replace(train_config, lora_rank=2, lr=1e-2, warmup_ratio=0.0)
    saved, first = saved_and_first(data, config, tmp_path / "run")
    ranks = {}
    for name, before in first.items():
        if name.startswith(("vision_model.", "text_model.")):
            change = np.asarray(saved[name]) - np.asarray(before)
            ranks[name] = np.linalg.matrix_rank(change, tol=1e-5) if change.ndim == 2 else int(change.any())
    matrices = {name for name in ranks if name.endswith(("_proj.weight", "fc1.weight", "fc2.weight"))}
    assert matrices
    assert {name: 2 if name in matrices else 0 for name in ranks} == ranks
    assert not np.array_equal(saved["visual_projection.weight"], first["visual_projection.weight"])


def test_ema_saves_an_average_between_the_first_and_the_last_weights(data, train_config, tmp_path, always_better):
    """One step of decay 0.75 from the start: a quarter of the way to where the same step leads without it."""
    config = dataclasses.replace(train_config, steps=1, warmup_ratio=0.0)
    last, first = saved_and_first(data, config, tmp_path / "plain")
    average, _ = saved_and_first(data, dataclasses.replace(config, ema_decay=0.75), tmp_path / "ema")
    moved = 0
    for name, before in first.items():
        expected = np.asarray(before) + 0.25 * (np.asarray(last[name]) - np.asarray(before))
        np.testing.assert_allclose(average[name], expected, atol=1e-6, err_msg=name)
        moved += not np.array_equal(last[name], before)
    assert moved > 10


def first_loss(data, config, out):
    train(data, out, dataclasses.replace(config, steps=1))
    return next(r["loss"] for r in records(out) if "loss" in r)


def test_the_sigmoid_loss_of_the_first_batch_is_its_formula(data, train_config, tmp_path):
    """Of the very embeddings that the first batch has, where nothing is augmented and there are no hard negatives."""
    config = dataclasses.replace(
        train_config, loss="sigmoid", min_crop_scale=1.0, color_jitter=0.0, hard_negatives=(), steps=1
    )
    split, model = Split(data, "train"), start_of(config, data)
    rows = rows_at(len(split), 8, config.seed, 0)
    images = embed_split(model, split, "images", rows.tolist()).astype(np.float64)
    texts = embed_split(model, split, "captions", rows.tolist()).astype(np.float64)
    scores = np.exp(float(model.params["logit_scale"])) * images @ texts.T - 10
    signs = 2 * np.eye(8) - 1
    expected = np.log1p(np.exp(-signs * scores)).sum() / 8
    assert first_loss(data, config, tmp_path / "run") == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    "settings",
    [{"rotation": 30.0}, {"patch_dropout": 0.5}, {"color_jitter": 0.0}, {"min_crop_scale": 0.3}],
    ids=lambda settings: next(iter(settings)),
)
def test_what_changes_images_changes_the_loss_of_the_first_batch(run, data, train_config, tmp_path, settings):
    (usual,) = [r["loss"] for r in records(run) if r["step"] == 1 and "loss" in r]
    assert first_loss(data, dataclasses.replace(train_config, **settings), tmp_path / "run") != pytest.approx(
        usual, abs=1e-4
    )


FULL_DISK = """
import json, resource, signal, sys
from medclip import jax_setup
jax_setup.start()
import jax
jax.config.update("jax_disable_most_optimizations", True)  # as in the tests' own process, bit for bit
from pathlib import Path
from medclip.errors import WorkError
from medclip.model.config import PRESETS, Preset
from medclip.training.config import TrainConfig
from medclip.training.log import quality
from medclip.training.loop import train
data, out, config, shape = json.loads(sys.argv[1])
PRESETS["test"] = Preset(*shape)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
def fill(step, metrics):
    if step == 3:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    train(Path(data), Path(out), TrainConfig(**config | {"freeze": ()}), callbacks=[fill])
except (WorkError, OSError) as error:
    print("refused:", error)
    sys.exit(1)
"""


def test_a_disk_that_fills_leaves_the_last_state_whole(run, data, train_config, tmp_path):
    """Files may grow to 4 kB from step 3 on: what a full disk does to everything that is written."""
    from medclip.model.config import PRESETS

    out = tmp_path / "run"
    arguments = json.dumps([str(data), str(out), dataclasses.asdict(train_config), PRESETS["test"]])
    done = subprocess.run([sys.executable, "-c", FULL_DISK, arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "refused:" in done.stdout, done.stderr
    assert load(out).config  # the model before, whole
    train(data, out, train_config, resume=True)
    assert_same_run(out, run)
