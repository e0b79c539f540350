"""PackedText captions give the vectors of padded ones, whatever their lengths and the family."""

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medclip.model.families import TEXT
from medclip.model.packing import pack
from support.compiled import packed_text_features, text_features
from support.model_folders import dual_encoder

CLOSE = 2e-6
BERT = dual_encoder("vit", "bert")
TEXTS = ("clip_text_model", "siglip_text_model", "bert", "roberta", "mpnet")


@pytest.fixture(scope="module", params=TEXTS)
def model(request):
    return dual_encoder("vit", request.param)


def captions(model, lengths, seed=0):
    """Ids and valid (n, c, 24): random tokens of those lengths between the family's own first and last one."""
    rng, config = np.random.default_rng(seed), model.config.text
    ids = rng.integers(5, 90, (*lengths.shape, 24)).astype(np.int32)
    valid = np.arange(24) < lengths[..., None]
    last = np.arange(24) == lengths[..., None] - 1
    ids = np.where(last & (config.model_type == "clip_text_model"), config.eos_token_id, ids)
    return np.where(valid, ids, max(config.pad_token_id, 0)).astype(np.int32), valid


@given(st.lists(st.integers(0, 24), min_size=8, max_size=8), st.integers(0, 9))
@settings(max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_packed_is_padded(model, lengths, seed):
    ids, valid = captions(model, np.array(lengths).reshape(2, 4), seed)
    packed = pack(ids, valid, model.config.text)
    wanted = text_features(model.params, ids.reshape(8, 24), valid.reshape(8, 24), model.config)
    features = packed_text_features(model.params, packed, model.config).reshape(8, -1)
    present = np.array(lengths) > 0
    np.testing.assert_allclose(features[present], wanted[present], atol=CLOSE)
    assert np.isfinite(features).all()  # those of absent captions are masked out by the loss, so they must be finite


@pytest.mark.parametrize("kind", ["roberta", "mpnet"])
def test_a_token_of_padding_within_a_caption_has_its_position(kind):
    """A literal <pad>, or an end that is padding too: RoBERTa and MPNet do not count it."""
    model = dual_encoder("vit", kind)
    ids, valid = captions(model, np.array([[6, 9]]))
    ids[0, 0, 5] = ids[0, 1, 3] = model.config.text.pad_token_id
    wanted = text_features(model.params, ids[0], valid[0], model.config)
    features = packed_text_features(model.params, pack(ids, valid, model.config.text), model.config)
    np.testing.assert_allclose(features[0], wanted, atol=CLOSE)


@pytest.mark.slow
def test_gradients_of_packed_are_those_of_padded(model):
    ids, valid = captions(model, np.array([[3, 9, 24, 7], [5, 5, 12, 2]]))
    packed = pack(ids, valid, model.config.text)
    ids, valid = ids.reshape(8, 24), valid.reshape(8, 24)

    def gradients(features, *arguments):
        return jax.jit(jax.grad(lambda params: (features(params, *arguments) ** 2).sum()))(model.params)

    wanted = gradients(text_features, ids, valid, model.config)
    for remat in (False, True):
        gradient = gradients(packed_text_features, packed, model.config, remat)
        for name, value in wanted.items():
            np.testing.assert_allclose(gradient[name], value, atol=1e-5 * max(1, np.abs(value).max()), err_msg=name)


@given(st.lists(st.integers(0, 24), min_size=1, max_size=40))
def test_every_token_is_laid_once_and_no_row_overflows(lengths):
    ids, valid = captions(BERT, np.array([lengths]))
    packed = pack(ids, valid, BERT.config.text)
    assert (packed.caption_index >= 0).sum() == sum(lengths)
    for i, length in enumerate(lengths):
        mine = packed.caption_index[0] == i
        assert mine.sum() == length
        assert mine.any(axis=1).sum() <= 1  # in one row
        assert packed.ids[0][mine].tolist() == ids[0, i, :length].tolist()
        assert packed.position[0][mine].tolist() == list(range(length))
    least = -(-sum(lengths) // 24)
    assert packed.ids.shape[1] <= min(len(lengths), max(2 * least + 1, 1) + max(4, -(-len(lengths) // 12)))


def test_the_cost_follows_the_length():
    ids, valid = captions(BERT, np.full((1, 96), 6))
    assert pack(ids, valid, BERT.config.text).ids.shape == (1, 24, 24)  # four captions of 6 in each row of 24


def test_padding_that_is_cut_off_changes_nothing_but_where_it_is_attended_to(model):
    ids, valid = captions(model, np.array([[1, 5], [9, 12]]))
    ids, valid = ids.reshape(4, 24), valid.reshape(4, 24)
    whole, cut = (np.asarray(text_features(model.params, ids[:, :t], valid[:, :t], model.config)) for t in (24, 12))
    same = np.abs(whole - cut).max() < CLOSE * np.abs(whole).max()
    assert same == (TEXT[model.config.text.model_type].attends != "all")
