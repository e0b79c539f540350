"""Corrections of pairs: their file, and the dataset that they make."""

import json

import pyarrow as pa
import pytest

from medclip.data.corrections import correct_data, pair_keys, read_corrections, relabel_table, write_corrections
from medclip.data.dataset import Split, read_dataset
from medclip.errors import UserError


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("[]", "is not an object"),
        ("{}", "is not of the form"),
        ('{"corrections": {}}', "is not of the form"),
        ('{"corrections": [], "x": 1}', "is not of the form"),
        ('{"corrections": []}', "corrects nothing"),
        ('{"corrections": ["a"]}', "correction 1 is not of the form"),
        ('{"corrections": [{"id": "a", "labels": null}]}', "correction 1 is not of the form"),
        ('{"corrections": [{"id": 1, "sha256": "", "labels": null}]}', "correction 1 is not of the form"),
        ('{"corrections": [{"id": "a", "sha256": "", "labels": {}}]}', "correction 1 is not of the form"),
        ('{"corrections": [{"id": "a", "sha256": "", "labels": {"": "x"}}]}', "correction 1 is not of the form"),
        ('{"corrections": [{"id": "a", "sha256": "", "labels": {"organ": null}}]}', "correction 1 is not of the form"),
        (
            '{"corrections": [{"id": "", "sha256": "", "labels": null},'
            ' {"id": "", "sha256": "", "labels": {"organ": "x"}}]}',
            "correction 2 is of a pair that an earlier one",
        ),
        (
            '{"corrections": [{"id": "a", "sha256": "", "labels": {"organ": "\\ud800"}}]}',
            "correction 1 is not of the form",
        ),
        ('{"corrections": [{"id": "a", "sha256": "", "labels": {"\\ud800": "x"}}]}', "correction 1 is not of the form"),
        ('{"corrections": [', "is damaged"),
    ],
)
def test_a_file_that_says_nothing_clear_is_refused(tmp_path, content, reason):
    (tmp_path / "c.json").write_text(content)
    with pytest.raises(UserError, match=reason):
        read_corrections(tmp_path / "c.json")


def test_a_file_is_read_as_it_was_written(tmp_path):
    corrections = {("b", "1"): None, ("c", "2"): {"modality": "ct", "organ": ""}}
    (tmp_path / "c.json").write_text(write_corrections(corrections))
    assert read_corrections(tmp_path / "c.json") == corrections


def test_labels_are_changed_added_and_removed_and_others_stay():
    kind = pa.map_(pa.string(), pa.string())
    labels = [[("modality", "ct"), ("organ", "chest")], [("modality", "mri")], None, []]
    table = pa.table({"id": ["a", "b", "c", "a"], "sha256": ["1", "2", "3", "4"], "labels": pa.array(labels, kind)})
    relabel = {
        ("a", "1"): {"modality": "mri", "organ": "", "view": "ap"},
        ("a", "4"): {"organ": "knee"},
        ("b", "1"): {"organ": "x"},
        ("c", "3"): None,
    }
    changed = relabel_table(table, relabel).column("labels").to_pylist()
    assert changed == [[("modality", "mri"), ("view", "ap")], [("modality", "mri")], None, [("organ", "knee")]]


def test_a_dataset_is_copied_without_the_deleted_and_with_new_labels(data, medclip, tmp_path):
    first, second, *_ = pair_keys(Split(data, "validation").table)
    corrections = {first: None, ("elsewhere", first[1]): None, (first[0], "another"): None, second: {"modality": "new"}}
    (tmp_path / "c.json").write_text(write_corrections(corrections))
    code, out, _ = medclip("correct", data, "--corrections", tmp_path / "c.json", "--out", tmp_path / "new")
    assert code == 0
    counts = {"deleted": 0, "relabeled": 0}
    for name in ("train", "validation"):
        expected = Split(data, name).table.to_pylist()
        num_pairs = len(expected)
        expected = [row for row in expected if (row["id"], row["sha256"]) != first]
        counts["deleted"] += num_pairs - len(expected)
        for row in expected:
            if (row["id"], row["sha256"]) == second:
                row["labels"] = list({**dict(row["labels"]), "modality": "new"}.items())
                counts["relabeled"] += 1
        assert Split(tmp_path / "new", name).table.to_pylist() == expected
    assert json.loads(out) == {"out": str(tmp_path / "new"), **counts, "absent": 2}
    assert read_dataset(tmp_path / "new")["corrected"] == counts
    assert f"validation\t{first[0]}\t" not in (tmp_path / "new" / "NOTICE.txt").read_text()
    assert medclip("verify", tmp_path / "new")[0] == 0


def test_corrections_of_other_pairs_or_of_all_write_nothing(data, tmp_path):
    with pytest.raises(UserError, match="holds none of the 1 pairs"):
        correct_data(data, tmp_path / "new", {("elsewhere", ""): None})
    with pytest.raises(UserError, match=r"no pair of split 'validation' .* would be left"):
        correct_data(data, tmp_path / "new", dict.fromkeys(pair_keys(Split(data, "validation").table)))
    assert not (tmp_path / "new").exists()
