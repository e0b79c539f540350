"""The card of a run: the Hub reads its head, a stranger its text, and nobody learns whose machine it was."""

import dataclasses
import json
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from huggingface_hub import ModelCard, ModelCardData, metadata_load
from huggingface_hub.repocard_data import model_index_to_eval_results

from medclip.data.dataset import Split
from medclip.metrics import DistinctPairs
from medclip.model.checkpoint import load, save
from medclip.training.config import FromModel, FromTowers, TrainConfig, resolve
from medclip.training.model_card import write_run_card
from support.material import draw_image, image_bytes
from support.references import FAMILIES, FOLDER, random_folder


def rank(count):
    """Retrieval of `count` pairs whose embeddings are each other's."""
    vectors, ids = np.eye(count, dtype=np.float32), np.arange(count)
    queries = DistinctPairs.of_rows(vectors, vectors, ids, ids).rank()
    articles = [f"article {i}" for i in range(count)]
    return queries, {direction: own.metrics(articles, 0) for direction, own in queries.items()}


@pytest.fixture
def make_card(data, tmp_path):
    """Writes the card of a run on a dataset with other fields, started from other models."""

    def make(start=None, dataset=(), licenses=None, model=None):
        folder = tmp_path / "run" / "model"
        folder.mkdir(parents=True, exist_ok=True)
        split = Split(data, "train")
        split.dataset |= dict(dataset)
        if licenses is not None:
            licenses = licenses + [""] * (len(split) - len(licenses))
            at = split.table.schema.get_field_index("license")
            split.table = split.table.set_column(at, "license", pa.array(licenses))
        validation = Split(data, "validation")
        validation.dataset |= dict(dataset)
        config = resolve(TrainConfig(preset="tiny", steps=4, batch_size=8), len(split))
        config = dataclasses.replace(config, **({"start": start} if start else {}))
        queries, metrics = rank(len(validation))
        write_run_card(folder, model or load(FOLDER), config, split, validation, {"step": 2}, queries, metrics)
        return ModelCard.load(folder / "README.md")

    return make


def test_the_card_says_what_a_stranger_must_know(run, train_config, roco):
    card = (run / "model" / "README.md").read_text(encoding="utf-8")
    best = json.loads((run / "summary.json").read_text())["best"]
    for statement in (
        "not for clinical use",
        f"Source: {roco.folder.name}. 25 training pairs, 12 validation pairs",
        f"{train_config.steps} steps of {train_config.batch_size} pairs",
        f"the weights of step {best['step']}",
        "12 images, 12 captions. This split also chose the weights.",
        "## Limitations",
        "## License",
    ):
        assert statement in card
    both = re.findall(r"\| (?:text→image|image→text) · R@10 \| ([\d.]+)", card)
    assert np.mean([float(value) for value in both]) == pytest.approx(100 * best["R@10"], abs=0.06) and len(both) == 2


def test_the_head_is_the_hubs_and_says_what_was_measured_on_what(run, data, roco):
    path = run / "model" / "README.md"
    head = metadata_load(path)
    assert head["license"] == "other" and head["library_name"] == "transformers" and "base_model" not in head
    assert head["trained_on"] == [roco.folder.name] and head["trained_on_nothing_else"] is True
    assert ModelCardData(**head).to_dict() == head
    name, results = model_index_to_eval_results(head["model-index"])
    assert name == run.name and str(ModelCard(str(ModelCard.load(path)))) == path.read_text(encoding="utf-8")
    best = json.loads((run / "summary.json").read_text())
    recalls = [result for result in results if result.metric_type.endswith("/R@10")]
    assert np.mean([recall.metric_value for recall in recalls]) == pytest.approx(best["best"]["R@10"])
    for result in results:
        assert (result.dataset_split, result.dataset_revision) == ("validation", Split(data, "validation").digest)
        assert result.dataset_args["pool"] == {"images": 12, "captions": 12}
        assert result.dataset_args.get("commit") == best["commit"]
        assert result.metric_args["low"] <= result.metric_value <= result.metric_args["high"]


@pytest.mark.parametrize(
    ("dataset", "sentence", "absent"),
    [
        ({"source": "phantoms:50", "synthetic": True}, "drawn by a program: no patients", "over-represented"),
        ({"source": "DICOM", "synthetic": False}, "DICOM studies. 25 training", "Source:"),
        ({"source": "clinic-b", "synthetic": False}, "Source: clinic-b. 25 training", "DICOM"),
    ],
)
def test_it_says_of_the_datas_origin_what_the_dataset_says(make_card, dataset, sentence, absent):
    card = make_card(dataset=dataset)
    assert sentence in card.text and absent not in card.text and "ublication" not in card.text
    assert {result.dataset_type for result in card.data.eval_results} == {dataset["source"]}


@pytest.mark.parametrize("source", ["a: b", "[x]", "# y", "'", '"q"', "{{ 7 * 7 }}", "\x1b[31m", "-", "no"])
def test_a_source_of_any_name_leaves_the_head_whole(make_card, source):
    card = make_card(dataset={"source": source})
    assert card.data["trained_on"] == [source]
    assert {result.dataset_name for result in card.data.eval_results} == {source}
    assert "49" not in card.text.split("## Training")[0] and "\x1b" not in str(card)


def test_models_of_the_hub_are_base_models_and_folders_name_theirs(make_card, tmp_path):
    assert make_card(FromModel("hf-hub:openai/clip@main")).data.base_model == ["openai/clip"]
    parent = tmp_path / "home" / "mueller" / "first"
    shutil.copytree(FOLDER, parent)
    assert make_card(FromModel(str(parent))).data.base_model is None
    (parent / "README.md").write_text("---\nbase_model: [laion/x, /home/mueller/y]\nlicense: mit\n---\n")
    card = make_card(FromTowers(str(parent), "sentence-transformers/all-MiniLM-L6-v2"))
    assert card.data.base_model == ["laion/x", "sentence-transformers/all-MiniLM-L6-v2"]
    assert "Vision tower of first joined with the text tower of sentence-transformers/all-MiniLM-L6-v2" in card.text
    assert "The card of first says mit." in card.text and "mueller" not in str(card)


def test_a_folder_where_the_command_runs_has_a_name(make_card, tmp_path, monkeypatch):
    (tmp_path / "parent" / "inner").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "parent" / "inner")
    assert "Vision tower of inner joined with the text tower of parent." in make_card(FromTowers(".", "..")).text


def test_datasets_of_the_hub_are_named_as_such(make_card):
    assert make_card(dataset={"source": "eltorio/ROCOv2-radiology"}).data.datasets == ["eltorio/ROCOv2-radiology"]
    assert make_card(dataset={"source": "roco"}).data.datasets is None


def test_licenses_of_the_pairs_are_counted_and_unusual_ones_not_quoted(make_card):
    card = make_card(licenses=["CC BY 4.0", "cc-by", "CC0", "© Dr. A. Mueller, all rights reserved"])
    assert "not stated 21, cc-by 2, cc0 1, another 1" in card.text and "mueller" not in str(card).lower()


def python_blocks(card):
    return dict(re.findall(r"With ([\w-]+):\n\n```python\n(.*?)\n```", card.text, re.DOTALL))


def run_block(card, library, folder, monkeypatch):
    """What the names of a card's code are bound to after it ran in the model's folder."""
    (folder / "image.png").write_bytes(image_bytes(draw_image(3), "PNG"))
    monkeypatch.chdir(folder)
    names = {}
    exec(python_blocks(card)[library], names)
    return SimpleNamespace(**names)


def test_our_code_on_the_card_runs_in_the_folder(run, tmp_path, monkeypatch):
    folder = shutil.copytree(run / "model", tmp_path / "model")
    card = ModelCard.load(folder / "README.md")
    assert list(python_blocks(card)) == ["medclip", "transformers", "sentence-transformers"]
    ours = run_block(card, "medclip", folder, monkeypatch)
    assert ours.cosines.shape == (2,) and ours.probabilities.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parity
@pytest.mark.parametrize("families", FAMILIES, ids="+".join)
def test_every_block_of_code_runs_and_gives_what_ours_gives(make_card, families, tmp_path, monkeypatch):
    random_folder(tmp_path / "theirs", 5, families, 28)
    folder = tmp_path / "run" / "model"
    save(model := load(tmp_path / "theirs"), folder)
    card = make_card(model=model)
    ours, sentence, torch_model = (run_block(card, library, folder, monkeypatch) for library in (
        "medclip", "sentence-transformers", "transformers"))  # fmt: skip
    np.testing.assert_allclose(sentence.cosines, ours.cosines, atol=5e-3)  # torchvision resizes otherwise
    logits = np.exp(np.asarray(model.params["logit_scale"]).item()) * ours.cosines
    probabilities = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(torch_model.probabilities, probabilities, atol=2e-2)


@pytest.mark.parity
def test_the_block_of_open_clip_runs(make_card, tmp_path, monkeypatch):
    from medclip.model.open_clip.to_open_clip import export_open_clip

    random_folder(tmp_path / "theirs", 5, ("clip", "clip"), 28)
    folder = tmp_path / "run" / "model"
    export_open_clip(tmp_path / "theirs", folder)
    card = make_card(model=load(folder))
    assert card.data.library_name == "open_clip"
    blocks = [run_block(card, library, folder, monkeypatch) for library in ("medclip", "open_clip")]
    np.testing.assert_allclose(blocks[1].cosines, blocks[0].cosines, atol=5e-3)
