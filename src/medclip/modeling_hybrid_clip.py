"""The founding project's API: `FlaxHybridCLIP`, a thin class over the towers of `medclip.model`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from medclip.configuration_hybrid_clip import HybridCLIPConfig
from medclip.errors import UserError
from medclip.model.adapt import join_towers
from medclip.model.checkpoint import Model, Towers, load, load_towers, model_folder, save
from medclip.model.tokenizer.vocab_files import has_tokenizer
from medclip.model.towers import image_features, logits, project, text_features


class HybridCLIPOutput(NamedTuple):
    """Scaled cosines of every image with every caption (b, c) and its transpose; unit vectors (c, p) and (b, p)."""

    logits_per_image: jax.Array
    logits_per_text: jax.Array
    text_embeds: jax.Array
    image_embeds: jax.Array


# Keywords of 2021 with the values that change nothing here.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "_do_init": (True,),
    "dtype": (jnp.float32, np.float32, "float32"),
    "from_pt": (True, False),  # every form of weights is recognized
    "text_from_pt": (True, False),
    "vision_from_pt": (True, False),
    "input_shape": (None,),
    "position_ids": (None,),
    "dropout_rng": (None,),
    "train": (False,),
    "output_attentions": (None, False),
    "output_hidden_states": (None, False),
    "return_dict": (None, True),
}


class FlaxHybridCLIP:
    """A dual encoder under the name and the methods of 2021; `model` holds its parameters and config.

    Methods take the keywords of 2021 at the values that change nothing, and raise UserError for others.
    """

    def __init__(self, model: Model | Towers):
        self.model = model

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        revision: str | None = None,
        tokenizer: str | Path | None = None,
        seed: int = 0,
        **others: Any,
    ) -> FlaxHybridCLIP:
        """Open a folder or a Hub repository, of 2021 or of today, with a tokenizer or without.

        `revision` and `tokenizer` as in `medclip.load`. `seed`, of weights that are absent, changes nothing: such a
        folder is refused.
        """
        _refuse_others(others)
        folder = model_folder(name, revision, dual=True)
        return cls(load(folder, tokenizer=tokenizer) if tokenizer or has_tokenizer(folder) else load_towers(folder))

    @classmethod
    def from_text_vision_pretrained(
        cls, text_model_name_or_path: str | Path, vision_model_name_or_path: str | Path, seed: int = 0, **others: Any
    ) -> FlaxHybridCLIP:
        """Join two towers with fresh projections of 512 dimensions."""
        _refuse_others(others)
        return cls(join_towers(vision_model_name_or_path, text_model_name_or_path, seed=seed))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the folder that today's transformers opens as a VisionTextDualEncoderModel."""
        save(self.model, Path(folder))

    @property
    def params(self) -> dict[str, Any]:
        """Arrays by tensor name."""
        return self.model.params

    @property
    def config(self) -> HybridCLIPConfig:
        """The model's config file as the class of 2021."""
        fields = {name: value for name, value in self.model.raw_config.items() if name != "model_type"}
        return HybridCLIPConfig(**fields)

    def __call__(
        self,
        input_ids: Any,
        pixel_values: Any,
        attention_mask: Any = None,
        params: dict[str, Any] | None = None,
        **others: Any,
    ) -> HybridCLIPOutput:
        """Scaled cosines of normalized pixels (b, s, s, 3) or (b, 3, s, s) and captions, ids (c, t)."""
        params = self.params if params is None else params
        images = self.get_image_features(pixel_values, params)
        texts = self.get_text_features(input_ids, attention_mask, params, **others)
        images, texts = (x / jnp.linalg.norm(x, axis=-1, keepdims=True) for x in (images, texts))
        scores = logits(params, images, texts)
        return HybridCLIPOutput(scores, scores.T, texts, images)

    def get_text_features(
        self, input_ids: Any, attention_mask: Any = None, params: dict[str, Any] | None = None, **others: Any
    ) -> jax.Array:
        """Projected text features (c, p), not normalized; without a mask every token is real."""
        _refuse_others(others)
        ids = jnp.asarray(input_ids)
        valid = jnp.ones(ids.shape, bool) if attention_mask is None else jnp.asarray(attention_mask).astype(bool)
        params, config = self.params if params is None else params, self.model.config
        return jnp.asarray(project(params, text_features(params, ids, valid, config), config.text))

    def get_image_features(self, pixel_values: Any, params: dict[str, Any] | None = None, **others: Any) -> jax.Array:
        """Projected image features (b, p), not normalized, of normalized pixels (b, s, s, 3) or (b, 3, s, s)."""
        _refuse_others(others)
        pixels = jnp.asarray(pixel_values)
        if pixels.shape[-1] != 3:
            pixels = pixels.transpose(0, 2, 3, 1)
        params, config = self.params if params is None else params, self.model.config
        return jnp.asarray(project(params, image_features(params, pixels, config), config.vision))


def _refuse_others(keywords: dict[str, Any]) -> None:
    """Raise UserError for a keyword that would change something; BERT's token types may all be 0, as they are here."""
    for name, value in keywords.items():
        neutral = _NEUTRAL.get(name, ())
        if name == "token_type_ids" and not np.any(np.asarray(value)):
            continue
        if not any(value is each or (each is not None and value == each) for each in neutral):
            raise UserError(f"FlaxHybridCLIP does not take {name}={value!r:.60}; leave it out.")
