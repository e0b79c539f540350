"""What a full-size run takes on an H100 and on a TPU v3-8: hours and cost from counted FLOPs and a measured speed.

    python benchmarks/training_cost.py --h100-price 3 --tpu-price 8 --mean-tokens 35 > docs/training-cost.md

FLOPs are those of one whole training step, as XLA counts them before it optimizes (`cost_analysis`), of towers of the
published sizes with a recipe's own settings; nothing runs and no weights are needed. The part of the H100's peak that a
measured run reached is taken for all recipes and for the TPU. Prices are in any currency, an hour of the whole machine.
"""

from __future__ import annotations

import argparse
import math
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from medclip import jax_setup

jax_setup.start()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402

from medclip.model.checkpoint import Model  # noqa: E402
from medclip.model.config import parse_config  # noqa: E402
from medclip.model.image_processor import square_image_processor  # noqa: E402
from medclip.model.packing import PackedText  # noqa: E402
from medclip.model.shapes_init import tensor_shapes  # noqa: E402
from medclip.model.tokenizer.text_tokenizer import train_tokenizer  # noqa: E402
from medclip.training.config import TrainConfig, resolve  # noqa: E402
from medclip.training.distributed import all_devices  # noqa: E402
from medclip.training.losses import contrastive_loss, sigmoid_loss  # noqa: E402
from medclip.training.optim import initial_params, make_optimizer  # noqa: E402
from medclip.training.step import Batch, init_state, make_step  # noqa: E402

RECIPES = Path(__file__).parents[1] / "recipes"
COUNTED_BATCH = 64
"""Pairs of the step that is counted; the product of all images and captions of a larger batch is below 1 % of it."""


class Device(NamedTuple):
    """A machine that is rented by the hour."""

    peak: float
    """FLOP/s of bfloat16 matrix products, dense, by its maker."""
    source: str


H100 = Device(989e12, "H100 SXM 989 TFLOP/s (NVIDIA's data sheet)")
TPU = Device(4 * 123e12, "TPU v3 four chips of 123 TFLOP/s (Google Cloud's page)")


class Measured(NamedTuple):
    """A run whose speed was measured on an H100."""

    name: str
    pairs_per_s: float
    source: str
    command: str


MEASURED = Measured(
    "both small towers, fine-tuned",
    2640,
    "docs/log.md, 2026-11-27: whole steps, without autotuning",
    "medclip train --data DATA --out RUN --vision-model dinov2-small --text-model all-MiniLM-L6-v2 "
    "--context-length 128 --batch-size 512 --precision bfloat16 --epochs 8 --num-evals 3 --lr 1e-3 --vision-lr 3e-4 "
    "--text-lr 3e-4 --layerwise-lr-decay 0.8",
)

_BERT = {"model_type": "bert", "max_position_embeddings": 512}
_MINILM = {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6, "num_attention_heads": 12}
_DINOV2_SMALL = {"model_type": "dinov2", "hidden_size": 384, "num_attention_heads": 6, "patch_size": 14}
_VIT_B16 = {"model_type": "clip_vision_model", "patch_size": 16}
MODELS: Mapping[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "dinov2-small-minilm": (
        "vision-text-dual-encoder",
        {**_DINOV2_SMALL, "image_size": 518, "num_hidden_layers": 12},
        {**_BERT, **_MINILM},
    ),
    "clip-b32-scibert": ("vision-text-dual-encoder", {**_VIT_B16, "patch_size": 32}, {**_BERT, "vocab_size": 31090}),
    "clip-b16": ("clip", _VIT_B16, {"model_type": "clip_text_model"}),
    "biomedclip": ("vision-text-dual-encoder", _VIT_B16, _BERT),
    "siglip": ("siglip", {"model_type": "siglip_vision_model"}, {"model_type": "siglip_text_model"}),
}
"""Type, vision and text tower of the models that recipes start from, in their published sizes; what is not here is the
family's default, which is the base size. BiomedCLIP's ViT-B/16 is counted as CLIP's, which has the same layers."""
CONTEXT = {"biomedclip": 256, "clip-b16": 77, "siglip": 64}
"""Tokens a caption at most, where a recipe leaves the model's own."""
STARTS = {
    "clip-vit-base-patch32": "clip-b32-scibert",
    "clip-vit-base-patch16": "clip-b16",
    "biomedclip": "biomedclip",
    "siglip-base-patch16": "siglip",
    "dinov2-small": "dinov2-small-minilm",
    "vision": "dinov2-small-minilm",
}
"""The models by a part of the name that a recipe starts from; VISION is an argument of recipes of the small towers."""
IMAGE_SIDE = 224


def build_model(name: str) -> Model:
    """A model of those sizes whose tensors are zeros that take no memory, with a tokenizer that nothing asks."""
    kind, vision, text = MODELS[name]
    raw = {"model_type": kind, "projection_dim": 512, "vision_config": vision, "text_config": text}
    config = parse_config(raw)
    params = {key: np.broadcast_to(np.float32(0), shape) for key, shape in tensor_shapes(config).items()}
    tokenizer, _ = train_tokenizer(["CT"], 300, 8)
    return Model(params, config, tokenizer, square_image_processor(IMAGE_SIDE), raw)


def step_flops(model: Model, settings: TrainConfig, mean_tokens: float) -> float:
    """FLOPs a pair of one training step, forward, backward and update, with captions of so many tokens on average.

    Captions are packed into rows of the context length, except for towers that attend to padding.
    """
    batch_size = settings.batch_size
    config = resolve(settings, batch_size)
    context = config.context_length
    is_packed = not model.config.text.family.reads_padding
    rows = math.ceil(batch_size * min(1, mean_tokens / context)) if is_packed else batch_size
    params, scales = initial_params(model, config)
    trainable, optimizer = {key for key, scale in scales.items() if scale}, make_optimizer(config, scales)
    loss = sigmoid_loss if model.config.logit_bias else contrastive_loss
    step = make_step(model, config, trainable, optimizer, loss, all_devices())
    state = jax.eval_shape(lambda values: init_state(values, trainable, optimizer, config.ema_decay > 0), params)

    def shape(*sizes: int, dtype: Any = jnp.int32) -> Any:
        return jax.ShapeDtypeStruct((1, *sizes), dtype)

    side = model.image_processor.side
    tokens = shape(rows, context)
    batch = Batch(
        images=shape(batch_size, side, side, 3, dtype=jnp.uint8),
        texts=PackedText(tokens, tokens, tokens, shape(batch_size)),
        foil_mask=shape(batch_size, 0, dtype=jnp.bool_),
        image_ids=shape(batch_size),
        caption_ids=shape(batch_size),
        aug_keys=shape(batch_size, 2, dtype=jnp.uint32),
    )
    analysis = cast(Any, step).lower(state, batch).cost_analysis()
    return float(analysis["flops"]) / batch_size


class Recipe(NamedTuple):
    """A command, and the settings in it that decide its cost."""

    name: str
    model: str
    command: str
    epochs: float
    uses_grad_cache: bool
    settings: TrainConfig


def parse_recipe(name: str, text: str) -> Recipe | None:
    """The recipe of a script's text; None where it starts from no model of MODELS."""
    lines = (line.removeprefix("exec ") for line in text.replace("\\\n", " ").splitlines())
    command = next((line for line in lines if line.startswith("medclip train")), "")
    words = [re.sub(r"\$\{\d:\?(\w+)\}", r"\1", word) for word in shlex.split(command) if not word.startswith("${@")]
    values: dict[str, list[str]] = {}
    flag = ""
    for word in words:
        flag = word if word.startswith("--") else flag
        values.setdefault(flag, []).extend([] if word == flag else [word])
    start = (values.get("--init") or values.get("--vision-model") or ["none"])[0].casefold()
    model = next((own for part, own in STARTS.items() if part in start), None)
    if model is None or "--epochs" not in values:
        return None
    settings = TrainConfig(
        vision_model="-",
        text_model="-",
        batch_size=COUNTED_BATCH,
        context_length=int(values["--context-length"][0]) if "--context-length" in values else CONTEXT[model],
        freeze=tuple(values.get("--freeze", ())),
        patch_dropout=float(values.get("--patch-dropout", ["0"])[0]),
        precision="bfloat16",
    )
    epochs = float(values["--epochs"][0])
    return Recipe(name, model, shlex.join(words), epochs, "--micro-batch-size" in values, settings)


def read_recipes(folder: Path) -> list[Recipe]:
    """That of the measured run, and those in scripts whose model is known."""
    scripts = {script.stem: script.read_text(encoding="utf-8") for script in sorted(folder.glob("*.sh"))}
    recipes = [parse_recipe(name, text) for name, text in {MEASURED.name: MEASURED.command, **scripts}.items()]
    return [recipe for recipe in recipes if recipe]


def page(args: argparse.Namespace) -> Iterator[str]:
    """The page: assumptions, hours and cost of each recipe, commands."""
    recipes = read_recipes(RECIPES)
    flops = {recipe.name: recipe_flops(recipe, args.mean_tokens) for recipe in recipes}
    share = flops[MEASURED.name] * MEASURED.pairs_per_s / H100.peak
    yield f"""# Hours and cost of full-size runs

Made by `python benchmarks/training_cost.py` with `--h100-price {args.h100_price:g} --tpu-price {args.tpu_price:g}
--mean-tokens {args.mean_tokens:g}`. None of these runs was made. Assumed:

- {args.pairs:,} training pairs, ROCO's in 2021; captions of {args.mean_tokens:g} tokens on average, packed except for
  towers that attend to padding. (The 4,684 captions here: 34.9 by BERT's tokenizer.)
- FLOPs of a whole step by XLA's `cost_analysis`, before it optimizes: all products, attention, the optimizer. With
  micro-batches (GradCache) everything is encoded twice: 4/3 of them.
- {MEASURED.pairs_per_s:,.0f} pairs/s of "{MEASURED.name}" were measured on one H100
  ({MEASURED.source}): {share:.1%} of its peak. The same share is taken
  for every recipe, though larger towers usually reach more, and for the TPU v3-8, where nothing was measured.
- Peaks, dense bfloat16: {H100.source};
  {TPU.source}.
- {args.num_evals} evaluations of {args.validation_pairs:,} validation pairs, each a third of a training pair, and
  {args.start_minutes:g} minutes for start and compilation. Images are decoded as fast as they are needed.
- An hour of the H100 costs {args.h100_price:g}, one of the TPU v3-8 {args.tpu_price:g}.

| recipe | GFLOP a pair | epochs | H100: pairs/s | hours | cost | TPU v3-8: pairs/s | hours | cost |
|---|---|---|---|---|---|---|---|---|"""
    for recipe in recipes:
        cells = [recipe.name, f"{flops[recipe.name] / 1e9:.1f}", f"{recipe.epochs:g}"]
        for device, price in ((H100, args.h100_price), (TPU, args.tpu_price)):
            speed = share * device.peak / flops[recipe.name]
            hours = run_hours(speed, recipe.epochs * args.pairs, args)
            cells += [f"{speed:,.0f}", f"{hours:.2f}", f"{price * hours:.2f}"]
        yield f"| {' | '.join(cells)} |"
    yield "\n".join(["", "```text", *(recipe.command for recipe in recipes), "```"])


def recipe_flops(recipe: Recipe, mean_tokens: float) -> float:
    """FLOPs a pair of a recipe's steps."""
    return step_flops(build_model(recipe.model), recipe.settings, mean_tokens) * (
        4 / 3 if recipe.uses_grad_cache else 1
    )


def run_hours(pairs_per_s: float, pairs: float, args: argparse.Namespace) -> float:
    """Hours of a run of so many pairs, with its evaluations and its start."""
    evaluated = args.num_evals * args.validation_pairs / 3
    return ((pairs + evaluated) / pairs_per_s + 60 * args.start_minutes) / 3600


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--h100-price", type=float, required=True, help="of an hour of one H100")
    parser.add_argument("--tpu-price", type=float, required=True, help="of an hour of a TPU v3-8")
    parser.add_argument("--pairs", type=int, default=57_780)
    parser.add_argument("--validation-pairs", type=int, default=7_200)
    parser.add_argument("--num-evals", type=int, default=TrainConfig().num_evals + 1, help="with that before the start")
    parser.add_argument("--mean-tokens", type=float, required=True, help="of a caption, start and end included")
    parser.add_argument("--start-minutes", type=float, default=5)
    print("\n".join(page(parser.parse_args())))


if __name__ == "__main__":
    main()
