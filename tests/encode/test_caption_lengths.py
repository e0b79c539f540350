"""Captions are encoded at their own length: as fast as they are short, and the same whatever is beside them."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medclip.encode import encoder
from medclip.encode.caption_lengths import LENGTHS, batch_rows
from medclip.encode.encoder import Backend, embed_captions, embed_texts, jax_backend
from medclip.model.config import TextConfig
from medclip.model.tokenizer.text_tokenizer import TextTokenizer
from medclip.model.towers import encode_text
from support.model_folders import dual_encoder

CONTEXT = 24
TEXTS = ("clip_text_model", "roberta", "mpnet")  # pooled at the end, positions after padding, relative and mean
CLOSE = 1e-6
ENCODE = jax.jit(encode_text, static_argnames="config")


@dataclasses.dataclass(frozen=True)
class NumberTokenizer(TextTokenizer):
    """A caption is its number of tokens and a seed: "7 3". CLIP's last token is the end of the text."""

    config: TextConfig | None = None
    left: bool = False
    has_end: bool = True

    def encode(self, captions):
        t = self.context_length
        ids = np.full((len(captions), t), max(self.config.pad_token_id, 0), np.int32)
        valid = np.zeros((len(captions), t), bool)
        for row, caption in enumerate(captions):
            length, seed = map(int, caption.split())
            tokens = np.random.default_rng(seed).integers(5, 90, length)
            if length and self.has_end and self.config.model_type == "clip_text_model":
                tokens[-1] = self.config.eos_token_id
            span = slice(t - length, t) if self.left else slice(0, length)
            ids[row, span], valid[row, span] = tokens, True
        return ids, valid


@functools.cache
def model_of(text, context_length=CONTEXT, left=False, has_end=True):
    model = dual_encoder("vit", text)
    tokenizer = NumberTokenizer(
        model.tokenizer.tokenizer, context_length, {}, config=model.config.text, left=left, has_end=has_end
    )
    return dataclasses.replace(model, tokenizer=tokenizer)


def full_context(model, captions):
    """The embeddings at the full context."""
    return ENCODE(model.params, *model.tokenizer.encode(captions), model.config)


@pytest.fixture(params=TEXTS)
def model(request):
    return model_of(request.param)


def test_embeddings_are_those_of_the_full_context(model):
    captions = [f"{length} {length}" for length in range(1, CONTEXT + 1)]
    wanted = full_context(model, captions)
    np.testing.assert_allclose(embed_captions(jax_backend(model), captions), wanted, atol=CLOSE)
    np.testing.assert_allclose(embed_texts(model, captions), wanted, atol=CLOSE)


def test_what_padding_decides_stays_padded():
    """Padding that comes first moves the positions; a caption without any token is padding alone."""
    for model, captions in ((model_of("bert", left=True), ["3 1", "20 2"]), (model_of("bert"), ["0 1", "3 1"])):
        embeddings = embed_captions(jax_backend(model), captions)
        np.testing.assert_allclose(embeddings, full_context(model, captions), atol=CLOSE)


def test_an_end_of_text_among_the_padding_is_pooled():
    """A tokenizer that adds no end of text, whose padding is one: the first of these is pooled, after the caption."""
    model = model_of("clip_text_model", has_end=False)
    assert model.config.text.pad_token_id == model.config.text.eos_token_id
    captions = ["15 1", "16 1", "17 1"]
    np.testing.assert_allclose(embed_captions(jax_backend(model), captions), full_context(model, captions), atol=CLOSE)


POOL = [f"{length} {seed}" for seed in range(3) for length in (1, 4, 15, 16, 17, 23, 24)]


@functools.cache
def alone(text):
    """Each caption's features, encoded in a call of its own."""
    backend = jax_backend(model_of(text))
    return {caption: encoder.caption_features(backend, [caption])[0] for caption in POOL}


@pytest.mark.parametrize("text", ["clip_text_model", "mpnet"])
@given(captions=st.lists(st.sampled_from(POOL), min_size=1, max_size=90))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_caption_has_the_same_bits_whatever_is_beside_it(text, captions):
    features = encoder.caption_features(jax_backend(model_of(text)), captions)
    assert [row.tobytes() for row in features] == [alone(text)[caption].tobytes() for caption in captions]


def test_the_order_and_the_windows_are_not_seen(monkeypatch):
    model, captions, steps = model_of("mpnet"), [*POOL, *POOL[::-1]], []
    whole = embed_captions(jax_backend(model), captions, steps.append)
    assert sum(steps) == len(captions)
    monkeypatch.setattr(encoder, "WINDOW", 5)
    assert np.array_equal(embed_captions(jax_backend(model), captions), whole)
    assert np.array_equal(embed_captions(jax_backend(model), captions[::-1]), whole[::-1])


def test_the_cost_follows_the_length():
    """Lengths as ROCO's captions have them: median 28, 5 % below 10 and 5 % above 80."""
    lengths = np.clip(np.exp(np.random.default_rng(0).normal(np.log(28), 0.62, 4096)).astype(int), 4, 128)
    model, shapes = model_of("bert", 128), []

    def text(ids, valid):
        shapes.append((batch_rows(ids.shape[1]), ids.shape[1]))
        assert len(ids) <= shapes[-1][0]
        return np.zeros((len(ids), 16), np.float32)

    backend = Backend("counts", model, text, text, lambda features, tower: features, LENGTHS)
    embed_captions(backend, [f"{length} {row}" for row, length in enumerate(lengths)])  # equal ones count once
    computed = sum(rows * length for rows, length in shapes)
    assert lengths.sum() < computed < 1.45 * lengths.sum()
    assert 2.5 * computed < 128 * len(lengths)
    assert len(set(shapes)) <= 5


def test_a_tower_that_reads_padding_is_given_all_of_it():
    model, shapes = model_of("siglip_text_model"), set()

    def text(ids, valid):
        shapes.add(ids.shape)
        return np.zeros((len(ids), 16), np.float32)

    backend = Backend("counts", model, text, text, lambda features, tower: features, LENGTHS)
    embed_captions(backend, ["3 1", "20 1"])
    assert shapes == {(2, CONTEXT)}
