"""Packed tables of a few kB that unpack to gigabytes: refused in a sentence, by a process whose memory has an end."""

import gzip
import resource

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medclip.data.paths import parse_path
from medclip.data.sources import packed_tables
from medclip.data.sources.packed_tables import read_packed
from medclip.data.sources.table_files import read_rows
from medclip.errors import UserError
from support.shard_work import crash_after_a_row, refuse_table

BIG = 2**27  # of one value; the tests allow a worker as much
NAME = "pairs"


def _arrow(path, table, codec: str | None = "zstd", kind=pa.ipc.new_file):
    options = pa.ipc.IpcWriteOptions(compression=codec)
    with pa.OSFile(str(path), "wb") as sink, kind(sink, table.schema, options=options) as out:
        out.write_table(table)


def _table(captions):
    return pa.table({"image": ["a.png"] * len(captions), "caption": captions})


def _zeros(path, codec, kind):
    _arrow(path, _table(pa.array([bytes(BIG), b"x"])), codec, kind)


def _dictionary(path):
    """One text of 8 MB that 100 rows have."""
    captions = pa.DictionaryArray.from_arrays(pa.array(np.zeros(100, np.int8)), pa.array(["a" * 2**23]))
    _arrow(path, _table(captions))


def _views(path):
    """Lists that are all of one place."""
    starts, sizes = np.zeros(100, np.int32), np.full(100, 2**20, np.int32)
    _arrow(
        path,
        _table(pa.ListViewArray.from_arrays(pa.array(starts), pa.array(sizes), pa.array(np.zeros(2**20, np.int8)))),
        None,
    )


def _parquet_list(path):
    """One row with a list of many values, of which Parquet stores the number."""
    values = pa.array(np.zeros(2**24, np.int8))
    captions = pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)
    pq.write_table(_table(captions), path, compression="zstd")


def _parquet_page(path):
    pq.write_table(_table(pa.array([bytes(BIG)])), path, compression="zstd", use_dictionary=False)


def _objects(path):
    path.write_bytes(gzip.compress(b"[" + b"{}," * 2**21 + b"{}]", 1))


@pytest.fixture
def little_memory(monkeypatch):
    monkeypatch.setattr(packed_tables, "MAX_MEMORY_BYTES", BIG)
    packed_tables._end_idle()  # what another test left of memory would do


@pytest.mark.parametrize(
    ("suffix", "write"),
    [
        (".arrow", lambda path: _zeros(path, "zstd", pa.ipc.new_stream)),
        (".arrow", lambda path: _zeros(path, "lz4", pa.ipc.new_file)),
        (".arrow", _dictionary),
        (".arrow", _views),
        (".parquet", _parquet_list),
        (".parquet", _parquet_page),
        (".json.gz", _objects),
    ],
)
def test_what_unpacks_to_more_than_the_memory_is_refused(tmp_path, little_memory, suffix, write):
    path = tmp_path / f"{NAME}{suffix}"
    write(path)
    assert path.stat().st_size < 2**20 + 2**16
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=rf"{NAME}{suffix} \([\d,]+ bytes\) unpacks to more than .* write it anew"):
        list(read_rows(path))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < BIG / 2**10 / 2


def test_a_buffer_that_claims_more_than_there_is_memory_is_refused(tmp_path):
    _arrow(tmp_path / "x.arrow", _table(["CT of the chest" * 1000]))
    data = (tmp_path / "x.arrow").read_bytes()
    before, _, after = data.rpartition((15_000).to_bytes(8, "little"))
    (tmp_path / "x.arrow").write_bytes(before + (2**44).to_bytes(8, "little") + after)
    with pytest.raises(UserError, match=r"x\.arrow .* unpacks to more than 4 GiB at once"):
        list(read_rows(tmp_path / "x.arrow"))


def test_rows_without_bytes_come_to_an_end(tmp_path):
    array = pa.Array.from_buffers(pa.null(), 2**31 - 1, [None])
    _arrow(tmp_path / "x.arrow", pa.table({"image": array, "caption": array}), None)
    with pytest.raises(UserError, match=r"x\.arrow claims over [\d,]+ rows in [\d,]+ bytes"):
        list(read_rows(tmp_path / "x.arrow"))


def test_a_row_that_is_too_large_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(packed_tables, "MAX_UNPACKED_ROW_BYTES", 2**16)
    pq.write_table(_table(["CT", "x" * 2**16]), tmp_path / "x.parquet", compression="zstd")
    with pytest.raises(UserError, match=r"x\.parquet .* unpacks to a row of 65,\d+ bytes, where 65,536 are read"):
        list(read_rows(tmp_path / "x.parquet"))


def test_a_reader_that_crashes_ends_its_table_alone(tmp_path):
    pq.write_table(_table(["CT", "MRI"]), tmp_path / "x.parquet")
    rows = read_packed(crash_after_a_row, tmp_path / "x.parquet")
    assert next(rows) == {"image": "a.png"}
    with pytest.raises(UserError, match=r"x\.parquet ends the process that reads it"):
        next(rows)
    assert [row["caption"] for row in read_rows(tmp_path / "x.parquet")] == ["CT", "MRI"]


def test_a_worker_serves_the_next_table(tmp_path):
    """One a table would take 0.4 s of each of a thousand."""
    pq.write_table(_table(list(map(str, range(1000)))), tmp_path / "x.parquet")
    next(read_rows(tmp_path / "x.parquet"))
    [worker] = packed_tables._idle[-1:]
    with pytest.raises(UserError, match="is no table"):
        next(read_packed(refuse_table, tmp_path / "x.parquet"))
    both = zip(read_rows(tmp_path / "x.parquet"), read_rows(tmp_path / "x.parquet"), strict=True)
    assert [first["caption"] for first, second in both if first == second] == list(map(str, range(1000)))
    assert worker in packed_tables._idle


@pytest.mark.parametrize("name", ["x.parquet", "x.arrow", "x.json", "x.csv.gz"])
def test_a_table_behind_a_url_is_opened_by_the_caller(tmp_path, name):
    url, rows = parse_path(f"memory://packed/{name}"), [{"image": f"{n}.png", "caption": "CT"} for n in range(600)]
    file, table = tmp_path / name, pa.Table.from_pylist(rows)
    if name == "x.parquet":
        pq.write_table(table, file, row_group_size=100)
    elif name == "x.arrow":
        _arrow(file, table, None)
    else:
        text = (
            str(rows).replace("'", '"')
            if name == "x.json"
            else "image,caption\n" + "".join(f"{n}.png,CT\n" for n in range(600))
        )
        file.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    url.write_bytes(file.read_bytes())
    assert list(read_rows(url)) == rows
