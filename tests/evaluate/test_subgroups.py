"""Figures by group, of any values and any labels."""

import numpy as np

from medclip.data.dataset import Split
from medclip.evaluate.subgroups import LEAST, by_group, row_labels
from medclip.metrics import interval

LABELS = {
    "modality": ["ct"] * 60 + ["mri"] * 40 + ["pet"] * 5 + [""] * 15,
    "organ": ["chest"] * 110 + [""] * 10,
    "id": [f"{i}" for i in range(120)],
}


def test_each_group_has_its_mean_and_the_lowest_is_named():
    right = np.r_[np.ones(50), np.zeros(10), np.ones(10), np.zeros(30), np.zeros(20)]
    articles = [f"{i // 2}" for i in range(120)]
    found = by_group({"accuracy": right}, LABELS, articles, 3)
    assert list(found) == ["modality"]  # organ has one group of enough, ids have none
    said = found["modality"]
    assert (said["worst"], said["small"], said["unlabeled"], said["least"]) == ("mri", 5, 15, LEAST)
    assert list(said["groups"]) == ["ct", "mri"]
    assert said["groups"]["mri"]["n"] == 40
    wanted = interval(right[60:100], articles[60:100], lambda rows: float(rows.mean()), 3)
    assert said["groups"]["mri"]["accuracy"] == wanted


def test_the_worst_is_judged_by_all_values_together():
    values = {"there": np.repeat([0.2, 0.3], 50), "back": np.repeat([0.9, 0.4], 50)}
    found = by_group(values, {"side": ["a"] * 50 + ["b"] * 50}, [f"{i}" for i in range(100)], 0)
    assert found["side"]["worst"] == "b"


def test_labels_of_prepared_rows_and_their_licenses(data):
    rows = Split(data, "train")
    labels = row_labels(rows)
    assert set(labels) == {"modality", "license"}
    assert labels["modality"] == ["ct"] + [""] * (len(rows) - 1)
    assert set(labels["license"]) == {"cc-by"}
