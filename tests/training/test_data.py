"""Order and batches are a function of (seed, step); pixels are the same decoded once or at each step."""

import contextlib
import dataclasses
import shutil
from concurrent.futures import Future
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.data.dataset import Split
from medclip.data.foils import swap_left_right
from medclip.encode.decode import decode_pixels
from medclip.errors import UserError, WorkError
from medclip.model.image_processor import square_image_processor
from medclip.model.tokenizer.text_tokenizer import TextTokenizer
from medclip.training import data as data_module
from medclip.training import distributed
from medclip.training.config import resolve
from medclip.training.data import (
    Loader,
    Pairs,
    SplitImages,
    batch_foils,
    cache_pixels,
    make_batch,
    make_loader,
    pixel_cache_file,
    rows_at,
    rows_of_steps,
    text_inputs,
)
from medclip.training.step import encode_captions
from medclip.training.token_counts import TokenCounts, count_tokens
from support.model_folders import dual_encoder


@st.composite
def sizes(draw):
    n = draw(st.integers(1, 60))
    return n, draw(st.integers(1, n))


@given(sizes(), st.integers(0, 5), st.integers(0, 4))
def test_an_epoch_sees_no_row_twice_and_leaves_out_less_than_a_batch(size, seed, epoch):
    n, batch_size = size
    steps = n // batch_size
    rows = np.concatenate([rows_at(n, batch_size, seed, epoch * steps + i) for i in range(steps)])
    assert len(set(rows)) == len(rows) == steps * batch_size
    assert n - len(rows) < batch_size
    assert set(rows) <= set(range(n))


@given(sizes(), st.integers(0, 5), st.lists(st.integers(0, 100), min_size=2, max_size=6))
def test_a_step_has_its_rows_whatever_came_before(size, seed, steps):
    forth = {step: rows_at(*size, seed, step).tolist() for step in steps}
    back = {step: rows_at(*size, seed, step).tolist() for step in reversed(steps)}
    assert forth == back


def test_seeds_and_epochs_have_their_own_order():
    orders = [tuple(rows_at(50, 50, seed, epoch)) for seed in range(4) for epoch in range(4)]
    assert len(set(orders)) == len(orders)


def test_no_row_is_left_out_for_ever():
    rows = {row for step in range(60) for row in rows_at(10, 7, 0, step)}
    assert rows == set(range(10))


def test_the_order_of_past_runs_is_kept_and_cannot_be_written_to():
    rows = rows_at(1000, 3, 5, 333 * 2 + 1)
    assert rows.tolist() == np.random.default_rng((5, 2)).permutation(1000)[3:6].tolist()
    with pytest.raises(ValueError, match="read-only"):
        rows[0] = 1


def test_the_steps_of_an_epoch_share_one_order_in_memory():
    orders = [rows_at(101, 10, 3, step).base for step in range(30)]
    assert [orders[step] is orders[0] for step in (9, 10, 20)] == [True, False, False]
    assert orders[10] is orders[19]


def test_pixels_are_the_same_decoded_once_or_when_indexed(data):
    split, processor = Split(data, "validation"), square_image_processor(32)
    images = SplitImages(split, processor)
    pixels = cache_pixels(images)
    assert pixels.shape == images.shape == (12, 32, 32, 3)
    assert pixels.dtype == np.uint8
    for row in range(len(split)):
        assert np.array_equal(pixels[row], decode_pixels(split.image(row), processor))
    for rows in (np.array([[7, 0], [3, 7]]), np.array([11]), np.arange(12), np.arange(0)):
        assert np.array_equal(images[rows], pixels[rows])


def test_a_damaged_image_is_named_by_its_pair(data, copy):
    folder = copy(data)
    path = folder / "validation-00000.arrow"
    image = Split(folder, "validation").image(4)
    path.write_bytes(path.read_bytes().replace(image, bytes(len(image))))
    images = SplitImages(Split(folder, "validation"), square_image_processor(16))
    assert images[np.arange(4)].shape == (4, 16, 16, 3)
    with pytest.raises(WorkError, match=r"the image of ROCO_00004 in split 'validation' of .* is not the one that was"):
        images[np.arange(12)]


def test_the_cache_is_read_again_and_never_mistaken(data, copy):
    folder, small = copy(data), square_image_processor(16)
    shutil.rmtree(folder / "cache", ignore_errors=True)
    split = Split(folder, "validation")
    first = cache_pixels(SplitImages(split, small))
    (file,) = (folder / "cache").iterdir()
    written = file.stat().st_mtime_ns
    assert np.array_equal(cache_pixels(SplitImages(split, small)), first)
    assert file.stat().st_mtime_ns == written
    assert cache_pixels(SplitImages(Split(folder, "validation", 5), small)).shape == (5, 16, 16, 3)
    assert cache_pixels(SplitImages(split, square_image_processor(24))).shape == (12, 24, 24, 3)


def test_other_software_decodes_anew_in_place_of_what_there_was(data, copy, monkeypatch):
    split = Split(copy(data), "validation")
    small, large = (SplitImages(split, square_image_processor(side)) for side in (16, 24))
    shutil.rmtree(split.folder / "cache", ignore_errors=True)
    files = set()
    for version in ("1", "2"):
        monkeypatch.setattr("PIL.__version__", version)
        for images in (small, large):
            cache_pixels(images)
            files.add(pixel_cache_file(images))
    assert len(files) == 4
    assert set((split.folder / "cache").iterdir()) == {pixel_cache_file(small), pixel_cache_file(large)}


@pytest.mark.parametrize("damage", ["a bit", "cut"])
def test_a_damaged_cache_is_decoded_again(data, copy, capfd, damage):
    split, processor = Split(copy(data), "validation"), square_image_processor(16)
    images = SplitImages(split, processor)
    whole, file = np.array(cache_pixels(images)), pixel_cache_file(images)
    content = bytearray(file.read_bytes())
    assert len(content) == 12 * (16 * 16 * 3 + 4)
    content[5 * (16 * 16 * 3 + 4) + 100] ^= 1
    file.write_bytes(content if damage == "a bit" else content[:-1])
    assert np.array_equal(cache_pixels(images), whole)
    expected = {
        "a bit": "has a row, 5 counted from 0, that is not as",
        "cut": "has 9,263 bytes, not those of 12 images",
    }
    assert expected[damage] in capfd.readouterr().err.replace("\n", " ")


def test_a_foil_that_another_pair_says_of_the_same_image_is_none(train_config):
    config = resolve(dataclasses.replace(train_config, hard_negatives=("left-right", "modality")), 25)
    captions = ["CT, left lung", "ct, right  LUNG", "CT, left lung", "a mass"]
    foils = batch_foils(captions, ["a", "a", "b", "a"], config)
    assert foils == [
        (None, "Ultrasound, left lung"),
        (None, "ultrasound, right  LUNG"),
        ("CT, right lung", "Ultrasound, left lung"),
        (None, None),
    ]


@pytest.mark.parametrize("blocks", [1, 2, 4])
def test_row_i_of_a_batch_is_one_pair_whatever_the_blocks(data, model, train_config, blocks):
    split = Split(data, "train")
    pixels = np.arange(len(split), dtype=np.uint8).reshape(-1, 1, 1, 1)
    config = resolve(dataclasses.replace(train_config, steps=7, micro_batch_size=8 // blocks), len(split))
    batches = list(make_loader(Pairs(split, pixels), model, config, 1, 2))
    assert len(batches) == 5
    for step, (rows, batch) in enumerate(batches, 2):
        assert rows.tolist() == rows_at(len(split), 8, config.seed, step).tolist()
        assert batch.images.reshape(8).tolist() == rows.tolist()
        m = 8 // blocks
        assert batch.caption_ids.shape == (blocks, m)
        captions = split.take("caption", rows)
        folded = [" ".join(caption.casefold().split()) for caption in captions]
        numbers = batch.caption_ids.reshape(8)
        assert np.array_equal(numbers[:, None] == numbers, [[a == b for a in folded] for b in folded])
        foils = [swap_left_right(caption) for caption in captions]
        assert batch.foil_mask.reshape(8).tolist() == [foil is not None for foil in foils]
        assert 0 < batch.foil_mask.sum() < 8
        ids, valid = model.tokenizer.encode(captions)
        for i in range(8):
            own = batch.texts.caption_index[i // m] == i % m
            assert batch.texts.ids[i // m][own].tolist() == ids[i][valid[i]].tolist()
            if foils[i]:
                (foil_ids,), (foil_valid,) = model.tokenizer.encode([foils[i]])
                own = batch.texts.caption_index[i // m] == m + i % m
                assert batch.texts.ids[i // m][own].tolist() == foil_ids[foil_valid].tolist()


@pytest.mark.parametrize("tower", [None, "siglip_text_model"])
@pytest.mark.parametrize("processes", [2, 4])
def test_each_process_tokenizes_its_share_alone_and_has_its_part_of_the_one_batch(
    data, model, train_config, monkeypatch, processes, tower
):
    split, sent, parts = Split(data, "train"), [], []
    model = dual_encoder("vit", tower) if tower else model
    config = resolve(dataclasses.replace(train_config, batch_size=64, micro_batch_size=16), 64)
    fuller = sorted(range(25), key=lambda row: swap_left_right(split.column("caption")[row]) is not None)
    pairs, rows = Pairs(split, np.arange(25)), np.array(fuller)[np.arange(64) * 25 // 64]  # the last block is fullest
    whole = make_batch(pairs, rows, model, config, 4, 1)
    encode = TextTokenizer.encode
    monkeypatch.setattr(TextTokenizer, "encode", lambda self, texts: sent.extend(texts) or encode(self, texts))
    monkeypatch.setattr(distributed, "gather", lambda part: parts.append(part) or np.concatenate([part] * processes))
    monkeypatch.setattr(jax, "process_count", lambda: processes)

    def sent_by(process, work):
        """What work gives in a process, and the captions that it tokenizes."""
        sent.clear()
        monkeypatch.setattr(jax, "process_index", lambda: process)
        return work(), [text for text in sent if text in split.column("caption")]

    each = [sent_by(i, lambda: count_tokens(np.arange(25), split, model, config))[1] for i in range(processes)]
    assert sum(map(len, each)) < 25 + processes  # as many for each
    assert set().union(*each) == set(split.column("caption"))
    counts = TokenCounts(np.arange(25), np.concatenate(parts)[:25])
    for process in range(processes):
        batch, own = sent_by(process, lambda: make_batch(pairs, rows, model, config, 4, 1, counts))
        expected = jax.tree.map(lambda x: x[distributed.process_slice(4)], whole)
        jax.tree.map(np.testing.assert_array_equal, batch, expected)
        assert own == split.take("caption", rows[distributed.process_slice(64)])
    assert rows_of_steps(25, 8, 0, range(3)).tolist() == list(range(25))
    assert rows_of_steps(25, 8, 0, range(1, 3)).tolist() == sorted([*rows_at(25, 8, 0, 1), *rows_at(25, 8, 0, 2)])


def test_a_batch_that_does_not_split_over_the_devices_is_refused(data, model, train_config):
    split = Split(data, "train")
    with pytest.raises(UserError, match="--batch-size 8 does not divide into 3 blocks"):
        make_loader(Pairs(split, np.zeros(1)), model, resolve(train_config, len(split)), 3, 0)


def test_equal_images_and_captions_have_equal_numbers(data, model, train_config):
    split = Split(data, "train")
    pairs = Pairs(split, np.zeros((len(split), 1), np.float32))
    config = resolve(train_config, len(split))
    batch = make_batch(pairs, np.array([0, 0, 1, 2, 3, 4, 5, 6]), model, config, 1, 0)
    assert batch.image_ids[0, 0] == batch.image_ids[0, 1]
    assert batch.caption_ids[0, 0] == batch.caption_ids[0, 1]
    assert len(set(batch.image_ids[0].tolist())) == len(set(batch.caption_ids[0].tolist())) == 7


def test_a_batch_decodes_its_own_images_alone(data, copy, model, train_config):
    """Whatever is wrong with the others, which may be too many to be read."""
    folder = copy(data)
    path, rows = folder / "train-00000.arrow", np.arange(8)
    content, images = path.read_bytes(), [Split(folder, "train").image(row) for row in range(25)]
    for image in images[8:]:
        content = content.replace(image, bytes(len(image)))
    path.write_bytes(content)
    split = Split(folder, "train")
    pairs = Pairs(split, SplitImages(split, model.image_processor))
    batch = make_batch(pairs, rows, model, resolve(train_config, len(split)), 1, 0)
    expected = np.stack([decode_pixels(images[row], model.image_processor) for row in rows])
    assert np.array_equal(batch.images[0], expected)
    with pytest.raises(WorkError, match="is not the one that was written"):
        make_batch(pairs, rows + 1, model, resolve(train_config, len(split)), 1, 0)


def test_every_step_and_seed_has_its_own_changes(data, model, train_config):
    split, rows = Split(data, "train"), np.arange(8)
    pairs = Pairs(split, np.zeros((len(split), 1), np.float32))
    configs = [resolve(dataclasses.replace(train_config, seed=seed), len(split)) for seed in (0, 1)]
    keys = [make_batch(pairs, rows, model, config, 1, step).aug_keys for config in configs for step in (0, 1, 0)]
    assert np.array_equal(keys[0], keys[2])
    assert len({key.tobytes() for key in keys}) == 4
    assert len(np.unique(keys[0].reshape(8, 2), axis=0)) == 8


class Made(Future):
    """What is made, or computed, at a time of a clock that nothing but waiting moves."""

    def __init__(self, clock, at, step=0):
        super().__init__()
        self.clock, self.at, self.step = clock, at, step

    def done(self):
        return self.clock.now >= self.at

    is_ready = done

    def result(self):
        self.clock.now = max(self.clock.now, self.at)
        return self.step


@pytest.mark.parametrize(
    ("make_seconds", "step_seconds", "share"),
    [(0.05, 0.1, 0), (0.4, 0.1, 1 / 2), (0.22, 0.1, 1 / 11)],
    ids=["device bound", "data bound", "about even"],
)
def test_a_wait_is_the_time_in_which_the_device_has_nothing_to_do(monkeypatch, make_seconds, step_seconds, share):
    """Two batches are made at a time: one comes every half of `make_seconds`, a step takes `step_seconds`."""
    clock = SimpleNamespace(now=0.0)

    class Pool(contextlib.nullcontext):
        def __init__(self, num_threads):
            super().__init__(self)
            self.free_at = [0.0] * num_threads

        def submit(self, _, step):
            self.free_at[0] = max(self.free_at[0], clock.now) + make_seconds
            batch = Made(clock, self.free_at[0], step)
            self.free_at.sort()
            return batch

    def wait(batches, timeout):
        clock.now = min(max(clock.now, batches[0].at), clock.now + timeout)

    monkeypatch.setattr(data_module, "ThreadPoolExecutor", Pool)
    monkeypatch.setattr(data_module, "wait", wait)
    monkeypatch.setattr(data_module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    loader, free_at, start = Loader(int, range(3, 43)), 0.0, None
    for i, step in enumerate(loader, 3):
        assert step == i
        free_at = max(free_at, clock.now) + step_seconds
        if start is None:
            start, loader.wait_seconds = clock.now, 0.0  # the first batch is always waited for
        loader.device_output = Made(clock, free_at)
        clock.now = max(clock.now, free_at - step_seconds)  # one step late, as the loop logs
    assert loader.wait_seconds / (clock.now - start) == pytest.approx(share, abs=0.03)


def test_an_error_in_a_batch_is_raised_where_the_batch_is_used():
    def make(step):
        if step == 2:
            raise WorkError("a damaged image")
        return step, None

    steps = []
    with pytest.raises(WorkError, match="a damaged image"):
        for step, _ in Loader(make, range(9)):
            steps.append(step)
    assert steps == [0, 1]


def test_an_absent_foil_leaves_every_gradient_finite(data, train_config):
    """A text tower that takes the mean of its tokens, as those of sentence-transformers do, has none of it."""
    model, text_mask = dual_encoder("vit", "bert-mean-pooled"), np.array([[True, False, True]])
    pairs = Pairs(Split(data, "train"), np.zeros((25, 1), np.float32))
    inputs = text_inputs(["CT of the chest", "MRI of the knee"], text_mask, pairs, model)

    def total(params):
        texts = encode_captions(model, resolve(train_config, 25), params, inputs)
        return jnp.where(text_mask[..., None], texts, 0).sum()

    assert all(np.isfinite(gradient).all() for gradient in jax.grad(total)(model.params).values())
