"""What a learning curve predicts: curves of known form are continued exactly, and runs of any size share one pool."""

import json

import numpy as np
import pytest

from medclip.errors import UserError
from medclip.model.checkpoint import load
from support.benchmarks import load_benchmark
from support.model_folders import save_tower

BENCHMARK = load_benchmark("learning_curve")
SIZES = np.array([500.0, 1000, 2000, 4000])


def test_a_curve_without_a_ceiling_is_continued():
    def curve(n):
        return 1 / (1 + np.exp(-(-6 + 0.6 * np.log(n))))

    predicted = BENCHMARK.predict_logit(SIZES, curve(SIZES), np.array([57_780.0]))
    assert predicted == pytest.approx(curve(57_780))


@pytest.mark.parametrize(("ceiling", "scale", "exponent"), [(0.6, 3.0, 0.4), (1.0, 2.0, 0.2)])
def test_a_curve_with_a_ceiling_is_continued(ceiling, scale, exponent):
    def curve(n):
        return ceiling - scale * n**-exponent

    predicted = BENCHMARK.predict_power(SIZES, curve(SIZES), np.array([57_780.0]))
    assert predicted == pytest.approx(curve(57_780), abs=0.005)


def test_where_more_pairs_do_not_help_the_ceiling_is_what_was_measured():
    predicted = BENCHMARK.predict_power(SIZES, np.array([0.3, 0.29, 0.31, 0.28]), np.array([1e9]))
    assert predicted == pytest.approx(0.295)


def make_hits(shares, n=200, seeds=2):
    """Of n items the first of each article of four hit most; the share of hits grows with the size."""
    hits = np.zeros((len(shares), seeds, n, 2))
    for i, share in enumerate(shares):
        hits[i, :, : round(share * n)] = 1
    return hits


def test_the_interval_covers_what_is_predicted_and_grows_with_distance():
    hits, rng = make_hits([0.2, 0.25, 0.3, 0.35]), np.random.default_rng(0)
    hits = hits[:, :, rng.permutation(hits.shape[2])]
    articles = [f"article {i // 4}" for i in range(hits.shape[2])]
    result = BENCHMARK.predict(hits, [500, 1000, 2000, 4000], articles, [8000, 64_000], resamples=100)
    assert [point["R@10"] for point in result["measured"]] == pytest.approx([0.2, 0.25, 0.3, 0.35])
    near, far = result["predicted"]
    for point in (near, far):
        assert all(point["low"] <= point[form] <= point["high"] for form in BENCHMARK.FORMS)
    assert far["high"] - far["low"] > near["high"] - near["low"] > 0.02


def test_where_all_or_none_are_found_the_interval_is_that_of_as_many_articles():
    """Ten articles: 0.025 ** (1 / 10) of them at least, or the rest at most."""
    articles = [f"article {i // 20}" for i in range(200)]
    none, *_, every = BENCHMARK.predict(make_hits([0, 0.5, 0.9, 1]), SIZES, articles, [8000], resamples=20)["measured"]
    assert (none["low"], none["high"]) == pytest.approx((0, 1 - 0.025**0.1))
    assert (every["low"], every["high"]) == pytest.approx((0.025**0.1, 1))


def test_a_repeated_caption_is_no_item_of_its_own():
    hits = np.array([[1.0, 1], [0, np.nan], [1, 0]])
    assert BENCHMARK.recalls(hits, np.ones(3)) == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert BENCHMARK.recalls(hits, np.array([2, 1, 0])) == pytest.approx((2 / 3 + 1) / 2)


def test_smaller_draws_are_part_of_larger_ones(data):
    small, large, other = (
        BENCHMARK.draw_pairs(data, size, seed).column("id") for size, seed in ((4, 0), (8, 0), (8, 1))
    )
    assert large[:4] == small and len(set(large)) == 8 and set(other) != set(large)
    with pytest.raises(UserError, match="more than the"):
        BENCHMARK.draw_pairs(data, 10_000, 0)


@pytest.mark.slow
def test_runs_of_every_size_are_measured_on_one_pool_and_not_repeated(data, run, tmp_path):
    model = load(run)
    towers = [save_tower(model, side, tmp_path / side) for side in ("vision", "text")]
    arguments = ["--data", data, "--vision-model", towers[0], "--text-model", towers[1], "--out", tmp_path / "out"]
    arguments += ["--pairs", 4, 6, 8, 12, "--seeds", 0, "--steps", 2, "--batch-size", 4, "--context-length", 16]
    BENCHMARK.main([*map(str, arguments)])
    curve = (tmp_path / "out" / "curve.json").read_text()
    result = json.loads(curve)
    assert [point["pairs"] for point in result["measured"]] == [4, 6, 8, 12]
    assert {len(point["by_seed"]) for point in result["measured"]} == {1} and result["backtest"][0]["pairs"] == 12
    assert (tmp_path / "out" / "curve.png").stat().st_size > 10_000 and str(tmp_path) not in curve
    before = (tmp_path / "out" / "12-0" / "summary.json").stat().st_mtime_ns
    BENCHMARK.main([*map(str, arguments)])
    assert (tmp_path / "out" / "12-0" / "summary.json").stat().st_mtime_ns == before
