"""A model in a few calls: images and texts in, embeddings, cosines and class probabilities out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32
from PIL import Image

from medclip.data.pixel_arrays import ImageInput
from medclip.encode.encoder import embed_images, embed_texts, tower_batch_size
from medclip.errors import UserError
from medclip.model.checkpoint import Model, check_model, model_folder
from medclip.model.checkpoint import load as load_model
from medclip.zero_shot import classify


def load(
    name: str | os.PathLike[str], revision: str | None = None, tokenizer: str | os.PathLike[str] | None = None
) -> DualEncoder:
    """Open a dual encoder: a model folder, a run of `medclip.train`, or OWNER/NAME on the Hugging Face Hub.

    `revision` is a branch, tag or commit of the Hub. `tokenizer` is another folder or Hub model whose tokenizer is used
    in place of its own. Reads what `transformers` (CLIPModel, SiglipModel, VisionTextDualEncoderModel) and open_clip
    write, and FlaxHybridCLIP of 2021. Raises UserError where there is no model, and names every tensor that is missing
    or has another shape.
    """
    folder = model_folder(os.fspath(name), revision, dual=True)
    check_model(folder)
    return DualEncoder(load_model(folder, tokenizer=None if tokenizer is None else os.fspath(tokenizer)), folder)


@dataclass(frozen=True, repr=False)
class DualEncoder:
    """An image encoder and a text encoder with one embedding space of `dim` dimensions.

    Embeddings are float32 of length 1, so a dot product is a cosine. It stands for its `folder` wherever a path to a
    model is expected.

    Examples:
        >>> model = medclip.load("run")
        >>> images, text = model.encode_image(["a.png", "b.png"]), model.encode_text("CT of the chest")
        >>> images.shape == (2, model.dim), text.shape == (model.dim,)
        (True, True)
        >>> cosines = images @ text
    """

    model: Model
    """Parameters, config, tokenizer and image processor."""
    folder: Path
    """Where it was loaded from."""

    def __fspath__(self) -> str:
        return str(self.folder)

    def __repr__(self) -> str:
        size = sum(value.size for value in self.model.params.values()) / 1e6
        kind = self.model.raw_config.get("model_type", "open_clip")
        return (
            f"DualEncoder({str(self.folder)!r}, {kind}, {self.model.image_processor.side} px, "
            f"{self.model.tokenizer.context_length} tokens, {self.dim} dimensions, {size:.1f} M parameters)"
        )

    @property
    def dim(self) -> int:
        """Width of the embeddings."""
        return self.model.config.projection_dim

    def encode_image(
        self, images: ImageInput | Iterable[ImageInput], batch_size: int | None = None
    ) -> Float32[np.ndarray, "*n p"]:
        """Embeddings of images: (n, p) of a list or an iterator, (p,) of one image.

        An image is a file (str or Path), encoded bytes (JPEG, PNG, TIFF, DICOM …), a PIL image, or an array uint8
        (h, w), (h, w, 1), (h, w, 3) or (h, w, 4). Images are drawn, decoded and encoded `batch_size` at a time, by
        default as many as take the least time for each. Raises UserError that names the first image that cannot be
        read.
        """
        items, single = _as_items(images)
        result = embed_images(self.model, items, batch_size=_positive(batch_size))
        return result[0] if single else result

    def encode_text(self, texts: str | Iterable[str], batch_size: int | None = None) -> Float32[np.ndarray, "*n p"]:
        """Embeddings of texts: (n, p) of a list or an iterator, (p,) of one string.

        A text longer than the model's context is truncated. In lists of two and more a text has the same embedding, bit
        for bit, whatever is beside it. Raises TypeError that names an item that is not a string.
        """
        single = isinstance(texts, str)
        items = [texts] if single else list(texts)
        for position, item in enumerate(items):
            if not isinstance(item, str):
                raise TypeError(f"texts[{position}] is {type(item).__name__}, not a string")
        many = _positive(batch_size) or tower_batch_size("captions")
        result = embed_texts(self.model, items, batch_sizes=(1 if len(items) == 1 else many,))
        return result[0] if single else result

    def similarity(
        self, images: ImageInput | Iterable[ImageInput], texts: str | Iterable[str], batch_size: int | None = None
    ) -> Float32[np.ndarray, "*shape"]:
        """Cosines in [-1, 1] of every image with every text: (n, m). A single image or a single text has no axis."""
        return np.asarray(self.encode_image(images, batch_size) @ self.encode_text(texts, batch_size).T)

    def zero_shot(
        self,
        images: ImageInput | Iterable[ImageInput],
        labels: Sequence[str],
        templates: str | Sequence[str] | None = None,
        batch_size: int | None = None,
    ) -> Float[np.ndarray, "*n k"]:
        """Probabilities of 2 to 100 labels for each image: (n, k), rows sum to 1; (k,) of one image.

        A label's embedding is the mean over its prompts (Radford et al. 2021, section 3.1.4): `templates` with the
        label in place of {}, by default those of `medclip evaluate zero-shot`. Probabilities are the softmax of the
        cosines times the model's logit scale: they compare these labels alone. Raises UserError for repeated or empty
        labels.

        Examples:
            >>> model = medclip.load("run")
            >>> model.zero_shot(["a.png", "b.png"], ["left knee", "brain"], templates="MRI of the {}").shape
            (2, 2)
        """
        if isinstance(labels, str):
            raise TypeError("labels is a single string, not a list of strings")
        templates = (templates,) if isinstance(templates, str) else tuple(templates or ())
        embeddings = self.encode_image(images, batch_size)
        result = classify(self.model, np.atleast_2d(embeddings), list(labels), templates=templates)
        return result[0] if embeddings.ndim == 1 else result


def _as_items(images: ImageInput | Iterable[ImageInput]) -> tuple[Iterable[ImageInput], bool]:
    """The images, and whether they were a single one."""
    if isinstance(images, np.ndarray):  # four axes are a batch of images, one of objects a list of them
        return ([images], True) if images.ndim in (2, 3) else (list(images), False)
    return ([images], True) if isinstance(images, str | Path | bytes | Image.Image) else (images, False)


def _positive(batch_size: int | None) -> int | None:
    if batch_size is not None and batch_size < 1:
        raise UserError(f"batch_size must be at least 1, not {batch_size}.")
    return batch_size
