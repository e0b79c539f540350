"""Resamples of whole groups: draws, and medians beside numpy's of rows repeated."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from medclip import resamples
from medclip.resamples import draw_counts, medians_of


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 3)), min_size=1, max_size=90), st.integers(0, 9))
def test_medians_are_those_of_repeated_rows(rows, seed):
    values, group = np.array(rows).T
    group = np.unique(group, return_inverse=True)[1]
    (counts,) = draw_counts(int(group.max()) + 1, seed, 20)
    wanted = [np.median(np.repeat(values, times[group])) for times in counts]
    assert medians_of(values, group)(counts).tolist() == wanted


def test_neither_the_size_of_a_block_nor_what_is_kept_changes_a_draw(monkeypatch):
    wanted = np.stack([np.bincount(drawn, minlength=7) for drawn in np.random.default_rng(3).integers(0, 7, (50, 7))])
    for size, max_cached in ((1, 7), (20, 7), (20, 6), (10_000, 6)):
        monkeypatch.setattr(resamples, "MAX_COUNTS", size)
        monkeypatch.setattr(resamples, "MAX_CACHED_GROUPS", max_cached)
        assert np.array_equal(np.concatenate(list(draw_counts(7, 3, 50))), wanted)
