"""Which rows may answer."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.errors import UserError
from medclip.search.filters import EVERYTHING, counts, matches, parse_filter, where

ROWS = [
    ("PMC1", "CC BY", {"modality": "CT", "organ": "brain"}, "roco", "2026-11-01"),
    ("PMC1", "CC BY-NC", {"modality": "mri"}, "roco", "2026-11-01"),
    ("PMC2", "CC BY", {}, "ours", "2026-11-20"),
    ("PMC3", "", {"modality": "ct", "organ": "chest"}, "ours", "2026-11-25"),
]
ADDED = np.array([row[-1] for row in ROWS], "datetime64[D]")
TABLE = pa.table(
    {
        "article": [row[0] for row in ROWS],
        "license": [row[1] for row in ROWS],
        "labels": pa.array([list(row[2].items()) for row in ROWS], pa.map_(pa.string(), pa.string())),
        "source": [row[3] for row in ROWS],
    }
)


def rows(*words):
    return np.flatnonzero(matches(TABLE, ADDED, parse_filter(words))).tolist()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), [0, 1, 2, 3]),
        (("modality=ct",), [0, 3]),
        (("modality=CT", "modality=MRI"), [0, 1, 3]),
        (("modality=ct", "organ=brain"), [0]),
        (("license=cc by",), [0, 2]),
        (("article=pmc1",), [0, 1]),
        (("source=ours", "modality= ct "), [3]),
        (("added=2026-11-20",), [2]),
        (("added=2026-11-02..",), [2, 3]),
        (("added=..2026-11-20",), [0, 1, 2]),
        (("added=2026-11-10..2026-11-20", "added=2026-11-25"), [2, 3]),
        (("article=absent",), []),
    ],
)
def test_keys_narrow_and_values_widen(words, expected):
    assert rows(*words) == expected


@pytest.mark.parametrize("word", ["modality", "=ct", "modality=", " = ", ""])
def test_a_word_that_is_no_filter_is_refused(word):
    with pytest.raises(UserError, match="write KEY=VALUE"):
        parse_filter([word])


@pytest.mark.parametrize("day", ["..", "today", "2026-13-01", "2026-11-25..x", "2026-02-30"])
def test_a_day_that_is_none_is_refused(day):
    with pytest.raises(UserError, match="is no day"):
        parse_filter([f"added={day}"])


def test_an_unknown_key_is_told_what_can_be_asked_for():
    with pytest.raises(UserError, match="can be asked for: modality, organ, article, license, source, added"):
        rows("modalty=ct")


@given(
    st.dictionaries(
        st.sampled_from(["modality", "organ", "license"]), st.lists(st.sampled_from(["ct", "CC BY", "brain"]))
    )
)
def test_equals_a_loop_over_the_rows(said):
    found = matches(TABLE, ADDED, where(said))
    for (article, license, labels, source, _), is_found in zip(ROWS, found, strict=True):
        row = {"article": article, "license": license, "source": source, **labels}
        met = [row.get(key, "").lower() in {v.lower() for v in values} for key, values in said.items() if values]
        assert is_found == all(met)


def test_the_order_of_words_does_not_matter():
    assert parse_filter(["b=2", "a=1", "b=1"]) == parse_filter(["a=1", "b=1", "b=2", "b=2"])
    assert where({}) == EVERYTHING == where({"modality": []})


def test_counts_are_of_rows_that_count():
    assert counts(TABLE, np.ones(4, bool)) == {
        "modality": {"CT": 1, "ct": 1, "mri": 1},
        "organ": {"brain": 1, "chest": 1},
        "license": {"CC BY": 2, "CC BY-NC": 1},
    }
    assert counts(TABLE, np.array([False, True, False, False])) == {"modality": {"mri": 1}, "license": {"CC BY-NC": 1}}
