"""Embeddings are the encoder's, and a killed and resumed call ends with the same bytes as one that was not."""

import importlib
import json
from dataclasses import replace

import numpy as np
import pytest

from medclip.data import resume
from medclip.data.dataset import Split
from medclip.encode.encoder import embed_images, embed_texts, jax_backend
from medclip.errors import UserError, WorkError
from medclip.search.embed import embed, write_embeddings

BOTH = ("images", "captions")
embed_module = importlib.import_module("medclip.search.embed")  # as an attribute it may be the function


@pytest.fixture
def small_batches(monkeypatch):
    for name in ("BATCH_SIZE", "WINDOW"):
        monkeypatch.setattr(f"medclip.encode.encoder.{name}", 4)
    monkeypatch.setattr(resume, "SAVE_EVERY_S", 0.0)


def test_row_i_is_pair_i(run, data, model, tmp_path, small_batches):
    assert embed(run, data, tmp_path, "train", None, BOTH) == 25
    rows = Split(data, "train")
    images, texts = np.load(tmp_path / "images.npy"), np.load(tmp_path / "texts.npy")
    assert images == pytest.approx(embed_images(model, [rows.image(row) for row in range(25)]), abs=1e-6)
    assert texts == pytest.approx(embed_texts(model, rows.column("caption")), abs=1e-6)
    assert (tmp_path / "ids.txt").read_text().split() == rows.column("id")
    origin = json.loads((tmp_path / "embedding.json").read_text())
    assert (origin["num_pairs"], origin["embedding_dim"], origin["split"]) == (25, 64, "train")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["embedding.json", "ids.txt", "images.npy", "texts.npy"]


def test_a_finished_folder_is_never_overwritten(run, data, tmp_path):
    embed(run, data, tmp_path, None, 3, ("captions",))
    assert not (tmp_path / "images.npy").exists()
    with pytest.raises(UserError, match="already finished"):
        embed(run, data, tmp_path, None, 3, ("captions",))


class Killed(BaseException):
    """An exception that nothing catches."""


def interrupt_after(backend, batches):
    """The backend, killed after so many batches; and the list of the batch sizes that it embeds."""
    sizes = []

    def killed_after(embed_batch):
        def call(*arrays):
            if len(sizes) == batches:
                raise Killed
            sizes.append(len(arrays[0]))
            return embed_batch(*arrays)

        return call

    embeds = {name: killed_after(getattr(backend, name)) for name in ("image_features", "text_features")}
    return replace(backend, **embeds), sizes


@pytest.mark.parametrize("batches", range(14))
def test_a_killed_call_resumes_to_the_same_bytes(run, data, model, tmp_path, small_batches, monkeypatch, batches):
    embed(run, data, tmp_path / "whole", "train", None, BOTH)
    killed, before = interrupt_after(jax_backend(model), batches)
    monkeypatch.setattr(embed_module, "open_backend", lambda *_: killed)
    with pytest.raises(Killed):
        embed(run, data, tmp_path / "killed", "train", None, BOTH)
    assert not (tmp_path / "killed" / "embedding.json").exists()
    resumed, after = interrupt_after(jax_backend(model), 1000)
    monkeypatch.setattr(embed_module, "open_backend", lambda *_: resumed)
    embed(run, data, tmp_path / "killed", "train", None, BOTH)
    # what was embedded stays so, but for a window that had not ended
    assert len(before) == batches and 50 <= sum(before) + sum(after) < 50 + 4
    for name in ("images.npy", "texts.npy", "ids.txt", "embedding.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_file_of_another_model_is_not_resumed(model, data, tmp_path, small_batches):
    rows = Split(data, "validation")
    write_embeddings(tmp_path / "v.npy", jax_backend(model), rows, range(8), {"model_sha256": "a"}, "images")
    before = (tmp_path / "v.npy").read_bytes()
    write_embeddings(tmp_path / "v.npy", jax_backend(model), rows, range(4, 12), {"model_sha256": "b"}, "images")
    assert (tmp_path / "v.npy").read_bytes() != before


def test_embeddings_that_are_not_finite_are_refused(model, data, tmp_path):
    name = "visual_projection.weight"
    damaged = type(model)(**{**vars(model), "params": model.params | {name: model.params[name] * np.nan}})
    with pytest.raises(WorkError, match="not finite"):
        write_embeddings(tmp_path / "v.npy", jax_backend(damaged), Split(data, "validation"), range(3), {}, "images")
