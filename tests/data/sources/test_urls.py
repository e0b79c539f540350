"""Every reader over another file system: `memory://` here, and `file://` where worker processes read too.

Stores over the network are not reached by tests; they differ in the library that fsspec asks, not in this code.
"""

import pickle
import shutil
import sys

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medclip.data import paths
from medclip.data.dataset import Split
from medclip.data.prepare import prepare, preview
from medclip.data.prepare_config import PrepareConfig
from medclip.data.prepare_row import prepare_rows
from medclip.data.schema import Pair
from medclip.data.sources.detect import open_source
from medclip.errors import UserError, WorkError
from support.material import draw_image, image_bytes


@pytest.fixture
def memory(tmp_path):
    """Puts what lies in a folder into an object store, and says its URL."""
    store = fsspec.filesystem("memory")

    def put(folder):
        store.put(str(folder), "/bucket/source", recursive=True)
        return "memory://bucket/source"

    yield put
    store.store.clear()
    store.pseudo_dirs[:] = [""]


def same(url, folder):
    """Whether both have the same rows, images compared by their bytes."""
    mine, theirs = ([_comparable(row) for row in open_source(str(source))] for source in (url, folder))
    assert mine == theirs
    return len(mine)


def _comparable(row):
    if not isinstance(row, Pair):
        return (row.id, "absent") if row.reason == "image missing" else row
    image = row.image
    if not isinstance(image, bytes):
        if not image.is_file():  # of a URL only preparation asks whether it is there
            return row.id, "absent"
        image = image.read_bytes()
    return (row.id, image, row.caption, row.split, row.article, row.license, row.attribution, row.concepts)


def test_a_roco_folder(roco, memory):
    assert same(memory(roco.folder), roco.folder) == roco.lines


@pytest.fixture
def image_folder(tmp_path):
    folder = tmp_path / "source"
    (folder / "images").mkdir(parents=True)
    for n in range(4):
        (folder / "images" / f"{n}.jpg").write_bytes(image_bytes(draw_image(n)))
    return folder


@pytest.mark.parametrize("name", ["pairs.csv", "pairs.jsonl", "pairs.parquet"])
def test_a_table_beside_its_images(image_folder, memory, name):
    rows = [{"image": f"{n}.jpg", "caption": f"CT, number {n}"} for n in range(4)] + [
        {"image": "../x", "caption": "CT"}
    ]
    if name.endswith("parquet"):
        pq.write_table(pa.Table.from_pylist(rows), image_folder / name)
    else:
        lines = [f'{{"image": "{r["image"]}", "caption": "{r["caption"]}"}}' for r in rows]
        lines = (
            lines if name.endswith("jsonl") else ["image,caption", *(f'{r["image"]},"{r["caption"]}"' for r in rows)]
        )
        (image_folder / name).write_text("\n".join(lines))
    assert same(f"{memory(image_folder)}/{name}", image_folder / name) == 5


def test_a_folder_with_captions_beside(image_folder, memory):
    for n in range(3):
        (image_folder / "images" / f"{n}.txt").write_text(f"CT, number {n}")
    assert same(memory(image_folder), image_folder) == 4


def test_a_hugging_face_repository(tmp_path, memory):
    folder = tmp_path / "repository"
    (folder / "data").mkdir(parents=True)
    rows = [
        {"image": {"bytes": image_bytes(draw_image(n)), "path": None}, "caption": f"CT, number {n}"} for n in range(3)
    ]
    for split in ("train", "test"):
        pq.write_table(pa.Table.from_pylist(rows), folder / "data" / f"{split}-00000-of-00001.parquet")
    assert same(memory(folder), folder) == 6


def test_an_archive(image_folder, memory, tmp_path):
    (image_folder / "images" / "0.txt").write_text("CT of the chest")
    made = shutil.make_archive(str(tmp_path / "archive"), "tar", image_folder / "images")
    (tmp_path / "archives").mkdir()
    shutil.move(made, tmp_path / "archives" / "a.tar")
    assert same(memory(tmp_path / "archives"), tmp_path / "archives") == 4


def test_a_preview_fetches_its_images(roco, memory):
    assert [row["id"] for row in preview(memory(roco.folder), num_rows=2)] == ["ROCO_00000", "ROCO_00001"]


def test_workers_prepare_what_lies_behind_a_url(roco, data, tmp_path):
    dataset = prepare(f"file://{roco.folder}", tmp_path / "data", num_workers=1)
    assert dataset["dropped"] == roco.dropped
    for split in ("train", "validation"):
        assert Split(tmp_path / "data", split).table == Split(data, split).table


def test_a_place_can_be_sent_and_a_path_is_only_a_path():
    url = paths.parse_path("memory://bucket/a.jpg")
    assert pickle.loads(pickle.dumps(url)) == url
    assert type(paths.parse_path("a/b")).__module__.startswith("pathlib")
    assert str(paths.parse_path("hf://OWNER/NAME/sub")) == str(paths.parse_path("hf://datasets/OWNER/NAME/sub"))


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(UserError, match=r"s3://bucket/x: no library for s3:// is installed\. .*s3fs"):
        open_source("s3://bucket/x")


def test_an_unknown_protocol_is_a_mistake_in_words():
    with pytest.raises(UserError, match=r"foo://x is not a URL that can be read"):
        open_source("foo://x")


def test_a_store_that_does_not_answer_fails_the_work(roco, memory, monkeypatch):
    url = memory(roco.folder)

    def fails(self, path, **_):
        raise RuntimeError("no credentials\nand a second line")

    with monkeypatch.context() as patch:
        patch.setattr(fsspec.filesystem("memory").__class__, "info", fails)
        with pytest.raises(WorkError, match=r"cannot be reached \(RuntimeError: no credentials\)"):
            open_source(url)
    row = next(open_source(url))
    monkeypatch.setattr(fsspec.filesystem("memory").__class__, "_open", fails)
    with pytest.raises(WorkError, match=r"ROCO_00000\.jpg cannot be reached"):
        next(prepare_rows([row], PrepareConfig(shorter_side=32)))


def test_a_dataset_of_the_hub_is_not_called_absent_where_the_hub_is_not_asked(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"^hf://datasets/o/n cannot be read\. HF_HUB_OFFLINE is set: unset it"):
        open_source("hf://o/n")
