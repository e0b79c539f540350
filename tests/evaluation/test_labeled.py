"""Labeled images are the same value wherever they come from; what cannot be used is counted or refused."""

import pytest

from medclip.errors import UserError
from medclip.evaluation.config import EvalConfig, LabelConfig
from medclip.evaluation.labeled import CONTRADICTORY, labeled_rows, probe_rows
from support.labels import relabel, split_rows, write_folders, write_table


def config(folder, **settings):
    return EvalConfig(model="", data=str(folder), **settings)


def rows_of(folder, label=None, classes=(), **settings):
    return labeled_rows(config(folder, **settings), LabelConfig(label=label, classes=classes))


def test_a_table_is_read_with_its_splits(tmp_path):
    folder = write_table(tmp_path / "set", split_rows())
    images = rows_of(folder)
    assert (images.name, len(images), images.classes, images.multilabel) == ("test", 8, ["bright", "dark"], False)
    assert images.rows[0].image.read_bytes()
    assert images.dataset == {"source": "set", "synthetic": False}
    assert len(rows_of(folder, split="training")) == 12
    assert rows_of(folder, max_samples=3).labels == [("dark",), ("bright",), ("dark",)]


def test_a_table_without_splits_is_measured_as_a_whole(tmp_path):
    rows = [row.rsplit(",", 1)[0] for row in split_rows()]
    images = rows_of(write_table(tmp_path / "set", rows, "file,label"))
    assert (images.name, len(images)) == ("all", 20)


def test_images_may_lie_beside_the_table(tmp_path):
    folder = write_table(tmp_path / "set", split_rows())
    for path in (folder / "images").iterdir():
        path.rename(folder / path.name)
    assert all(row.image.is_file() for row in rows_of(folder).rows)


def test_rows_that_cannot_be_used_are_counted_by_reason(tmp_path):
    bad = ["dark_9.jpg,,test", ",dark,test", "../../x.jpg,dark,test", "dark_8.jpg", "middle_1.jpg,middle,test"]
    bad += ["dark_1.jpg,Dark,test", "dark_2.jpg,dark,test", "dark_2.jpg,bright,test", "dark_2.jpg,dark,test"]
    folder = write_table(tmp_path / "set", ["dark_1.jpg,dark,test", "bright_1.jpg,bright,test", *bad])
    images = rows_of(folder, classes=("bright", "dark"))
    assert len(images) == 2
    assert images.excluded == {
        "without label": 1,
        "row without an image": 1,
        "image outside the folder": 1,
        "of another class": 1,
        "duplicate row": 1,
        CONTRADICTORY: 3,
    }


@pytest.mark.parametrize("other", ["mass", "mass;nodule"])
def test_a_class_spelled_otherwise_is_refused(tmp_path, other):
    """It would be one that no image shows, and the images of the right one others'."""
    folder = write_table(tmp_path / "set", ["dark_1.jpg,Pleural Effusion,", f"dark_2.jpg,{other},"])
    for spelling in ("pleural_effusion", "PleuralEffusion"):
        with pytest.raises(UserError, match=f"no class is spelled '{spelling}'; give 'Pleural Effusion'"):
            rows_of(folder, classes=("mass", spelling))
    assert len(rows_of(folder, classes=("mass", "PLEURAL EFFUSION"))) == 2
    folders = write_folders(tmp_path / "folders", {"dark": 1, "bright": 1})
    (folders / "bright").rename(folders / "Pleural Effusion")
    with pytest.raises(UserError, match="spells otherwise: give 'Pleural Effusion'"):
        rows_of(folders, classes=("dark", "pleural_effusion"))


def test_a_folder_a_class(tmp_path):
    folder = write_folders(tmp_path / "set", {"dark": 3, "bright": 2})
    (folder / "dark" / "notes.txt").write_text("no image")
    (folder / ".cache").mkdir()
    images = rows_of(folder)
    assert [row.id for row in images.rows[:3]] == ["bright/0.jpg", "dark/0.jpg", "bright/1.jpg"]
    assert images.classes == ["bright", "dark"]
    assert images.articles[0] == "bright/0.jpg"
    assert len(rows_of(folder, classes=("dark",))) == 3


def test_a_folder_in_a_class_is_a_patient(tmp_path):
    folder = write_folders(tmp_path / "set", {"dark": 2, "bright": 1})
    (folder / "dark" / "p1").mkdir()
    for nth in (0, 1):
        (folder / "dark" / f"{nth}.jpg").rename(folder / "dark" / "p1" / f"{nth}.jpg")
    assert sorted(rows_of(folder).articles) == ["bright/0.jpg", "dark/p1", "dark/p1"]


def test_folders_of_splits_above_those_of_classes(tmp_path):
    for split, count in (("train", 4), ("val", 2)):
        write_folders(tmp_path / "set", {"dark": count, "bright": count}, below=split)
    train, images = probe_rows(config(tmp_path / "set"), LabelConfig())
    assert (train.name, len(train), images.name, len(images)) == ("train", 8, "validation", 4)


def test_a_label_of_a_prepared_dataset(data, copy):
    other = relabel(copy(data), lambda row: {"modality": "ct"} if row["id"] < "ROCO_00006" else {})
    images = rows_of(other)
    assert (images.name, images.label, len(images)) == ("validation", "modality", 6)
    assert images.excluded == {"without label": 6}
    assert images.articles[:2] == ["PMC1000", "PMC1000"]
    with pytest.raises(UserError, match=r"no label 'organ' \(--label\); it has: modality"):
        rows_of(other, label="organ")


def test_one_digest_for_the_same_images_and_labels(tmp_path):
    folder = write_table(tmp_path / "set", split_rows())
    before = rows_of(folder).digest
    assert rows_of(folder).digest == before
    (folder / "images" / "dark_7.jpg").write_bytes(b"another")
    assert rows_of(folder).digest != before


def test_several_values_and_none(tmp_path):
    rows = ["dark_1.jpg,mass; effusion;mass,", "dark_2.jpg,,", "dark_3.jpg,mass,", "dark_4.jpg"]
    images = rows_of(write_table(tmp_path / "set", rows))
    assert images.multilabel
    assert images.labels == [("mass", "effusion"), (), ("mass",)]
    assert images.excluded == {"without label": 1}
    with pytest.raises(UserError, match="a probe takes one value an image"):
        probe_rows(
            config(write_table(tmp_path / "other", [*rows, "dark_5.jpg,mass,train", "dark_6.jpg,a;b,test"])),
            LabelConfig(),
        )


def test_what_an_empty_value_means_does_not_change_with_the_rows_that_are_left(tmp_path):
    rows = ["dark_1.jpg,mass", "dark_4.jpg,mass;effusion", "dark_4.jpg,mass", "dark_2.jpg,", "dark_3.jpg,effusion"]
    images = rows_of(write_table(tmp_path / "set", rows, "file,label"))
    assert images.labels == [("mass",), (), ("effusion",)] and images.excluded == {CONTRADICTORY: 2}
    assert images.multilabel  # else the second would be counted as the first class
    assert images.exclude(lambda i: "image unreadable" if i == 0 else None).multilabel


def test_a_probe_never_learns_from_an_article_that_it_is_measured_on(tmp_path):
    rows = [f"{row},{'p1' if 'dark' in row else row[:8]}" for row in split_rows()]
    train, images = probe_rows(config(write_table(tmp_path / "set", rows, "file,label,split,article")), LabelConfig())
    assert train.excluded == {"article is evaluated on": 6}
    assert not set(train.articles) & set(images.articles)


def test_without_splits_a_hash_of_the_file_decides(tmp_path):
    folder = write_folders(tmp_path / "set", {"dark": 20, "bright": 20})
    train, images = probe_rows(config(folder), LabelConfig())
    assert len(train) + len(images) == 40
    assert 0 < len(images) < 20
    write_folders(folder, {"middle": 9})
    assert set(images.articles) < set(probe_rows(config(folder), LabelConfig())[1].articles)  # they stay where they are


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (lambda at: at / "absent", {}, "is not a folder; give a prepared dataset"),
        (lambda at: at, {}, "holds no labeled images"),
        (lambda at: write_table(at / "set", [], "file,label"), {}, "has no images of split 'all'"),
        (lambda at: write_table(at / "set", ["dark_1.jpg,x"], "file,kind"), {}, "has no column 'label'; .* --label"),
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
def test_what_is_no_labeled_set_is_refused_by_a_sentence(tmp_path, make, settings, message):
    with pytest.raises(UserError, match=message):
        rows_of(make(tmp_path), **settings)


def test_a_probe_needs_something_to_learn_from(tmp_path):
    rows = [row for row in split_rows() if row.endswith("test")]
    folder = write_table(tmp_path / "set", rows)
    with pytest.raises(UserError, match="no images of split 'train'"):
        probe_rows(config(folder), LabelConfig())
    with pytest.raises(UserError, match="measure another split"):
        probe_rows(config(write_table(tmp_path / "both", split_rows()), split="train"), LabelConfig())


def test_classes_are_chosen_and_read_in_any_case(tmp_path):
    rows = ["dark_1.jpg,Dark", "bright_1.jpg,bright", "dark_2.jpg,dark", "middle_1.jpg,middle"]
    config = EvalConfig(data=str(write_table(tmp_path / "set", rows, "file,label")))
    images = labeled_rows(config, LabelConfig(classes=("DARK", "Bright")))
    assert images.labels == [("Dark",), ("bright",), ("Dark",)]
    assert images.excluded == {"of another class": 1}
    assert LabelConfig(classes=("DARK", "other")).choose(images.classes) == ["Dark", "other"]


@pytest.mark.parametrize("write", ["table", "folders"])
def test_a_class_that_no_image_has_is_named(tmp_path, caplog, write):
    """It was measured without a word, as where the name of a class is misspelt."""
    rows = [row.rsplit(",", 1)[0] for row in split_rows()]
    made = {"table": write_table(tmp_path / "table", rows, "file,label")}
    made["folders"] = write_folders(tmp_path / "folders", {"dark": 1, "bright": 1})
    rows_of(made[write], classes=("dark", "fog", "BRIGHT"))
    assert "no image is of class 'fog' of --classes; 'label' has: bright, dark." in caplog.text
    caplog.clear()
    rows_of(made[write], classes=("dark", "BRIGHT"))
    assert caplog.text == ""


WIDE = [
    "dark_1.jpg,61,True,FALSE,1.0",
    "dark_2.jpg,40,0,,0",
    "dark_3.jpg,33,-1,1,0",
    "dark_4.jpg,52,0,1,-1",
    "dark_5.jpg,1",
]
WIDE_HEADER = "file,age,Edema,Mass,Effusion"


def test_findings_may_have_a_column_each(tmp_path):
    folder = write_table(tmp_path / "set", WIDE, WIDE_HEADER)
    images = rows_of(folder, classes=("mass", "EDEMA"))
    assert (images.label, images.multilabel, images.labels) == ("findings", True, [("Edema",), (), ("Mass",)])
    assert images.excluded == {"uncertain label": 1, "without label": 1}
    assert rows_of(folder, label="age").classes == ["1", "33", "40", "52", "61"]


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ((), "has no column 'label'; it has: file, age, Edema, Mass, Effusion. .* --classes columns of findings"),
        (("Edema", "Nodule"), "has no column 'Nodule' of --classes; it has: file, age, Edema"),
        (("Edema", "age"), "labels.csv, dark_1.jpg: column 'age' holds '61', where a finding has 1, 0, -1"),
    ],
)
def test_columns_of_findings_are_named_by_the_user(tmp_path, classes, message):
    with pytest.raises(UserError, match=message):
        rows_of(write_table(tmp_path / "set", WIDE, WIDE_HEADER), classes=classes)


@pytest.mark.parametrize("write", ["table", "folders"])
def test_an_accent_stored_apart_from_its_letter_is_no_other_class(tmp_path, write):
    """A folder that came from macOS: its class would be one of its own, or one that --classes does not name."""
    apart, composed = "E\u0301panchement", "\u00c9panchement"
    if write == "table":
        data = write_table(
            tmp_path / "set", [f"dark_1.jpg,{apart},", f"dark_2.jpg,{composed},", "bright_1.jpg,normal,"]
        )
    else:
        data = write_folders(tmp_path / "set", {"dark": 2, "bright": 1})
        (data / "dark").rename(data / apart)
        (data / "bright").rename(data / "normal")
    assert rows_of(data).classes == ["normal", composed]
    assert len(rows_of(data, classes=(composed.lower(), "normal"))) == 3


def test_spellings_are_one_class_in_both_splits_of_a_probe(tmp_path):
    rows = ["dark_1.jpg,Dark,train", "bright_1.jpg,bright,train", "dark_2.jpg,DARK,test", "bright_2.jpg,Bright,test"]
    train, test = probe_rows(EvalConfig(data=str(write_table(tmp_path / "set", rows))), LabelConfig())
    assert train.classes == test.classes


def test_values_of_a_table_may_have_bars_and_be_floats(tmp_path):
    folder = write_table(
        tmp_path / "set", [f"{n}.png,{value}" for n, value in enumerate(("1.0", "1", "0|2.0"))], "file,label"
    )
    for number in range(3):
        (folder / f"{number}.png").write_bytes(b"")
    images = rows_of(folder)
    assert images.labels == [("1",), ("1",), ("0", "2")]


@pytest.mark.parametrize("mark", ["-1", "-1.0", "U", "uncertain", "NaN", "NA"])
def test_a_mark_of_an_uncertain_label_is_no_class_unless_named(tmp_path, mark):
    """As a third class it would be predicted, and take images from the others."""
    rows = ["dark_1.jpg,1.0,", f"dark_2.jpg,{mark},", "bright_1.jpg,0,", f"bright_2.jpg,{mark},"]
    folder = write_table(tmp_path / "set", rows)
    with pytest.raises(UserError, match=rf"'label' is '{mark}' for 2 images, .*--classes 0 1\)"):
        rows_of(folder)
    assert rows_of(folder, classes=("0", "1")).excluded == {"uncertain label": 2}
    assert len(rows_of(folder, classes=("0", "1", mark))) == 4


def test_an_image_of_uncertain_findings_is_not_one_without_any(tmp_path):
    folder = write_table(tmp_path / "set", ["dark_1.jpg,edema;mass,", "dark_2.jpg,-1,", "dark_3.jpg,,"])
    images = rows_of(folder, classes=("edema", "mass"))
    assert (images.labels, images.excluded) == ([("edema", "mass"), ()], {"uncertain label": 1})


def test_values_of_a_table_may_be_lists_as_padchest_has_them(tmp_path):
    """The text of a list would be a class of its own; of one value, or none, the image could have had several."""
    lists = ["['mass', 'edema ']", "['mass']", "[]", "[sic]"]
    rows = [f'dark_{n}.jpg,"{text}",' for n, text in enumerate(lists)]
    images = rows_of(write_table(tmp_path / "set", rows))
    assert images.labels == [("mass", "edema"), ("mass",), (), ("[sic]",)]
    assert rows_of(write_table(tmp_path / "single", rows[1:3])).labels == [("mass",), ()]


def test_a_table_without_a_usable_image_says_why(tmp_path):
    folder = write_table(tmp_path / "set", ["/data/1.png,a", "/data/2.png,b"], "file,label")
    with pytest.raises(UserError, match=r"chosen classes \(2 × image outside the folder\)"):
        rows_of(folder)
