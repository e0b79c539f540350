"""Whether a model saw the source: what its folder says, and no more."""

import json
from types import SimpleNamespace

import pytest

from medclip.data.dataset import Split
from medclip.evaluation.provenance import contamination
from medclip.model.card_metadata import TrainingData, add_training_data, read_training_data

ROWS = SimpleNamespace(dataset={"source": "ROCO"}, digest="abc")


@pytest.fixture
def folder(tmp_path):
    """Makes a model folder with a card."""

    def make(name="run", **head):
        at = tmp_path / name / "model"
        at.mkdir(parents=True, exist_ok=True)
        (at / "config.json").write_text("{}")
        (at / "README.md").write_text(
            "---\n" + "".join(f"{k}: {json.dumps(v)}\n" for k, v in head.items()) + "---\n# x\n"
        )
        return at

    return make


@pytest.mark.parametrize(
    ("head", "answer"),
    [
        ({"trained_on": ["roco"], "trained_on_nothing_else": True}, "yes"),
        ({"trained_on": ["x", "roco"]}, "yes"),
        ({"datasets": ["other/x", "ROCO"]}, "yes"),
        ({"datasets": "roco"}, "yes"),
        ({"trained_on": ["phantoms:5000"], "trained_on_nothing_else": True}, "no"),
        ({"trained_on": ["phantoms:5000"], "trained_on_nothing_else": False}, "unknown"),
        ({"trained_on": ["phantoms:5000"], "trained_on_nothing_else": "yes"}, "unknown"),
        ({"datasets": ["pmc-15m"]}, "unknown"),
        ({"datasets": {"roco": 1}}, "unknown"),
        ({"license": "mit"}, "unknown"),
    ],
)
def test_the_card_decides(folder, head, answer):
    result, reason = contamination(str(folder(**head)), ROWS)
    assert result == answer
    assert reason


@pytest.mark.parametrize("card", [None, "no head", "---\n: [\n---\n", "---\n- a\n---\n", b"\xff\xfe---"])
def test_without_a_card_that_can_be_read_nothing_is_known(folder, card):
    at = folder()
    (at / "README.md").unlink()
    if card is not None:
        (at / "README.md").write_bytes(card if isinstance(card, bytes) else card.encode())
    assert read_training_data(at) == TrainingData()
    assert contamination(str(at), ROWS)[0] == "unknown"


def test_a_run_knows_the_very_pairs(folder):
    at = folder(license="mit")
    (at.parent / "train_config.json").write_text(json.dumps({"data": {"train": "xyz", "validation": "abc"}}))
    assert contamination(str(at), ROWS) == ("yes", "its run had these very pairs as validation")


@pytest.mark.parametrize("record", ["", "[]", '{"data": 3}', '{"data": ["abc"]}'])
def test_a_damaged_record_says_nothing(folder, record):
    at = folder(license="mit")
    (at.parent / "train_config.json").write_text(record)
    assert contamination(str(at), ROWS)[0] == "unknown"


def test_what_goes_on_from_others_has_seen_theirs(folder):
    first = folder("a", trained_on=["x"], trained_on_nothing_else=True)
    second = folder("b", datasets=["y"])
    assert add_training_data("z", []) == TrainingData(("z",), True)
    assert add_training_data("z", [str(first)]) == TrainingData(("x", "z"), True)
    assert add_training_data("z", [str(first), str(second)]) == TrainingData(("x", "y", "z"), False)
    assert add_training_data("x", [str(first), "absent"]) == TrainingData(("x",), False)


def test_a_run_of_ours_says_what_it_was_trained_on(run, data, tmp_path):
    assert read_training_data(run) == TrainingData((Split(data, "train").dataset["source"],), True)
    assert contamination(str(run), Split(data, "validation"))[0] == "yes"
