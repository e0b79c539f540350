"""Hours of full-size runs: FLOPs counted by XLA are those of a count by hand, and commands are those of the recipes."""

import argparse

import pytest

from medclip.training.config import TrainConfig
from support.benchmarks import ROOT, load_benchmark

BENCHMARK = load_benchmark("training_cost")
WIDTH, LAYERS, PATCHES, TOKENS = 128, 2, 50, 16
SIZES = {
    "hidden_size": WIDTH,
    "intermediate_size": 4 * WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
}
SMALL = (
    "vision-text-dual-encoder",
    {"model_type": "clip_vision_model", **SIZES, "patch_size": 32},
    {"model_type": "bert", **SIZES, "vocab_size": 100, "max_position_embeddings": TOKENS},
)


def count_by_hand(tokens):
    """FLOPs forward of the layers: 12 w² weights a token and layer, 2 FLOPs each, and attention's two products."""
    return LAYERS * (2 * 12 * WIDTH**2 * tokens + 4 * WIDTH * tokens**2)


def flops_of(monkeypatch, mean_tokens=TOKENS, **settings):
    monkeypatch.setitem(BENCHMARK.MODELS, "small", SMALL)
    same_image = {"min_crop_scale": 1.0, "color_jitter": 0.0}
    config = TrainConfig(
        vision_model="-", text_model="-", batch_size=4, context_length=TOKENS, **same_image, **settings
    )
    return BENCHMARK.step_flops(BENCHMARK.build_model("small"), config, mean_tokens)


@pytest.mark.slow
def test_flops_are_those_of_a_count_by_hand(monkeypatch):
    vision, text = count_by_hand(PATCHES), count_by_hand(TOKENS)
    patches = 2 * 3 * 32**2 * WIDTH * (PATCHES - 1)
    both = flops_of(monkeypatch)
    # Backward is twice forward, but for pixels, which have no gradient; the optimizer and softmax come on top.
    assert 1 < both / (3 * (vision + text) + 2 * patches) < 1.15
    frozen = flops_of(monkeypatch, freeze=("vision_model.*",))
    assert both - frozen == pytest.approx(2 * vision + patches, rel=0.35)
    assert flops_of(monkeypatch, mean_tokens=TOKENS / 2) == pytest.approx(both - 1.5 * text, rel=0.1)


def test_hours_are_pairs_over_speed_and_what_is_fixed():
    args = argparse.Namespace(num_evals=12, validation_pairs=100, start_minutes=6)
    assert BENCHMARK.run_hours(10, 35_600, args) == pytest.approx(1.1)  # 36,000 s / 10 = 1 h, and 0.1 h


def test_commands_of_the_page_are_those_of_the_recipes():
    page = (ROOT / "docs" / "training-cost.md").read_text(encoding="utf-8")
    recipes = BENCHMARK.read_recipes(BENCHMARK.RECIPES)
    shown = [line for line in page.splitlines() if line.startswith("medclip train")]
    assert len(shown) >= 5 and set(shown) <= {recipe.command for recipe in recipes}


def test_a_recipe_is_read_from_its_script():
    text = """# usage: x [flags of medclip train]
exec medclip train --data "${1:?DATA}" --out "${2:?RUN}" --vision-model "${3:?VISION}" --text-model "${4:?TEXT}" \\
  --epochs 5 --context-length 128 --freeze "vision_model.layer.[0-7].*" "text_model.*" --patch-dropout 0.5 "${@:5}"
"""
    recipe = BENCHMARK.parse_recipe("toy", text)
    assert (recipe.model, recipe.epochs, recipe.uses_grad_cache) == ("dinov2-small-minilm", 5.0, False)
    assert recipe.settings.freeze == ("vision_model.layer.[0-7].*", "text_model.*")
    assert recipe.settings.patch_dropout == 0.5 and recipe.settings.context_length == 128
    assert recipe.command.startswith("medclip train --data DATA --out RUN --vision-model VISION --text-model TEXT")
    assert "@" not in recipe.command
