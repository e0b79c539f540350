"""Labeled images are the same value wherever they come from; what cannot be used is counted or refused."""

import pytest

from medclip.errors import UserError
from medclip.evaluate.config import EvalConfig
from medclip.evaluate.labeled import LabelConfig, measured_rows, probed_rows
from support.labels import relabeled, split_rows, write_folders, write_table


def subject(folder, **about):
    return EvalConfig(model="", data=str(folder), **about)


def measured(folder, label=None, classes=(), **about):
    return measured_rows(subject(folder, **about), LabelConfig(label=label, classes=classes))


def test_a_table_is_read_with_its_splits(tmp_path):
    folder = write_table(tmp_path / "set", split_rows())
    found = measured(folder)
    assert (found.name, len(found), found.classes, found.several) == ("test", 8, ["bright", "dark"], False)
    assert found.rows[0].image.read_bytes()
    assert found.dataset == {"source": "set", "synthetic": False}
    assert len(measured(folder, split="training")) == 12
    assert measured(folder, max_samples=3).labels == [("dark",), ("bright",), ("dark",)]


def test_a_table_without_splits_is_measured_as_a_whole(tmp_path):
    rows = [row.rsplit(",", 1)[0] for row in split_rows()]
    found = measured(write_table(tmp_path / "set", rows, "file,label"))
    assert (found.name, len(found)) == ("all", 20)


def test_pictures_may_lie_beside_the_table(tmp_path):
    folder = write_table(tmp_path / "set", split_rows())
    for path in (folder / "images").iterdir():
        path.rename(folder / path.name)
    assert all(row.image.is_file() for row in measured(folder).rows)


def test_rows_that_cannot_be_used_are_counted_by_reason(tmp_path):
    bad = ["dark_9.jpg,,test", ",dark,test", "../../x.jpg,dark,test", "dark_8.jpg", "middle_1.jpg,middle,test"]
    bad.append("dark_1.jpg,bright,test")
    folder = write_table(tmp_path / "set", ["dark_1.jpg,dark,test", "bright_1.jpg,bright,test", *bad])
    found = measured(folder, classes=("bright", "dark"))
    assert len(found) == 2
    assert found.left_out == {
        "without label": 1,
        "row without an image": 1,
        "image outside the folder": 1,
        "of another class": 1,
        "duplicate row": 1,
    }


def test_a_folder_a_class(tmp_path):
    folder = write_folders(tmp_path / "set", {"dark": 3, "bright": 2})
    (folder / "dark" / "notes.txt").write_text("no image")
    (folder / ".cache").mkdir()
    found = measured(folder)
    assert [row.id for row in found.rows[:3]] == ["bright/0.jpg", "dark/0.jpg", "bright/1.jpg"]
    assert found.classes == ["bright", "dark"]
    assert found.articles[0] == "bright/0.jpg"
    assert len(measured(folder, classes=("dark",))) == 3


def test_a_folder_in_a_class_is_a_patient(tmp_path):
    folder = write_folders(tmp_path / "set", {"dark": 2, "bright": 1})
    (folder / "dark" / "p1").mkdir()
    for nth in (0, 1):
        (folder / "dark" / f"{nth}.jpg").rename(folder / "dark" / "p1" / f"{nth}.jpg")
    assert sorted(measured(folder).articles) == ["bright/0.jpg", "dark/p1", "dark/p1"]


def test_folders_of_splits_above_those_of_classes(tmp_path):
    for split, count in (("train", 4), ("val", 2)):
        write_folders(tmp_path / "set", {"dark": count, "bright": count}, below=split)
    train, found = probed_rows(subject(tmp_path / "set"), LabelConfig())
    assert (train.name, len(train), found.name, len(found)) == ("train", 8, "validation", 4)


def test_a_label_of_a_prepared_data_set(data, copy):
    other = relabeled(copy(data), lambda row: {"modality": "ct"} if row["id"] < "ROCO_00006" else {})
    found = measured(other)
    assert (found.name, found.label, len(found), found.left_out) == ("validation", "modality", 6, {"without label": 6})
    assert found.articles[:2] == ["PMC1000", "PMC1000"]
    with pytest.raises(UserError, match=r"which label \(--label\)\? it has: modality"):
        measured(other, label="organ")


def test_one_digest_for_the_same_pictures_and_labels(tmp_path):
    folder = write_table(tmp_path / "set", split_rows())
    before = measured(folder).digest
    assert measured(folder).digest == before
    (folder / "images" / "dark_7.jpg").write_bytes(b"another")
    assert measured(folder).digest != before


def test_several_values_and_none(tmp_path):
    rows = ["dark_1.jpg,mass; effusion;mass,", "dark_2.jpg,,", "dark_3.jpg,mass,", "dark_4.jpg"]
    found = measured(write_table(tmp_path / "set", rows))
    assert found.several
    assert found.labels == [("mass", "effusion"), (), ("mass",)]
    assert found.left_out == {"without label": 1}
    with pytest.raises(UserError, match="a probe takes one value an image"):
        probed_rows(
            subject(write_table(tmp_path / "other", [*rows, "dark_5.jpg,mass,train", "dark_6.jpg,a;b,test"])),
            LabelConfig(),
        )


def test_a_probe_never_learns_from_an_article_that_it_is_measured_on(tmp_path):
    rows = [f"{row},{'p1' if 'dark' in row else row[:8]}" for row in split_rows()]
    train, found = probed_rows(subject(write_table(tmp_path / "set", rows, "file,label,split,article")), LabelConfig())
    assert train.left_out == {"article is measured too": 6}
    assert not set(train.articles) & set(found.articles)


def test_without_splits_a_hash_of_the_file_decides(tmp_path):
    folder = write_folders(tmp_path / "set", {"dark": 20, "bright": 20})
    train, found = probed_rows(subject(folder), LabelConfig())
    assert len(train) + len(found) == 40
    assert 0 < len(found) < 20
    write_folders(folder, {"middle": 9})
    assert set(found.articles) < set(
        probed_rows(subject(folder), LabelConfig())[1].articles
    )  # they stay where they are


@pytest.mark.parametrize(
    ("make", "about", "said"),
    [
        (lambda at: at / "absent", {}, "is no folder; give a prepared dataset"),
        (lambda at: at, {}, "holds no labeled images"),
        (lambda at: write_table(at / "set", [], "file,label"), {}, "has no images of split 'all'"),
        (lambda at: write_table(at / "set", ["dark_1.jpg,x"], "file,kind"), {}, "has no column 'label'"),
        (lambda at: write_table(at / "set", ["dark_1.jpg,x"], "where,label"), {}, "has no column of images"),
        (lambda at: write_table(at / "set", ["dark_1.jpg,x"], "file,label"), {"label": "organ"}, "no column 'organ'"),
        (
            lambda at: write_table(at / "set", split_rows()),
            {"split": "dev"},
            "no images of split 'validation'; its splits: test, train",
        ),
        (lambda at: write_table(at / "set", split_rows()), {"classes": ("fog",)}, "no image has a label 'label'"),
        (lambda at: write_folders(at / "set", {"dark": 1, "bright": 0}), {}, "bright holds no images"),
        (lambda at: write_folders(at / "set", {"dark": 1}), {"label": "organ"}, "its folders are the classes"),
    ],
)
def test_what_is_no_labeled_set_is_refused_by_a_sentence(tmp_path, make, about, said):
    with pytest.raises(UserError, match=said):
        measured(make(tmp_path), **about)


def test_a_probe_needs_something_to_learn_from(tmp_path):
    rows = [row for row in split_rows() if row.endswith("test")]
    folder = write_table(tmp_path / "set", rows)
    with pytest.raises(UserError, match="no images of split 'train'"):
        probed_rows(subject(folder), LabelConfig())
    with pytest.raises(UserError, match="measure another split"):
        probed_rows(subject(write_table(tmp_path / "both", split_rows()), split="train"), LabelConfig())
