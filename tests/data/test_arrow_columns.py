"""Arrow arrays from buffers are those that pyarrow makes of the same values."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.data import arrow_columns
from medclip.data.arrow_columns import to_array, to_table

TEXTS = st.text(st.characters(codec="utf-8"), max_size=3)
VALUES = {
    pa.string(): TEXTS,
    pa.binary(): st.binary(max_size=3),
    pa.int32(): st.integers(-(2**31), 2**31 - 1),
    pa.float64(): st.floats(allow_nan=False),
    pa.bool_(): st.booleans(),
    pa.list_(pa.string()): st.lists(TEXTS, max_size=3),
    pa.map_(pa.string(), pa.string()): st.lists(st.tuples(TEXTS, TEXTS), max_size=3),
}


@pytest.mark.parametrize("type", VALUES, ids=str)
@given(data=st.data())
def test_an_array_is_that_of_pyarrow(type, data):
    values = data.draw(st.lists(st.none() | VALUES[type], max_size=20))
    array = to_array(values, type)
    array.validate(full=True)
    assert array.equals(pa.array(values, type))


def test_numbers_of_numpy_and_texts_are_a_table():
    columns = {"id": ["a", "ü"], "hit": np.array([True, False]), "n": np.arange(4)[::-2], "rank": np.array([1, np.nan])}
    table = to_table(columns)
    assert table.select(["id", "hit", "n"]).to_pydict() == {"id": ["a", "ü"], "hit": [True, False], "n": [3, 1]}
    assert np.array_equal(table["rank"].to_numpy(), columns["rank"], equal_nan=True)
    assert table["rank"].null_count == 0


def test_what_one_array_cannot_hold_is_refused(monkeypatch):
    monkeypatch.setattr(arrow_columns, "MAX_OFFSET", 3)
    with pytest.raises(ValueError, match="4 bytes or items are too many"):
        to_array(["ab", "cd"], pa.string())


def test_pandas_is_not_imported():
    script = (
        "import sys, pyarrow as pa; from medclip.data.arrow_columns import to_table;"
        "to_table({'id': ['a']}); assert 'pandas' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
