"""Does saliency point at what a text names? Phantoms with a known finding, and six saliency methods.

    medclip quickstart --no-app --out OUT
    python benchmarks/saliency.py --model OUT/run [--count 300] [--seed 1]

The phantoms are of another seed than the training's. "points": the share of images whose largest value lies in the
finding; "AUC": how often a pixel of the finding has a larger value than one outside it. Both stand beside a map that is
largest in the middle whatever the image; the chance of pointing is the share of the image that the finding covers.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable
from functools import partial

import numpy as np
from PIL import Image, ImageFilter

from medclip import jax_setup

jax_setup.start()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from sklearn.metrics import roc_auc_score  # noqa: E402

from medclip.data.images import decode  # noqa: E402
from medclip.data.phantoms.cases import Case, phantom, phantom_mask  # noqa: E402
from medclip.encode.encoder import embed_pixels, embed_texts, normalize  # noqa: E402
from medclip.metrics import SHARE, estimate  # noqa: E402
from medclip.model import towers  # noqa: E402
from medclip.model.checkpoint import Model, load  # noqa: E402
from medclip.model.image_processor import map_to_image, preprocess  # noqa: E402
from medclip.saliency import SPOT_WIDTH, SPOTS_PER_SIDE, saliency_map  # noqa: E402

Method = Callable[[Model, np.ndarray, np.ndarray], np.ndarray]
"""A map (any, any) of preprocessed pixels u8 (s, s, 3) for the embedding (p,) of a text."""


def gray_squares(model: Model, pixels: np.ndarray, text: np.ndarray) -> np.ndarray:
    """As many squares as there are spots, each painted in the mean grey (Zeiler & Fergus 2014)."""
    changed = np.repeat(pixels[None], SPOTS_PER_SIDE**2, axis=0)
    edges = np.linspace(0, len(pixels), SPOTS_PER_SIDE + 1).round().astype(int)
    for i in range(SPOTS_PER_SIDE**2):
        y, x = (slice(edges[at], edges[at + 1]) for at in divmod(i, SPOTS_PER_SIDE))
        changed[i, y, x] = round(pixels.mean())
    return -(embed_pixels(model, changed) @ text).reshape(SPOTS_PER_SIDE, SPOTS_PER_SIDE)


def dropped_patches(model: Model, pixels: np.ndarray, text: np.ndarray) -> np.ndarray:
    """Each patch in turn hidden from the transformer."""
    side = _patches(model)
    subsets = np.array([[j for j in range(side**2) if j != i] for i in range(side**2)])
    embeddings = _embed_subsets(model.params, _input(model, pixels), subsets, model.config)
    return -np.asarray(embeddings @ text).reshape(side, side)


def gradient(model: Model, pixels: np.ndarray, text: np.ndarray) -> np.ndarray:
    """Gradient of the cosine with respect to the pixels times what a blur takes from them."""
    blur = ImageFilter.GaussianBlur(SPOT_WIDTH * len(pixels) / SPOTS_PER_SIDE)
    blurred = np.asarray(Image.fromarray(pixels).filter(blur))
    slope = _slope(model.params, _input(model, pixels), text, model.config)[0]
    step = (_input(model, pixels) - _input(model, blurred))[0]
    summed = Image.fromarray(np.asarray((slope * step).sum(axis=-1), np.float32))
    return np.asarray(summed.resize((SPOTS_PER_SIDE, SPOTS_PER_SIDE), Image.Resampling.BOX))


def attention(model: Model, pixels: np.ndarray, text: np.ndarray) -> np.ndarray:
    """Attention times its gradient, carried through the layers (Chefer et al. 2021); towers with a class token only."""
    tower, side = model.config.vision, _patches(model)
    shape = (tower.num_hidden_layers, 1, tower.num_attention_heads, side**2 + 1, side**2 + 1)
    rollout = np.eye(side**2 + 1)
    for layer in np.asarray(
        _attention_gradients(model.params, _input(model, pixels), text, jnp.ones(shape), model.config)
    ):
        rollout = rollout + np.maximum(layer, 0).mean(axis=(0, 1)) @ rollout
    return rollout[0, 1:].reshape(side, side)


def center_bias(model: Model, pixels: np.ndarray, text: np.ndarray) -> np.ndarray:
    """The same for every image."""
    distances = (np.arange(len(pixels)) - (len(pixels) - 1) / 2) ** 2
    return -np.hypot(distances[:, None], distances[None])


@partial(jax.jit, static_argnames="config")
def _embed_subsets(params, pixels, subsets, config):
    many = jnp.repeat(pixels, len(subsets), axis=0)
    return towers.l2_normalize(
        towers.project(params, towers.image_features(params, many, config, subsets), config.vision)
    )


@partial(jax.jit, static_argnames="config")
def _slope(params, pixels, text, config):
    return jax.grad(lambda x: (towers.encode_image(params, x, config) @ text).sum())(pixels)


@partial(jax.jit, static_argnames="config")
def _attention_gradients(params, pixels, text, gates, config):
    """The gradient with respect to factors of the attention, all 1: attention times its own gradient."""

    def cosine(gates):
        left, plain = iter(gates), towers._attend

        def attend(q, k, v, mask):
            scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) * q.shape[-1] ** -0.5
            mixed = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores, axis=-1) * next(left), v)
            return mixed.reshape(*mixed.shape[:2], -1)

        towers._attend = attend
        try:
            return (towers.encode_image(params, pixels, config) @ text).sum()
        finally:
            towers._attend = plain

    return jax.grad(cosine)(gates)


def _patches(model: Model) -> int:
    return model.image_processor.side // model.config.vision.patch_size


def _input(model: Model, pixels: np.ndarray) -> jax.Array:
    return normalize(jnp.asarray(pixels)[None], model.image_processor)


def texts_of(case: Case, caption: str) -> dict[str, str]:
    """The texts about a phantom, from the whole caption to a single word."""
    side = f"{case.side}-sided " if case.side else ""
    return {"caption": caption, "finding and side": f"a {side}{case.finding}", "finding": case.finding}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    model = load(args.model)
    methods: dict[str, Method] = {
        f.__name__: f for f in (gray_squares, dropped_patches, gradient, attention, center_bias)
    }
    values: dict[tuple[str, str], list[tuple[bool, float]]] = {}
    areas = []
    for index in range(args.count):
        pair, mask = phantom(index, args.seed, "validation"), phantom_mask(index, args.seed, "validation")
        if not mask.any():
            continue
        areas.append(mask.mean())
        pixels = preprocess(decode(pair.image), model.image_processor)
        for kind, text in texts_of(Case(**pair.labels), pair.caption).items():
            embedding = embed_texts(model, [text])[0]
            maps = {"soft spots, blurred": saliency_map(model, pair.image, text)}
            for name, method in methods.items():
                small = Image.fromarray(method(model, pixels, embedding).astype(np.float32))
                square = np.asarray(small.resize(pixels.shape[:2], Image.Resampling.BICUBIC))
                maps[name.replace("_", " ")] = map_to_image(square, mask.shape, model.image_processor)
            for name, saliency in maps.items():
                hit, auc = mask.ravel()[saliency.argmax()], roc_auc_score(mask.ravel(), saliency.ravel())
                values.setdefault((kind, name), []).append((bool(hit), float(auc)))
    ids = [str(i) for i in range(len(areas))]
    print(json.dumps({"num_images": len(areas), "chance of pointing": float(np.mean(areas))}))
    for (kind, name), pairs in values.items():
        columns = zip(("points", "AUC"), np.array(pairs, float).T, strict=True)
        measured = {k: dataclasses.asdict(estimate(v, ids, np.mean, 0, SHARE)) for k, v in columns}
        print(json.dumps({"text": kind, "method": name} | measured))


if __name__ == "__main__":
    main()
