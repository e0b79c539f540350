"""Products of float32 are of float32 on every device. By default a GPU takes TF32 and a TPU bfloat16 in its place."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

from medclip.model.packing import pack
from medclip.model.towers import encode_image, encode_text, logits, packed_text_features
from support.jaxprs import precisions
from support.model_folders import PIXELS, dual_encoder
from support.references import CAPTIONS

HIGHEST = (jax.lax.Precision.HIGHEST,) * 2


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "families", [("clip_vision_model", "mpnet"), ("siglip_vision_model", "bert-mean-pooled"), ("dinov3_vit", "roberta")]
)
def test_no_factor_of_a_tower_in_float32_is_rounded(families: tuple[str, str], dtype: str) -> None:
    model = dual_encoder(*families)
    ids, valid = model.tokenizer.encode(CAPTIONS)
    packed = pack(ids[None], valid[None], model.config.text)

    def total(params: dict[str, Any]) -> Any:
        params = {name: value.astype(dtype) for name, value in params.items()}
        images = encode_image(params, PIXELS.astype(dtype), model.config)
        texts = encode_text(params, ids, valid, model.config)
        packed_texts = packed_text_features(params, packed, model.config).astype(np.float32)
        return logits({"logit_scale": np.zeros((), "f4")}, images, texts).sum() + packed_texts.sum()

    towers = set() if dtype == "float32" else {("bfloat16", None)}
    assert precisions(total, model.params) == towers | {("float32", HIGHEST)}
