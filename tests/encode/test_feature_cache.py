"""Features computed once: every number is the same, bit for bit, with a cold, a warm, a half-filled or no cache."""

import dataclasses
import errno
import os
import stat

import numpy as np
import pytest

from medclip.data.dataset import Split
from medclip.encode import decode, encoder, feature_cache
from medclip.encode.encoder import embed_split, jax_backend
from medclip.encode.feature_cache import FeatureStore, digest_of, tower_digest
from medclip.errors import UserError
from medclip.evaluation.config import EvalConfig
from medclip.evaluation.retrieval import evaluate_retrieval
from medclip.search.curate import add, build_index
from medclip.search.embed import embed
from support.faults import file_size_limit

KINDS = ("images", "captions")


def segments(cache):
    return sorted(cache.glob("*/*.npy"))


@pytest.fixture(scope="module")
def split(data):
    return Split(data, "train")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows_before", [[], [3], [24, 0, 7, 8], range(25)], ids=["cold", "one", "some", "warm"])
def test_embeddings_do_not_depend_on_what_is_cached(model, split, cache, kind, rows_before):
    without = embed_split(model, split, kind)
    embed_split(jax_backend(model, True), split, kind, rows_before)
    assert np.array_equal(embed_split(jax_backend(model, True), split, kind), without)
    assert np.array_equal(embed_split(jax_backend(model, True), split, kind, [9, 2]), without[[9, 2]])


@pytest.mark.slow
def test_evaluations_embeddings_and_indexes_share_the_features(run, data, again, tmp_path, cache, tower_runs):
    config = EvalConfig(model=str(run), data=str(data), out=tmp_path / "first")
    evaluate_retrieval(config)
    assert tower_runs == {"images": 12, "captions": 12}
    evaluate_retrieval(dataclasses.replace(config, out=tmp_path / "second"))
    embed(run, data, tmp_path / "embeddings")
    build_index(run, data, tmp_path / "index")
    add(tmp_path / "index", again, None, None, None)  # the same images under other ids
    assert tower_runs == {"images": 12, "captions": 12}
    evaluate_retrieval(dataclasses.replace(config, out=tmp_path / "without", cache=False))
    assert tower_runs == {"images": 24, "captions": 24}
    results = [(tmp_path / name / "retrieval.json").read_bytes() for name in ("first", "second", "without")]
    assert results[0] == results[1] == results[2]
    embed(run, data, tmp_path / "without-cache", cache=False)
    for name in ("images.npy", "texts.npy"):
        assert (tmp_path / "embeddings" / name).read_bytes() == (tmp_path / "without-cache" / name).read_bytes()


def test_the_projection_is_not_of_the_tower(model):
    vision, text = model.config.vision, model.config.text
    name = vision.projection[0]
    projected = {**model.params, name: model.params[name] + 1}
    assert tower_digest(projected, vision) == tower_digest(model.params, vision)
    for tower in (vision, text):
        own = next(n for n in model.params if n.startswith(tower.prefix) and n not in tower.projection)
        changed = {**model.params, own: np.nextafter(model.params[own], np.inf)}
        assert tower_digest(changed, tower) != tower_digest(model.params, tower)
    processor = model.image_processor
    names = [tower_digest(model.params, vision, p) for p in (processor, dataclasses.replace(processor, resample=0))]
    assert names[0] != names[1]
    assert tower_digest(model.params, dataclasses.replace(vision, layer_norm_eps=0.1)) != tower_digest(
        model.params, vision
    )


@pytest.mark.parametrize(
    ("where", "name", "other"),
    [
        (feature_cache, "processor_models", lambda: ("x86_64", "flags: sse2")),  # of a home shared by machines
        (feature_cache.jaxlib.version, "__version__", "0.1"),  # XLA is in it
        (decode, "library_versions", lambda *names: {"python-gdcm": "0.1"}),
    ],
)
def test_another_machine_or_library_has_stores_of_its_own(model, monkeypatch, where, name, other):
    vision = model.config.vision
    here = tower_digest(model.params, vision)
    feature_cache._environment.cache_clear()
    assert tower_digest(model.params, vision) == here
    monkeypatch.setattr(where, name, other)
    feature_cache._environment.cache_clear()
    try:
        assert tower_digest(model.params, vision) != here
    finally:
        feature_cache._environment.cache_clear()


def test_a_killed_call_keeps_what_it_had_saved(model, split, cache, monkeypatch):
    monkeypatch.setattr(feature_cache, "SAVE_EVERY_S", 0.0)
    monkeypatch.setattr(encoder, "BATCH_SIZE", 4)
    stream = encoder.stream_split(jax_backend(model, True), split, "images")
    for _ in range(3):
        next(stream)
    assert len(segments(cache)) == 3  # it is still open, as where it is killed
    store = jax_backend(model, True).image_store
    assert [digest_of(split.image(row)) in store for row in (0, 11, 12)] == [True, True, False]


def test_a_damaged_segment_is_computed_again(model, split, cache, caplog):
    without = embed_split(model, split, "images")
    embed_split(jax_backend(model, True), split, "images")
    (segment,) = segments(cache)
    content = bytearray(segment.read_bytes())
    for damaged in (content[:-1], content[:-9] + bytes([content[-9] ^ 1]) + content[-8:], b""):
        segment.write_bytes(damaged)
        caplog.clear()
        assert np.array_equal(embed_split(jax_backend(model, True), split, "images"), without)
        assert "a part of the feature cache was damaged: what it held is computed again" in caplog.text
        assert segments(cache) == [segment]
        assert segment.read_bytes() == content


def test_a_cache_that_cannot_be_written_is_read_all_the_same(model, split, cache, monkeypatch, caplog):
    """One of another user, or on a disk that is mounted read-only: nothing there can be touched or removed."""
    expected = embed_split(jax_backend(model, cache=True), split, "images")

    def refuse(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    for name in ("utime", "unlink"):
        monkeypatch.setattr(os, name, refuse)
    without_tower = dataclasses.replace(jax_backend(model, cache=True), image_features=pytest.fail)
    assert np.array_equal(embed_split(without_tower, split, "images"), expected)
    assert caplog.text == ""


def test_a_disk_that_is_full_ends_nothing(model, split, cache, caplog):
    without = embed_split(model, split, "images")
    with file_size_limit(100):
        assert np.array_equal(embed_split(jax_backend(model, True), split, "images"), without)
    assert caplog.text.count("cannot be written (File too large): the work goes on without it") == 1
    assert not segments(cache)


def test_a_file_in_the_way_ends_nothing(model, split, cache, caplog):
    cache.parent.mkdir(parents=True)
    cache.write_text("")
    assert np.array_equal(embed_split(jax_backend(model, True), split, "images"), embed_split(model, split, "images"))
    assert "the work goes on without it" in caplog.text


def test_the_cache_holds_no_caption_and_is_its_owners(model, split, cache):
    for kind in KINDS:
        embed_split(jax_backend(model, True), split, kind)
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    for path in segments(cache):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        content = path.read_bytes()
        for row in range(len(split)):
            caption, id = (split.take(name, [row])[0] for name in ("caption", "id"))
            assert caption.encode() not in content
            assert id.encode() not in content


def test_the_least_recently_used_goes_first(cache):
    """Three stores of 10 rows of 4 numbers: (32 + 16) bytes a row and a header of 192."""
    size, stores = 10 * 48 + 192, {}
    rows = [np.full(4, i, np.float32) for i in range(10)]
    for age, name in enumerate(("a", "b", "c")):
        store = FeatureStore(cache / name, 3 * size)
        store.complete([digest_of(bytes([i])) for i in range(10)], rows, np.stack)
        store.save()
        (stores[name],) = (cache / name).glob("*.npy")
        assert stores[name].stat().st_size == size
        os.utime(stores[name], (age, age))
    FeatureStore(cache / "a")  # used once more
    last = FeatureStore(cache / "d", 3 * size)
    last.complete([digest_of(b"x")], rows[:1], np.stack)
    last.save()
    assert [name for name, path in stores.items() if path.exists()] == ["a", "c"]


@pytest.mark.parametrize("value", ["much", "-1", "nan", "inf"])
def test_a_size_that_is_none_is_refused(model, cache, monkeypatch, value):
    monkeypatch.setenv("MEDCLIP_FEATURE_CACHE_GB", value)
    with pytest.raises(UserError, match="is not a number of GB from 0 on"):
        jax_backend(model, True).image_store  # noqa: B018


def test_nothing_is_written_with_no_cache(run, data, cache, medclip, tmp_path):
    code, _, _ = medclip("evaluate", "retrieval", "--model", run, "--data", data, "--no-cache")
    assert (code, cache.exists()) == (0, False)
    code, _, _ = medclip("embed", "--model", run, "--data", data, "--out", tmp_path / "out")
    assert (code, len(segments(cache))) == (0, 2)
