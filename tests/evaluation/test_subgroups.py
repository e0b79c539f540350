"""Metrics by group, of any values and any labels."""

import numpy as np

from medclip.data.dataset import Split
from medclip.evaluation.subgroups import MIN_GROUP_SIZE, by_group, row_labels
from medclip.metrics import estimate
from medclip.named_metrics import to_metric

LABELS = {
    "modality": ["ct"] * 60 + ["mri"] * 40 + ["pet"] * 5 + [""] * 15,
    "organ": ["chest"] * 110 + [""] * 10,
    "id": [f"{i}" for i in range(120)],
}


def test_each_group_has_its_mean_and_the_lowest_is_named():
    right = np.r_[np.ones(50), np.zeros(10), np.ones(10), np.zeros(30), np.zeros(20)]
    articles = [f"{i // 2}" for i in range(120)]
    metrics, facts = by_group({"accuracy": right}, LABELS, articles, 3)
    assert facts == {  # organ has one group of enough, ids have none
        "by_group/modality/min_group_size": MIN_GROUP_SIZE,
        "by_group/modality/worst": "mri",
        "by_group/modality/num_small": 5,
        "by_group/modality/num_unlabeled": 15,
        "by_group/modality/groups/ct/num_pairs": 60,
        "by_group/modality/groups/mri/num_pairs": 40,
    }
    wanted = estimate(right[60:100], articles[60:100], lambda rows: float(rows.mean()), 3)
    ct, mri = metrics
    assert mri == to_metric("by_group/modality/groups/mri/accuracy", wanted)
    assert ct.value == 50 / 60


def test_the_worst_is_judged_by_all_values_together():
    values = {"forth": np.repeat([0.2, 0.3], 50), "back": np.repeat([0.9, 0.4], 50)}
    _, facts = by_group(values, {"side": ["a"] * 50 + ["b"] * 50}, [f"{i}" for i in range(100)], 0)
    assert facts["by_group/side/worst"] == "b"


def test_labels_of_prepared_rows_and_their_licenses(data):
    rows = Split(data, "train")
    labels = row_labels(rows)
    assert set(labels) == {"modality", "license"}
    assert labels["modality"] == ["ct"] + [""] * (len(rows) - 1)
    assert set(labels["license"]) == {"cc-by"}
