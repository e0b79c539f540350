"""Filters: keys narrow, values widen, days and unknown keys are checked."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.errors import UserError
from medclip.search.filters import NO_FILTER, explain_no_match, filter_mask, make_filter, parse_filter, value_counts

ROWS = [
    ("PMC1", "CC BY", {"modality": "CT", "organ": "brain"}, "roco", "2026-11-01"),
    ("PMC1", "CC BY-NC", {"modality": "mri"}, "roco", "2026-11-01"),
    ("PMC2", "CC BY", {}, "ours", "2026-11-20"),
    ("PMC3", "", {"modality": "ct", "organ": "chest"}, "ours", "2026-11-25"),
]
DAYS = np.array([row[-1] for row in ROWS], "datetime64[D]")
TABLE = pa.table(
    {
        "article": [row[0] for row in ROWS],
        "license": [row[1] for row in ROWS],
        "labels": pa.array([list(row[2].items()) for row in ROWS], pa.map_(pa.string(), pa.string())),
        "source": [row[3] for row in ROWS],
    }
)


def matching_rows(*items):
    return np.flatnonzero(filter_mask(TABLE, DAYS, parse_filter(items))).tolist()


@pytest.mark.parametrize(
    ("items", "expected"),
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
def test_keys_narrow_and_values_widen(items, expected):
    assert matching_rows(*items) == expected


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        (("modality=ctt",), "modality is CT, mri"),  # one spelling of each
        (("modality=mr",), "modality is mri, CT"),  # the nearest first, however rare
        (("organ=knee", "license=cc by"), "organ is brain, chest"),
        (("article=9", "source=hers"), "article is PMC1, PMC2, PMC3; source is ours, roco"),
        (("added=2026-12-01..",), "added is 2026-11-01 to 2026-11-25"),
        (("modality=ct", "article=pmc2"), "each of its keys alone has images, together they have none"),
    ],
)
def test_where_nothing_matches_the_values_that_are_there_are_named(items, expected):
    assert explain_no_match(TABLE, np.ones(4, bool), DAYS, parse_filter(items)) == expected


def test_of_many_values_the_nearest_and_some_are_named():
    table = pa.table({"article": [f"PMC{n:03}" for n in range(100)]})
    why = explain_no_match(table, np.ones(100, bool), DAYS, parse_filter(["article=pmc099x"]))
    assert why.startswith("article is PMC099, ") and why.endswith(" and 88 more")


@pytest.mark.parametrize("value", ["ΠΝΕΥΜΟΝΑΣ", "İLIAK", "Straße", "Тимус"])
def test_a_value_of_any_alphabet_is_matched_by_itself(value):
    labels = pa.array([[("organ", value)], [("organ", "brain")]], TABLE.schema.field("labels").type)
    table = pa.table({"labels": labels})
    assert filter_mask(table, DAYS[:2], parse_filter([f"organ={value}"])).tolist() == [True, False]


@pytest.mark.parametrize("stored", ["Épanchement", "E\u0301panchement"])
@pytest.mark.parametrize("typed", ["épanchement", "e\u0301panchement"])
def test_an_accent_is_the_same_however_it_is_stored(stored, typed):
    """macOS writes a letter and its accent apart, keyboards together."""
    labels = pa.array([[("finding", stored)], [("finding", "epanchement")]], TABLE.schema.field("labels").type)
    table = pa.table({"labels": labels})
    assert filter_mask(table, DAYS[:2], parse_filter([f"finding={typed}"])).tolist() == [True, False]


@pytest.mark.parametrize("item", ["modality", "=ct", "modality=", " = ", ""])
def test_what_is_not_key_and_value_is_refused(item):
    with pytest.raises(UserError, match="write KEY=VALUE"):
        parse_filter([item])


@pytest.mark.parametrize("day", ["..", "today", "2026-13-01", "2026-11-25..x", "2026-02-30"])
def test_an_invalid_day_is_refused(day):
    with pytest.raises(UserError, match="is not a day"):
        parse_filter([f"added={day}"])


@pytest.mark.parametrize("item", ["modality=\udcff", "\udcff=ct"])
def test_what_is_no_text_is_refused(item):
    with pytest.raises(UserError, match="not Unicode"):
        parse_filter([item])


def test_an_unknown_key_is_told_the_known_ones():
    with pytest.raises(UserError, match="filters can use: modality, organ, article, license, source, added"):
        matching_rows("modalty=ct")


@given(
    st.dictionaries(
        st.sampled_from(["modality", "organ", "license"]), st.lists(st.sampled_from(["ct", "CC BY", "brain"]))
    )
)
def test_the_mask_equals_a_loop_over_the_rows(conditions):
    mask = filter_mask(TABLE, DAYS, make_filter(conditions))
    for (article, license, labels, source, _), is_match in zip(ROWS, mask, strict=True):
        row = {"article": article, "license": license, "source": source, **labels}
        assert is_match == all(
            row.get(key, "").lower() in {value.lower() for value in values}
            for key, values in conditions.items()
            if values
        )


def test_the_order_of_items_does_not_matter():
    assert parse_filter(["b=2", "a=1", "b=1"]) == parse_filter(["a=1", "b=1", "b=2", "b=2"])
    assert make_filter({}) == NO_FILTER == make_filter({"modality": []})


def test_counts_are_of_the_rows_of_a_mask():
    assert value_counts(TABLE, np.ones(4, bool)) == {
        "modality": {"CT": 1, "ct": 1, "mri": 1},
        "organ": {"brain": 1, "chest": 1},
        "license": {"CC BY": 2, "CC BY-NC": 1},
    }
    assert value_counts(TABLE, np.array([False, True, False, False])) == {
        "modality": {"mri": 1},
        "license": {"CC BY-NC": 1},
    }


def test_a_label_that_is_called_as_another_key_is_not_offered():
    labels = pa.array([[("added", "noon"), ("source", "x"), ("organ", "brain")]], TABLE.schema.field("labels").type)
    table = pa.table({"labels": labels, "license": ["CC BY"], "source": ["roco"], "article": ["PMC1"]})
    assert value_counts(table, np.ones(1, bool)) == {"organ": {"brain": 1}, "license": {"CC BY": 1}}
