"""What a source holds that is no file of its own, a link that leads out of it, a pipe or a hole, is counted unread."""

import os
import shutil
import zipfile
from pathlib import Path

import pytest

from medclip.data.dataset import Split
from medclip.data.images import decode
from medclip.data.prepare import prepare
from medclip.data.sources.table_files import read_rows
from medclip.errors import ImageError, UserError
from medclip.evaluation.config import EvalConfig, LabelConfig
from medclip.evaluation.labeled import labeled_rows
from medclip.model.checkpoint import load
from medclip.model.weights.weight_files import find_weights
from medclip.search.reader import IndexReader
from medclip.verify import verify
from support.dicom_files import dicom, gray_ramp, write_dicom
from support.made_indexes import make_index, random_units
from support.material import draw_image, image_bytes
from support.references import FOLDER

PIPE, HOLES = "not a file, but a pipe, a socket or a device", "sparse file, nearly all holes"
LINK = "link that leaves the folder"


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "good.png").write_bytes(image_bytes(draw_image(1), "PNG"))
    (tmp_path / "secret.png").write_bytes(image_bytes(draw_image(2), "PNG"))
    (tmp_path / "secret.txt").write_text("What nobody outside may read")
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    (folder / "inside.png").symlink_to(folder / "good.png")
    os.mkfifo(folder / "pipe.png")
    with (folder / "holes.png").open("wb") as file:
        file.truncate(2**34)
    return folder


def reasons(path, out):
    dataset = prepare(path, out, num_workers=1)
    counts = {}
    for dropped in dataset["dropped"].values():
        for reason, count in dropped.items():
            counts[reason] = counts.get(reason, 0) + count
    return counts, sum(split["pairs"] for split in dataset["splits"].values())


def test_of_a_table(source, tmp_path):
    names = ("good.png", "inside.png", "link.png", "pipe.png", "holes.png")
    lines = [f"{name},CT of the chest {name}" for name in names]
    (source / "x.csv").write_text("\n".join(["image,caption", *lines]))
    os.mkfifo(source / "x.zip")
    counts, pairs = reasons(source / "x.csv", tmp_path / "out")
    assert (counts, pairs) == ({f"image: {LINK}": 1, PIPE: 1, HOLES: 1}, 2)


def test_of_a_folder_of_images_with_captions(source, tmp_path):
    for name in ("good", "inside", "holes"):
        (source / f"{name}.txt").write_text(f"CT of the chest {name}")
    (source / "link.txt").symlink_to(tmp_path / "secret.txt")
    os.mkfifo(source / "pipe.txt")
    counts, pairs = reasons(source, tmp_path / "out")
    assert (counts, pairs) == ({LINK: 2, PIPE: 2, HOLES: 1, "caption without image": 1}, 2)


def test_of_a_folder_of_studies(tmp_path):
    folder = tmp_path / "study"
    path = write_dicom(dicom(gray_ramp(), PatientID="1"), folder / "1.dcm")
    path.with_suffix(".txt").write_text("The chest is normal.")
    write_dicom(dicom(gray_ramp(), PatientID="2"), tmp_path / "2.dcm")
    (folder / "2.dcm").symlink_to(tmp_path / "2.dcm")
    os.mkfifo(folder / "3.dcm")
    counts, pairs = reasons(folder, tmp_path / "out")
    assert (counts, pairs) == ({LINK: 1, PIPE: 1}, 1)


def test_of_a_zip(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("1.png", image_bytes(draw_image(1), "PNG"))
        archive.writestr("1.txt", "CT of the chest")
        link = zipfile.ZipInfo("2.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    assert reasons(tmp_path / "x.zip", tmp_path / "out") == (
        {"archive member that is a link, a device or sparse": 1},
        1,
    )


def test_a_relative_table_is_judged_where_the_process_is_now(tmp_path, monkeypatch):
    """A notebook moves to another folder between two preparations."""
    for name in ("first", "second"):
        (tmp_path / name / "images").mkdir(parents=True)
        (tmp_path / name / "images" / "x.png").write_bytes(image_bytes(draw_image(0), "PNG"))
        (tmp_path / name / "pairs.csv").write_text("image,caption\nimages/x.png,CT of the chest\n")
        monkeypatch.chdir(tmp_path / name)
        assert prepare("pairs.csv", Path("data"), num_workers=1)["splits"]["train"]["pairs"] == 1


def test_a_table_behind_a_link_is_refused(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "secret.csv").write_text("image,caption\nx.png,What nobody outside may read\n")
    (tmp_path / "data" / "train.csv").symlink_to(tmp_path / "secret.csv")
    with pytest.raises(UserError, match=LINK):
        prepare(tmp_path / "data", tmp_path / "out", num_workers=1)


def test_a_query_and_a_table_that_are_pipes(source):
    for name, reason in (("pipe.png", PIPE), ("holes.png", HOLES)):
        with pytest.raises(ImageError, match=reason):
            decode(source / name)
    os.mkfifo(source / "x.csv")
    with pytest.raises(UserError, match=PIPE):
        list(read_rows(source / "x.csv"))


@pytest.mark.parametrize("name", ["pairs.csv", "pairs", "study.dcm", "shards.tar"])
def test_a_source_that_is_a_pipe_is_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match=f"cannot be read. It is {PIPE}"):
        prepare(tmp_path / name, tmp_path / "out", num_workers=1)


def test_of_a_folder_for_each_class(source):
    (source / "a").mkdir()
    for name in ("good.png", "link.png"):
        (source / name).rename(source / "a" / name)
    labeled = labeled_rows(EvalConfig(data=str(source), out=source / "out"), LabelConfig())
    assert len(labeled) == 1 and labeled.excluded == {f"image: {LINK}": 1}


def replace_by_pipe(path):
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def test_pipes_in_a_dataset_are_named(data, copy):
    folder = copy(data)
    names = ("train-00000.arrow", "NOTICE.txt", "dropped.jsonl", "prepare.toml")
    for name in names:
        replace_by_pipe(folder / name)
    assert {finding.file for finding in verify(folder).findings} >= {*names}  # and caches, whose shard is gone
    with pytest.raises(UserError, match="it is not a file"):
        Split(folder, "train")


@pytest.mark.parametrize("name", ["rows.arrow", "embeddings.npy"])
def test_a_pipe_in_an_index_is_damage(tmp_path, name):
    folder = make_index(tmp_path / "index", random_units(3))
    replace_by_pipe(folder / "segments" / "00000" / name)
    with pytest.raises(UserError, match="it is not a file"):
        IndexReader(folder)
    assert verify(folder).findings


def test_weights_that_are_a_pipe_are_refused(tmp_path):
    folder = shutil.copytree(FOLDER, tmp_path / "model")
    replace_by_pipe(folder / "model.safetensors")
    with pytest.raises(UserError, match=r"model\.safetensors is not a file"):
        load(folder)


@pytest.mark.parametrize("name", ["labels.csv", "Data_Entry_2017.csv", "stage_2_train_labels.csv"])
def test_a_table_of_labels_behind_a_link_is_refused(source, tmp_path, name):
    (tmp_path / "secret.csv").write_text("file,label,Image Index,Finding Labels,patientId,Target\n")
    (source / name).symlink_to(tmp_path / "secret.csv")
    with pytest.raises(UserError, match=LINK):
        labeled_rows(EvalConfig(data=str(source)), LabelConfig())


def test_pipes_in_what_is_laid_out_as_the_hubs_cache_are_not_waited_for(tmp_path):
    snapshot, references = tmp_path / "snapshots" / "a", tmp_path / "refs" / "refs" / "pr"
    for folder in (snapshot, references, tmp_path / "snapshots" / "b"):
        folder.mkdir(parents=True)
    os.mkfifo(references / "7")
    (references / "8").write_bytes(b"\xff/b")
    with pytest.raises(UserError, match="has no weights"):
        find_weights(snapshot)
    (references / "9").write_text("b")
    for name in ("a", "b"):
        (tmp_path / "snapshots" / name / "config.json").touch()
        os.truncate(tmp_path / "snapshots" / name / "config.json", 2**36)
    with pytest.raises(UserError, match=r"config.json has over"):
        find_weights(snapshot)
