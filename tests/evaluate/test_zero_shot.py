"""Zero-shot: planted vectors are all told apart, what is odd is counted or refused, and a record is left."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest

from medclip.cli.tables.classes import show_zero_shot
from medclip.errors import UserError, WorkError
from medclip.evaluate import zero_shot
from medclip.evaluate.compare import compare
from medclip.evaluate.config import EvalConfig
from medclip.evaluate.labeled import LabelConfig
from medclip.evaluate.labeled_features import with_random_weights
from medclip.evaluate.report import write_report
from medclip.evaluate.results import read_results
from medclip.evaluate.zero_shot import evaluate_zero_shot
from medclip.zero_shot import class_embeddings
from support.labels import CLASSES, split_rows, write_table

ALONE = LabelConfig(random_weights=False)


@pytest.fixture
def planted(monkeypatch):
    """Dark images lie where what names them does, bright ones at right angles to them; "no" turns a text round."""

    def pictures(model, pixels, advance=None):
        return np.eye(3, dtype=np.float32)[np.where(pixels.mean(axis=(1, 2, 3)) > 150, 2, 0)]

    def text(said):
        sign = -1 if set(said.split()) & {"no", "not", "without"} else 1
        return sign * np.eye(3, dtype=np.float32)[next(i for i, name in enumerate(CLASSES) if name in said)]

    monkeypatch.setattr(zero_shot, "embed_pixels", pictures)
    monkeypatch.setattr(zero_shot, "embed_texts", lambda model, said: np.stack([text(one) for one in said]))


@pytest.fixture(scope="module")
def labeled(tmp_path_factory):
    return write_table(tmp_path_factory.mktemp("labeled") / "set", split_rows())


def asked(run, folder, task=ALONE, prompts=None, **about):
    return evaluate_zero_shot(EvalConfig(model=str(run), data=str(folder), **about), task, prompts)


def no_number(text):
    raise AssertionError(f"{text} in JSON")


def test_planted_classes_are_all_told_apart(planted, run, labeled, tmp_path):
    found = asked(run, labeled, out=tmp_path)
    assert {found[name]["low"] for name in ("accuracy", "balanced_accuracy", "macro_f1", "auroc")} == {1.0}
    assert (found["pictures"], found["split"], found["chance"], found["left_out"]) == (8, "test", 0.5, {})
    said, items = read_results(tmp_path, "zero-shot")
    assert said == found
    rows = items.to_pylist()
    assert [row["id"] for row in rows[:2]] == ["dark_6.jpg", "bright_6.jpg"]
    assert all(row["label"] == row["predicted"] and row["correct"] == 1 and row["probability"] > 0.9 for row in rows)
    assert found["prompts"]["dark"][0] == "dark"
    assert [row.name for row in compare([tmp_path, tmp_path]).rows if row.kind] == ["accuracy", "balanced_accuracy"]
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert all(word in page for word in ("Zero-shot classes", "Reliability of", "bright"))


def test_a_class_that_does_not_occur_can_be_called_and_has_no_area(planted, run, labeled, tmp_path, capsys):
    task = dataclasses.replace(ALONE, classes=("bright", "dark", "middle"))
    found = asked(run, labeled, task, out=tmp_path)
    assert found["classes"]["middle"] == {"pictures": 0, "auroc": None}
    assert found["chance"] == 1 / 3
    json.loads((tmp_path / "zero_shot.json").read_text(), parse_constant=no_number)
    show_zero_shot(found)
    assert "nan" not in capsys.readouterr().out


def test_one_class_is_refused(run, labeled):
    with pytest.raises(UserError, match="one class only, 'dark'"):
        asked(run, labeled, dataclasses.replace(ALONE, classes=("dark",)))


def test_a_picture_that_cannot_be_read_is_counted(planted, run, tmp_path):
    folder = write_table(tmp_path / "set", split_rows())
    (folder / "images" / "dark_7.jpg").write_bytes(b"no image")
    (folder / "images" / "dark_8.jpg").unlink()
    found = asked(run, folder)
    assert (found["pictures"], found["left_out"]) == (6, {"image unreadable": 1, "image missing": 1})
    for path in (folder / "images").iterdir():
        path.write_bytes(b"")
    with pytest.raises(UserError, match="no image of set, test, can be read"):
        asked(run, folder)


def test_findings_are_judged_each_for_itself(planted, run, tmp_path):
    rows = ["dark_1.jpg,dark;middle", "bright_1.jpg,bright", "dark_2.jpg,dark", "bright_2.jpg,"]
    found = asked(run, write_table(tmp_path / "set", rows, "file,label"), out=tmp_path)
    assert (found["task"], found["threshold"]) == ("findings", 0.5)
    assert found["classes"]["dark"]["auroc"]["value"] == 1
    assert found["classes"]["bright"]["prevalence"] == 0.25
    assert found["classes"]["bright"]["f1"]["value"] == pytest.approx(2 / 3)  # also seen where the table says nothing
    _, items = read_results(tmp_path, "zero-shot")
    assert items.column("label").to_pylist() == ["dark;middle", "bright", "dark", ""]
    assert items.column("correct").to_pylist() == pytest.approx([2 / 3, 1, 1, 2 / 3])
    assert found["accuracy"]["value"] == pytest.approx(10 / 12)
    show_zero_shot(found)
    assert [row.name for row in compare([tmp_path, tmp_path]).rows if row.kind] == ["accuracy"]


def test_a_real_model_beside_one_with_random_weights(run, labeled, capsys):
    found = asked(run, labeled, LabelConfig())
    assert set(found["random_weights"]) == {"accuracy", "balanced_accuracy", "macro_f1", "auroc"}
    show_zero_shot(found)
    said = capsys.readouterr().out
    assert all(word in said for word in ("random weights", "chance", "majority", "calibration error", "temperature"))


def test_random_weights_keep_the_architecture(model):
    other = with_random_weights(model, 7)
    assert {k: v.shape for k, v in other.params.items()} == {k: v.shape for k, v in model.params.items()}
    name = next(name for name, value in model.params.items() if value.ndim == 2)
    assert not np.array_equal(other.params[name], model.params[name])
    assert np.array_equal(other.params[name], with_random_weights(model, 7).params[name])


def test_a_class_is_the_mean_of_its_texts_of_length_one(monkeypatch):
    vectors = {"a": [1.0, 0], "b": [0, 1.0], "c": [-1.0, 0]}
    monkeypatch.setattr(zero_shot, "embed_texts", lambda model, said: np.array([vectors[text] for text in said]))
    assert class_embeddings(None, [["a", "b"], ["c"]]) == pytest.approx(np.array([[0.5**0.5, 0.5**0.5], [-1, 0]]))
    with pytest.raises(WorkError, match="without a direction"):
        class_embeddings(None, [["a", "c"]])


def test_a_model_that_makes_no_numbers_is_refused(run, labeled, model, monkeypatch):
    broken = {name: jnp.full_like(value, jnp.nan) for name, value in model.params.items()}
    monkeypatch.setattr(zero_shot, "load", lambda name: dataclasses.replace(model, params=broken))
    with pytest.raises(WorkError, match="weights are damaged"):
        asked(run, labeled)
    monkeypatch.setattr(zero_shot, "class_embeddings", lambda model, texts: np.eye(2, model.config.projection_dim))
    with pytest.raises(WorkError, match="not finite"):
        asked(run, labeled)
