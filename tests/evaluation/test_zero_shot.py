"""Zero-shot: planted vectors are all recognized, what is odd is counted or refused, and a record is left."""

import dataclasses
import json

import numpy as np
import pytest

from medclip.cli.evaluation_tables import evaluation_tables
from medclip.cli.format import screen
from medclip.encode.encoder import jax_backend
from medclip.errors import UserError, WorkError
from medclip.evaluation import zero_shot
from medclip.evaluation.compare import compare
from medclip.evaluation.config import EvalConfig, LabelConfig
from medclip.evaluation.labeled_features import with_random_weights
from medclip.evaluation.report import write_report
from medclip.evaluation.results import Kind, read_results
from medclip.evaluation.zero_shot import evaluate_zero_shot
from support.labels import CLASSES, split_rows, write_table

ALONE = LabelConfig(random_weights=False)


@pytest.fixture
def planted_vectors(monkeypatch):
    """Dark images lie where what names them does, bright ones at right angles to them; "no" turns a text round."""

    def images(pixels):
        return np.eye(3, dtype=np.float32)[np.where(pixels.mean(axis=(1, 2, 3)) > 150, 2, 0)]

    def embedding(text):
        sign = -1 if set(text.split()) & {"no", "not", "without"} else 1
        return sign * np.eye(3, dtype=np.float32)[next(i for i, name in enumerate(CLASSES) if name in text)]

    def texts(_, prompts):
        return np.stack([embedding(text) for text in prompts])

    def backend(model, cache=False):
        return dataclasses.replace(jax_backend(model), image_features=images, project=lambda features, tower: features)

    monkeypatch.setattr(zero_shot, "jax_backend", backend)
    monkeypatch.setattr(zero_shot, "embed_captions", texts)


@pytest.fixture(scope="module")
def labeled_folder(tmp_path_factory):
    return write_table(tmp_path_factory.mktemp("labeled") / "set", split_rows())


@pytest.fixture
def show(capsys, monkeypatch):
    """What a wide terminal shows of results."""
    monkeypatch.setattr(screen, "width", 200)

    def text(results):
        for table in evaluation_tables(results):
            screen.print(table)
        return capsys.readouterr().out

    return text


def evaluate(run, folder, labels=ALONE, prompts=None, **settings):
    return evaluate_zero_shot(EvalConfig(model=str(run), data=str(folder), **settings), labels, prompts)


def no_number(text):
    raise AssertionError(f"{text} in JSON")


def compared_metrics(folder):
    return [row.name for row in compare([folder, folder]).rows if row.contrasts]


@pytest.mark.slow
def test_planted_classes_are_all_recognized(planted_vectors, run, labeled_folder, tmp_path):
    results = evaluate(run, labeled_folder, out=tmp_path)
    assert {results[name].value for name in ("accuracy", "balanced_accuracy", "macro_f1", "auroc")} == {1.0}
    assert (results.facts["num_images"], results.provenance.split, results["accuracy"].chance) == (8, "test", 0.5)
    assert results.below("excluded") == []
    read, items = read_results(tmp_path, Kind.ZERO_SHOT)
    assert read == results
    rows = items.to_pylist()
    assert [row["id"] for row in rows[:2]] == ["dark_6.jpg", "bright_6.jpg"]
    assert all(row["label"] == row["predicted"] and row["correct"] == 1 and row["probability"] > 0.9 for row in rows)
    assert results.facts["prompts/dark"][0] == "dark"
    assert compared_metrics(tmp_path) == ["accuracy", "balanced_accuracy"]
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert all(word in page for word in ("Zero-shot classes", "Reliability of", "bright"))


@pytest.mark.slow
def test_a_class_that_does_not_occur_can_be_called_and_has_no_area(
    planted_vectors, run, labeled_folder, tmp_path, show
):
    labels = dataclasses.replace(ALONE, classes=("bright", "dark", "middle"))
    results = evaluate(run, labeled_folder, labels, out=tmp_path)
    assert results.facts["classes/middle/num_images"] == 0
    assert results["classes/middle/auroc"].value is None
    assert results["accuracy"].chance == 1 / 3
    json.loads((tmp_path / "zero_shot.json").read_text(), parse_constant=no_number)
    assert "nan" not in show(results)


def test_a_class_that_is_a_number_needs_a_name(tmp_path):
    """Prompts such as "a radiology image of 1" would give a number for nothing."""
    folder = write_table(tmp_path / "set", ["dark_1.jpg,1.0,", "bright_1.jpg,0.0,"], "file,Edema,split")
    labels = dataclasses.replace(ALONE, label="Edema")
    with pytest.raises(
        UserError, match=r"class '0' of 'Edema' has no word .*\[Edema\.names\], 0 = .* --classes Edema alone"
    ):
        evaluate("", folder, labels)
    grades = write_table(tmp_path / "grades", ["dark_1.jpg,0.5,", "bright_1.jpg,1.5,"], "file,Grade %,split")
    with pytest.raises(UserError) as error:
        evaluate("", grades, dataclasses.replace(ALONE, label="Grade %"))
    assert '["Grade %".names], "0.5" = ["pneumonia"]' in str(error.value)
    named = tmp_path / "prompts.toml"
    named.write_text('[Edema]\ntemplates = ["{}"]\n[Edema.names]\n0 = ["no edema"]\n1 = ["edema"]\n')
    with pytest.raises(UserError, match="absent"):  # it goes on to the model
        evaluate(tmp_path / "absent", folder, labels, named)


@pytest.mark.parametrize(
    ("one", "other"), [("True", "False"), ("positive", "Negative"), ("YES", "no"), ("present", "absent")]
)
def test_a_class_that_answers_a_question_needs_a_name(tmp_path, one, other):
    """Whose prompt "a radiology image of a true" would give a number for nothing; True and False are 1 and 0."""
    folder = write_table(tmp_path / "set", [f"dark_1.jpg,{one},", f"bright_1.jpg,{other},"], "file,Edema,split")
    with pytest.raises(UserError, match=r"of 'Edema' has no word .*\[Edema\.names\]") as error:
        evaluate("", folder, dataclasses.replace(ALONE, label="Edema"))
    assert ("--classes Edema alone" in str(error.value)) is (one == "True")


def test_one_class_is_refused(run, labeled_folder):
    with pytest.raises(UserError, match="one class only, 'dark'"):
        evaluate(run, labeled_folder, dataclasses.replace(ALONE, classes=("dark",)))


def test_classes_of_the_same_prompts_are_refused(run, tmp_path):
    """Every image of the one would tie with the other, which counts against the model."""
    folder = write_table(tmp_path / "set", ["dark_1.jpg,round_mass,", "dark_2.jpg,Round mass,", "bright_1.jpg,cyst,"])
    with pytest.raises(UserError, match="classes 'Round mass' and 'round_mass' have the same prompts"):
        evaluate(run, folder, ALONE)


@pytest.mark.slow
def test_an_image_that_cannot_be_read_is_counted(planted_vectors, run, tmp_path):
    folder = write_table(tmp_path / "set", split_rows())
    (folder / "images" / "dark_7.jpg").write_bytes(b"no image")
    (folder / "images" / "dark_8.jpg").unlink()
    results = evaluate(run, folder)
    excluded = {reason: results.facts[f"excluded/{reason}"] for reason in results.below("excluded")}
    assert (results.facts["num_images"], excluded) == (6, {"image unreadable": 1, "image missing": 1})
    for path in (folder / "images").iterdir():
        path.write_bytes(b"")
    with pytest.raises(UserError, match="no image of set, test, can be read"):
        evaluate(run, folder)


def test_findings_are_judged_each_for_itself(planted_vectors, run, tmp_path, show):
    rows = ["dark_1.jpg,dark;middle", "bright_1.jpg,bright", "dark_2.jpg,dark", "bright_2.jpg,"]
    results = evaluate(run, write_table(tmp_path / "set", rows, "file,label"), out=tmp_path)
    assert (results.facts["task"], results.facts["threshold"]) == ("findings", 0.5)
    assert results["classes/dark/auroc"].value == 1
    assert results.facts["classes/bright/prevalence"] == 0.25
    assert results["classes/bright/f1"].value == pytest.approx(2 / 3)  # also seen where the table says nothing
    _, items = read_results(tmp_path, Kind.ZERO_SHOT)
    assert items.column("label").to_pylist() == ["dark;middle", "bright", "dark", ""]
    assert items.column("correct").to_pylist() == pytest.approx([2 / 3, 1, 1, 2 / 3])
    assert results["accuracy"].value == pytest.approx(10 / 12)
    assert "prevalence" in show(results)
    assert compared_metrics(tmp_path) == ["accuracy"]


@pytest.mark.slow
def test_a_real_model_beside_one_with_random_weights(run, labeled_folder, show):
    results = evaluate(run, labeled_folder, LabelConfig())
    assert set(results.below("random_weights")) == {"accuracy", "balanced_accuracy", "macro_f1", "auroc"}
    text = show(results)
    for words in ("random weights", "chance", "most frequent class", "calibration error", "Temperature"):
        assert words in text


def test_random_weights_keep_the_architecture(model):
    other = with_random_weights(model, 7)
    assert {k: v.shape for k, v in other.params.items()} == {k: v.shape for k, v in model.params.items()}
    name = next(name for name, value in model.params.items() if value.ndim == 2)
    assert not np.array_equal(other.params[name], model.params[name])
    assert np.array_equal(other.params[name], with_random_weights(model, 7).params[name])


def test_a_model_that_makes_no_numbers_is_refused(run, labeled_folder, model, monkeypatch):
    broken = {name: np.full_like(value, np.nan) for name, value in model.params.items()}
    monkeypatch.setattr(zero_shot, "load", lambda name: dataclasses.replace(model, params=broken))
    with pytest.raises(WorkError, match="weights are damaged"):
        evaluate(run, labeled_folder)
    monkeypatch.setattr(
        zero_shot, "embed_captions", lambda _, texts: np.ones((len(texts), model.config.projection_dim))
    )
    with pytest.raises(WorkError, match="not finite"):
        evaluate(run, labeled_folder)
