"""Embeddings made elsewhere are checked row by row."""

import numpy as np
import pytest

from medclip.errors import UserError
from medclip.evaluation.retrieval import read_embeddings


@pytest.fixture
def write(tmp_path):
    def to(name, rows):
        np.save(tmp_path / name, rows)
        return tmp_path / name

    return to


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.int8])
def test_rows_become_unit_vectors(write, kind):
    both = read_embeddings(write("i.npy", np.array([[3, 4], [0, -2]], kind)), write("t.npy", np.eye(2, dtype=kind)), 2)
    assert [rows.dtype for rows in both] == [np.float32] * 2
    assert np.allclose(both[0], [[0.6, 0.8], [0, -1]], atol=1e-7)


@pytest.mark.parametrize("size", [1e-300, 1e-30, 1e30, 1e300])
def test_length_does_not_matter(write, size):
    path = write("i.npy", np.array([[3, 4], [0, -2]]) * size)
    assert np.allclose(read_embeddings(path, path, 2)[0], [[0.6, 0.8], [0, -1]], atol=1e-7)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.array([[1, 0], [0, 1], [0, 0.0]]), r"i.npy: row 2 \(counted from 0\) is all zeros"),
        (np.array([[1, 0], [np.nan, 1], [0, 1]]), r"i.npy: row 1 .* not all finite"),
        (np.array([[1, 0], [0, 1], [np.inf, 1]]), r"i.npy: row 2 .* not all finite"),
        (np.eye(4), "i.npy has 4 rows and the split 3 pairs"),
        (np.ones((3, 2)), "i.npy has vectors of 2 numbers and .*t.npy of 3"),
        (np.ones(3), r"i.npy is float64 of shape \(3,\)"),
        (np.ones((3, 0)), r"i.npy is float64 of shape \(3, 0\)"),
        (np.ones((3, 2, 2)), "not numbers with a row for each pair"),
        (np.eye(3) * 1j, "i.npy is complex128"),
        (np.array([["a"] * 3] * 3), "i.npy is <U1"),
        (np.array([[{}] * 3] * 3), "i.npy is not a .npy file of numbers"),
    ],
)
def test_what_cannot_be_used_is_named(write, rows, message):
    with pytest.raises(UserError, match=message):
        read_embeddings(write("i.npy", rows), write("t.npy", np.eye(3)), 3)


@pytest.mark.parametrize("content", [b"", b"no array", b"PK\x03\x04", None])
def test_what_is_no_array_is_named(tmp_path, content):
    path = tmp_path / "x.npy"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"x.npy (does not exist|is not a .npy file)"):
        read_embeddings(path, path, 3)


def test_a_file_shorter_than_it_says_is_named(write, tmp_path):
    cut, boast = write("i.npy", np.eye(30)), tmp_path / "boast.npy"
    cut.write_bytes(cut.read_bytes()[:-100])
    with boast.open("wb") as handle:
        header = {"descr": "<f4", "fortran_order": False, "shape": (10**13, 8)}
        np.lib.format.write_array_header_1_0(handle, header)
    for path in (cut, boast):
        with pytest.raises(UserError, match=r"is not a \.npy file"):
            read_embeddings(path, path, 30)


def test_an_archive_is_named(tmp_path):
    np.savez(tmp_path / "i.npz", np.eye(3))
    with pytest.raises(UserError, match=r"is not a \.npy file"):
        read_embeddings(tmp_path / "i.npz", tmp_path / "i.npz", 3)


def test_both_files_have_a_row_for_each_pair(write):
    with pytest.raises(UserError, match=r"i.npy has 3 rows and .*t.npy 2: row i of both is a pair"):
        read_embeddings(write("i.npy", np.eye(3)), write("t.npy", np.eye(3)[:2]), None)


def test_rows_that_need_all_the_memory_are_refused_and_the_first_of_them_read(tmp_path):
    path = tmp_path / "i.npy"
    header = {"descr": "<f4", "fortran_order": False, "shape": (2**40, 2)}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.write(np.eye(2, dtype=np.float32).tobytes())
        file.truncate(file.tell() + 8 * (2**40 - 2))
    with pytest.raises(UserError, match=r"i\.npy.*(need more memory than there is. Give --max-samples|is all zeros)"):
        read_embeddings(path, path, None)
    assert np.array_equal(read_embeddings(path, path, None, max_rows=2)[1], np.eye(2))
