"""Labeled sets as published: a miniature of each, made after its description, with every image used or counted."""

import gzip
import tracemalloc

import numpy as np
import pytest

from medclip.data.sources.labeled_sets import find_labeled_set
from medclip.errors import UserError
from medclip.evaluation.config import EvalConfig, LabelConfig
from medclip.evaluation.labeled import labeled_rows, probe_rows
from support.dicom_files import dicom, gray_ramp, write_dicom
from support.material import draw_image, image_bytes


def write_images(folder, *names):
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(image_bytes(draw_image(number)))


def write_lines(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def chexpert(folder):
    """One finding, two, none, an uncertain one; blank is not mentioned."""
    header = "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Edema,Pneumonia"
    for (table, first), rows in {
        ("train", 1): ["1.0,,", ",1.0,", ",1.0,1.0", "0.0,0.0,0.0", ",1.0,-1.0", ",,1.0"],
        ("valid", 64541): ["0.0,1.0,1.0", "0.0,1.0,0.0", "0.0,0.0,1.0", "1.0,0.0,0.0"],
    }.items():
        names = [f"{table}/patient{first + n:05d}/study1/view1_frontal.jpg" for n in range(len(rows))]
        lines = [
            f"CheXpert-v1.0-small/{name},Female,68,Frontal,AP,{row}" for name, row in zip(names, rows, strict=True)
        ]
        write_lines(folder / f"{table}.csv", header, *lines)
        write_images(folder, *names)
    return folder


def mimic(folder, labeler="chexpert", suffix=".csv.gz", splits=("test", "test", "test", "test")):
    """Labels of a study hold for its images; the study of patient 4 has no labels, that of patient 5 no image."""
    rows = ["10000001,50000001,1.0,,0.0", "10000002,50000002,,1.0,1.0", "10000003,50000003,,-1.0,"]
    rows += ["10000005,50000005,,1.0,"]
    table = gzip.compress("\n".join(["subject_id,study_id,No Finding,Edema,Pneumonia", *rows]).encode())
    folder.mkdir(exist_ok=True)
    table = table if suffix.endswith(".gz") else gzip.decompress(table)
    (folder / f"mimic-cxr-2.0.0-{labeler}{suffix}").write_bytes(table)
    names = [f"p10/p1000000{n}/s5000000{n}/{name}" for n, name in ((1, "a"), (1, "b"), (2, "c"), (3, "d"), (4, "e"))]
    write_images(folder, *(f"files/{name}.jpg" for name in names))
    lines = [f"{name[-1]},s,{name[22:30]},{name[5:13]},{splits[int(name[12]) - 1]}" for name in names]
    lines.append("f,s,50000005,10000005,test")
    header = "dicom_id,x,study_id,subject_id,split"
    (folder / "mimic-cxr-2.0.0-split.csv.gz").write_bytes(gzip.compress("\n".join([header, *lines]).encode()))
    return folder


def nih(folder):
    header = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position"
    labels = ["Cardiomegaly", "Cardiomegaly|Emphysema", "No Finding", "Emphysema", "Cardiomegaly"]
    lines = [f"{n:08d}_000.png,{label},0,{n},57,M,PA" for n, label in enumerate(labels)]
    write_lines(folder / "Data_Entry_2017.csv", header, *lines)
    write_images(
        folder, "images_001/images/00000000_000.png", *(f"images_002/images/{n:08d}_000.png" for n in (1, 2, 3, 4))
    )
    write_lines(folder / "train_val_list.txt", "00000000_000.png", "00000003_000.png")
    write_lines(folder / "test_list.txt", "00000001_000.png", "00000002_000.png", "00000004_000.png")
    return folder


def rsna(folder):
    """Several boxes of a patient are one image."""
    boxes = ["a,1,2,3,4,1", "a,5,6,7,8,1", "b,,,,,0", "c,,,,,0"]
    write_lines(folder / "stage_2_train_labels.csv", "patientId,x,y,width,height,Target", *boxes)
    classes = ["a,Lung Opacity", "a,Lung Opacity", "b,Normal", "c,No Lung Opacity / Not Normal"]
    write_lines(folder / "stage_2_detailed_class_info.csv", "patientId,class", *classes)
    for name in "abc":
        (folder / "stage_2_train_images").mkdir(exist_ok=True)
        write_dicom(dicom(gray_ramp()), folder / "stage_2_train_images" / f"{name}.dcm")
    return folder


def vindr(folder):
    """Three readers an image of train: two of them decide; test holds their consensus."""
    train = ["a,R1,1,0,0", "a,R2,1,1,0", "a,R3,0,1,0", "b,R1,0,1,0", "b,R2,0,0,1", "b,R3,0,0,1"]
    write_lines(folder / "annotations/image_labels_train.csv", "image_id,rad_id,Edema,Mass,No finding", *train)
    write_lines(folder / "annotations/image_labels_test.csv", "image_id,Edema,Mass,No finding", "c,1,0,0", "d,1,1,0")
    for name in ("train/a", "train/b", "test/c", "test/d"):
        (folder / name).parent.mkdir(exist_ok=True)
        write_dicom(dicom(gray_ramp()), folder / f"{name}.dicom")
    return folder


def vindr_of_kaggle(folder):
    """A row a box: two of three readers see a mass, one an edema."""
    rows = ["a,Mass,R1,1,2,3,4", "a,Mass,R1,5,6,7,8", "a,Mass,R2,1,2,3,4", "a,Edema,R3,1,2,3,4"]
    rows += [f"b,No finding,R{n},,,," for n in (1, 2, 3)]
    write_lines(folder / "train.csv", "image_id,class_name,rad_id,x_min,y_min,x_max,y_max", *rows)
    write_images(folder, "train/a.png", "train/b.png")
    return folder


def write_npz(path, labels, shape=(8, 8)):
    rng = np.random.default_rng(0)
    arrays = {}
    for split, rows in labels.items():
        arrays[f"{split}_images"] = rng.integers(0, 256, (len(rows), *shape), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.array(rows, np.uint8)
    np.savez(path, **arrays)
    return path


def pneumonia(folder):
    return write_npz(folder / "pneumoniamnist.npz", {"train": [[0], [1]], "val": [[1], [0]], "test": [[1]]})


def chest(folder):
    rows = np.zeros((3, 14), int)
    rows[0, 1] = rows[1, 1] = rows[1, 13] = 1
    return write_npz(folder / "chestmnist_64.npz", {"train": rows, "test": rows}, (8, 8))


def blood(folder):
    return write_npz(folder / "bloodmnist.npz", {"train": [[0], [7]], "test": [[7], [0]]}, (8, 8, 3))


SETS = {
    "CheXpert": (chexpert, "validation", True, [("Edema", "Pneumonia"), ("Edema",), ("Pneumonia",), ("No Finding",)]),
    "NIH ChestX-ray14": (nih, "test", True, [("Cardiomegaly", "Emphysema"), ("No Finding",), ("Cardiomegaly",)]),
    "RSNA": (rsna, "all", False, [("Lung Opacity",), ("Normal",), ("No Lung Opacity / Not Normal",)]),
    "VinDr-CXR": (vindr, "test", True, [("Edema",), ("Edema", "Mass")]),
    "VinDr-CXR of Kaggle": (vindr_of_kaggle, "all", True, [("Mass",), ("No finding",)]),
    "PneumoniaMNIST": (pneumonia, "validation", False, [("pneumonia",), ("normal",)]),
    "ChestMNIST": (chest, "test", True, [("cardiomegaly",), ("cardiomegaly", "hernia"), ()]),
    "BloodMNIST": (blood, "test", False, [("7",), ("0",)]),
}


def rows_of(data, classes=(), **settings):
    return labeled_rows(EvalConfig(model="", data=str(data), **settings), LabelConfig(classes=classes))


@pytest.mark.parametrize("name", SETS)
def test_a_published_set_is_read_as_described(tmp_path, name):
    write, split, multilabel, labels = SETS[name]
    images = rows_of(write(tmp_path))
    assert (images.name, images.multilabel, images.labels) == (split, multilabel, labels)
    assert images.excluded == {}
    assert all(isinstance(row.image, bytes) or row.image.is_file() for row in images.rows)


def test_uncertain_labels_of_chexpert_are_excluded_where_they_are_evaluated(tmp_path):
    images = rows_of(chexpert(tmp_path), split="train")
    assert images.excluded == {"uncertain label": 1}
    assert images.labels == [("No Finding",), ("Edema",), ("Edema", "Pneumonia"), (), ("Pneumonia",)]
    assert rows_of(tmp_path, ("Edema",), split="train").excluded == {}
    assert rows_of(tmp_path, ("PNEUMONIA",), split="train").excluded == {"uncertain label": 1}
    assert images.articles[0] == "patient00001"


def test_chexpert_saved_by_pandas_has_the_same_findings(tmp_path):
    """A column of row numbers before the others, of which row 1 would be a finding; a U is what -1 is."""
    chexpert(tmp_path)
    header, *rows = (tmp_path / "valid.csv").read_text().splitlines()
    before = rows_of(tmp_path).labels
    for index in ("", "Unnamed: 0"):
        numbered = [f"{number},{row}" for number, row in enumerate(rows)]
        write_lines(tmp_path / "valid.csv", f"{index},{header}", *numbered)
        images = rows_of(tmp_path)
        assert (images.labels, images.excluded) == (before, {})
    rows[3] = rows[3].removesuffix("0.0") + "U"
    write_lines(tmp_path / "valid.csv", header, *rows)
    images = rows_of(tmp_path)
    assert (images.labels, images.excluded) == (before[:3], {"uncertain label": 1})


@pytest.mark.parametrize(("write", "table"), [(chexpert, "valid.csv"), (vindr, "annotations/image_labels_test.csv")])
def test_a_column_that_is_no_finding_is_refused(tmp_path, write, table):
    """Those of its rows that are 1 would show a finding named after it."""
    header, *rows = (write(tmp_path) / table).read_text().splitlines()
    write_lines(tmp_path / table, f"{header},fold", *(f"{row},{number}" for number, row in enumerate(rows, start=1)))
    with pytest.raises(UserError, match=rf"{table}, .*column 'fold' holds '2', where a finding has 1, 0, -1"):
        rows_of(tmp_path)


@pytest.mark.parametrize("suffix", [".csv.gz", ".csv"])
@pytest.mark.parametrize("labeler", ["chexpert", "negbio"])
def test_the_labels_of_a_study_of_mimic_hold_for_its_images(tmp_path, labeler, suffix):
    images = rows_of(mimic(tmp_path, labeler, suffix), split="test")
    assert [row.id for row in images.rows] == ["a", "b", "c"]
    assert images.labels == [("No Finding",), ("No Finding",), ("Edema", "Pneumonia")]
    assert images.articles == ["p10000001", "p10000001", "p10000002"]
    assert images.excluded == {"uncertain label": 1, "without label": 1, "image missing": 1}
    assert "uncertain label" not in rows_of(tmp_path, ("Pneumonia",), split="test").excluded


def test_the_first_labeler_of_mimic_is_chexpert(tmp_path):
    mimic(tmp_path, "negbio")
    text = gzip.decompress((tmp_path / "mimic-cxr-2.0.0-negbio.csv.gz").read_bytes()).replace(b"1.0,,0.0", b",,1.0")
    (tmp_path / "mimic-cxr-2.0.0-chexpert.csv.gz").write_bytes(gzip.compress(text))
    assert rows_of(tmp_path, split="test").labels[0] == ("Pneumonia",)


def test_labels_of_a_study_that_is_not_listed_are_counted(tmp_path):
    (mimic(tmp_path) / "mimic-cxr-2.0.0-split.csv.gz").unlink()
    assert rows_of(tmp_path).excluded == {"uncertain label": 1, "without label": 1, "study without an image": 1}


def test_mimic_is_probed(tmp_path):
    (tmp_path / "x").mkdir()
    data = mimic(tmp_path / "x", splits=("train", "test", "test", "test"))
    table = gzip.decompress((data / "mimic-cxr-2.0.0-chexpert.csv.gz").read_bytes()).replace(b",1.0,1.0", b",1.0,")
    (data / "mimic-cxr-2.0.0-chexpert.csv.gz").write_bytes(gzip.compress(table))
    train, test = probe_rows(EvalConfig(model="", data=str(data)), LabelConfig())
    assert (train.labels, test.labels) == ([("No Finding",), ("No Finding",)], [("Edema",)])


def test_what_most_readers_of_vindr_report_is_a_finding(tmp_path):
    assert rows_of(vindr(tmp_path), split="train").labels == [("Edema", "Mass"), ("No finding",)]


def test_a_probe_takes_the_images_with_exactly_one_finding(tmp_path):
    train, test = probe_rows(EvalConfig(model="", data=str(chexpert(tmp_path))), LabelConfig())
    assert train.labels == [("No Finding",), ("Edema",), ("Pneumonia",)]
    assert test.labels == [("Edema",), ("Pneumonia",), ("No Finding",)]
    assert train.excluded == {"uncertain label": 1, "no finding": 1, "more than one finding": 1}
    assert test.excluded == {"more than one finding": 1}
    _, chosen = probe_rows(EvalConfig(model="", data=str(tmp_path)), LabelConfig(classes=("Edema", "Pneumonia")))
    assert chosen.excluded == {"more than one finding": 1, "of another class": 1}


def test_a_set_of_single_labels_is_probed(tmp_path):
    train, test = probe_rows(EvalConfig(model="", data=str(pneumonia(tmp_path))), LabelConfig())
    assert (train.labels, test.labels) == ([("normal",), ("pneumonia",)], [("pneumonia",), ("normal",)])


def test_an_absent_image_and_a_path_elsewhere_are_not_lost(tmp_path):
    chexpert(tmp_path)
    table = tmp_path / "valid.csv"
    table.write_text(table.read_text() + "../../elsewhere.jpg,,,,,0,1,0\n,,,,,0,1,0\n")
    assert rows_of(tmp_path).excluded == {"image outside the folder": 1, "row without an image": 1}


def savez(path, labels):
    np.savez(path, train_images=np.zeros((1, 8, 8), np.uint8), train_labels=np.array(labels))


def test_a_list_of_names_that_is_no_text_is_refused(tmp_path):
    (nih(tmp_path) / "test_list.txt").write_bytes(b"00000001_000.png\n\xff\xfe\n")
    with pytest.raises(UserError, match=r"test_list\.txt"):
        rows_of(tmp_path)


def test_a_flat_list_of_labels_and_a_channel_of_gray_are_what_medmnist_has(tmp_path):
    labels = np.array([1, 0], np.uint8)
    images = np.arange(2 * 64, dtype=np.uint8).reshape(2, 8, 8)
    for name, shape, column in (
        ("pneumoniamnist_1", (2, 8, 8, 1), labels),
        ("pneumoniamnist_2", (2, 8, 8), labels[:, None]),
    ):
        np.savez(tmp_path / f"{name}.npz", test_images=images.reshape(shape), test_labels=column)
    flat, published = (rows_of(tmp_path / f"pneumoniamnist_{number}.npz") for number in (1, 2))
    assert flat.labels == [("pneumonia",), ("normal",)]
    assert flat.digest == published.digest


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: path.write_bytes(b"PK\3\4 not whole"), "is not a complete .npz file"),
        (lambda path: np.savez(path, x=np.zeros(3)), "has no train_images"),
        (lambda path: write_npz(path, {"train": [[0]]}, (8, 8, 8)), "only 2D images"),
        (lambda path: np.savez(path, train_images=np.zeros((1, 8, 8)), train_labels=np.zeros((1, 1))), "images u8"),
        (lambda path: savez(path, [[-1]]), "from 0 on"),
        (lambda path: savez(path, [[0.0]]), "from 0 on"),
        (lambda path: np.savez(path, train_images=np.array([None]), train_labels=np.zeros((1, 1))), "only 2D images"),
        (lambda path: savez(path, [None]), "not a complete"),
    ],
)
def test_another_npz_is_refused(tmp_path, write, message):
    write(tmp_path / "x.npz")
    with pytest.raises(UserError, match=message):
        rows_of(tmp_path / "x.npz")


def test_images_of_an_npz_are_unpacked_one_at_a_time(tmp_path):
    """4 MB of black images take 8 kB of the file."""
    path, images = tmp_path / "pneumoniamnist.npz", np.zeros((1000, 64, 64), np.uint8)
    np.savez_compressed(path, train_images=images, train_labels=np.zeros((1000, 1), np.uint8))
    tracemalloc.start()
    try:
        labeled_set = find_labeled_set(path)
        assert sum(1 for _ in labeled_set.images) == 1000
        assert tracemalloc.get_traced_memory()[1] < images.nbytes / 2
    finally:
        tracemalloc.stop()


def test_a_label_that_a_published_set_lacks_is_refused(tmp_path):
    with pytest.raises(UserError, match="the label 'findings' only; choose of its values with --classes"):
        labeled_rows(EvalConfig(model="", data=str(chexpert(tmp_path))), LabelConfig(label="Edema"))


def test_a_table_without_its_columns_is_refused(tmp_path):
    write_lines(tmp_path / "stage_2_train_labels.csv", "patient,Target", "a,1")
    with pytest.raises(UserError, match="has no column 'patientId'; it has: patient, Target"):
        rows_of(tmp_path)
