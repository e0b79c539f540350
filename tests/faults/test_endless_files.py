"""Files without end, as a server may send them, or large for their bytes: no more is read than one of a kind has."""

import contextlib
import io

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from medclip.data.dataset import local_folder
from medclip.data.paths import parse_path
from medclip.data.prepare import prepare
from medclip.data.schema import Dropped, Pair
from medclip.data.sources import webdataset
from medclip.data.sources.detect import open_source
from medclip.data.sources.huggingface import find_saved_tables
from medclip.errors import UserError, WorkError
from support.archives import tar_bytes, zip_bytes
from support.material import draw_image, image_bytes
from support.prepared import dropped_rows


class Endless(io.RawIOBase):
    """Blanks without end, in the small pieces of a network."""

    def readable(self):
        return True

    def readinto(self, buffer):
        size = min(len(buffer), 2**16)
        buffer[:size] = b" " * size
        return size


@pytest.fixture
def endless(monkeypatch):
    """A function that makes every file of a store whose path ends in a name endless; others are in memory."""
    ends, open_file = [], MemoryFileSystem._open

    def open_stored(self, path, *rest, **more):
        return io.BufferedReader(Endless()) if path.endswith(tuple(ends)) else open_file(self, path, *rest, **more)

    monkeypatch.setattr(MemoryFileSystem, "_open", open_stored)
    for module in ("dataset.MAX_MANIFEST_BYTES", "sources.huggingface._MAX_DESCRIPTION_BYTES"):
        monkeypatch.setattr(f"medclip.data.{module}", 2**20)
    monkeypatch.setattr("medclip.data.prepare_row.MAX_IMAGE_BYTES", 2**20)
    store = MemoryFileSystem()

    def end(name, *others):
        for other in (name, *others):
            store.pipe_file(f"/endless/data/{other}", b"{}")
        ends.append(f"/{name}")
        return parse_path("memory://endless/data")

    yield end
    store.store.clear()
    store.pseudo_dirs[:] = [""]


def test_a_manifest_without_end_is_refused(endless):
    with pytest.raises(UserError, match=r"dataset\.json has over 1,048,576 bytes"):
        local_folder(endless("dataset.json"))


def test_a_description_without_end_is_refused(endless):
    with pytest.raises(UserError, match=r"state\.json has over 1,048,576 bytes"):
        find_saved_tables(endless("state.json"))


def test_an_image_without_end_is_counted(endless, tmp_path):
    url = endless("1.png", "pairs.csv")
    (url / "pairs.csv").write_text("image,caption\n1.png,CT of the chest\n")
    with contextlib.suppress(WorkError):  # no row became a pair
        prepare(f"{url}/pairs.csv", tmp_path / "data", num_workers=1)
    assert [row["reason"] for row in dropped_rows(tmp_path / "data")] == ["image over 1 MiB behind a URL"]


@pytest.mark.parametrize("pack", [lambda members: tar_bytes(members, "w:gz"), zip_bytes])
def test_a_text_of_an_archive_that_is_too_large_is_counted(tmp_path, monkeypatch, pack):
    """JSON of 256 MiB, packed to 200 kB, would be 6 GB of objects."""
    monkeypatch.setattr(webdataset, "MAX_TEXT_BYTES", 2**20)
    image, path = image_bytes(draw_image(1), "PNG"), tmp_path / ("x.zip" if pack is zip_bytes else "x.tar.gz")
    path.write_bytes(pack([("1.png", image), ("1.json", b" " * (2**20 + 1)), ("2.png", image), ("2.txt", b"CT")]))
    rows = list(open_source(str(path)))
    assert "archive member over 1 MiB" in [row.reason for row in rows if isinstance(row, Dropped)]
    assert [row.caption for row in rows if isinstance(row, Pair)] == ["CT"]


def test_a_report_that_is_too_large_is_counted(tmp_path):
    (tmp_path / "1.png").write_bytes(image_bytes(draw_image(1), "PNG"))
    (tmp_path / "1.xml").write_bytes(b"<eCitation>" + b" " * 2**20 + b"</eCitation>")
    assert "report over 1 MiB" in [row.reason for row in open_source(str(tmp_path))]
