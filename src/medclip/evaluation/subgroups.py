"""Metrics by group: by modality, by organ, by license, by any label of the prepared rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from medclip.data.dataset import Split
from medclip.data.normalize import license_name
from medclip.evaluation.results import Fact
from medclip.metrics import SHARE, mean_estimates, sums_and_counts
from medclip.named_metrics import Metric, metric_name, to_metric

MIN_GROUP_SIZE = 30
"""Fewer items say too little of a group to name it."""


def row_labels(rows: Split) -> dict[str, list[str]]:
    """Every kind of label of the prepared rows (modality, organ, year, … as the source has them) and the license.

    A value for each row, "" where it has none.
    """
    label_dicts = [dict(labels or ()) for labels in rows.iter_column("labels")]
    kinds = sorted({kind for labels in label_dicts for kind in labels})
    licenses = [license_name(text or "") for text in rows.iter_column("license")]
    return {kind: [labels.get(kind) or "" for labels in label_dicts] for kind in kinds} | {"license": licenses}


def by_group(
    values: Mapping[str, Float[np.ndarray, " n"]],
    labels: Mapping[str, Sequence[str]],
    articles: Sequence[str],
    seed: int,
) -> tuple[list[Metric], dict[str, Fact]]:
    """Means of `values` (n,), shares of which more is better, by group of each kind of label, with intervals.

    NaN is no item. Metrics are by_group/KIND/groups/GROUP/NAME, of groups with at least MIN_GROUP_SIZE items of each of
    `values`, the largest first. Facts of a kind: `worst`, the group with the lowest mean over all of `values`; how
    many rows are in smaller groups (`num_small`) or have no label (`num_unlabeled`). A kind without two such groups is
    left out. The worst of many is in part so by chance: mind its interval.
    """
    columns, names = np.stack(list(values.values()), axis=1), np.asarray(articles, dtype=str)
    valid = ~np.isnan(columns)
    metrics: list[Metric] = []
    facts: dict[str, Fact] = {}
    for kind, labels_of_kind in labels.items():
        counts, groups_of_rows = Counter(labels_of_kind), np.asarray(labels_of_kind, dtype=str)
        unlabeled = counts.pop("", 0)
        large = [group for group, n in counts.most_common() if n >= MIN_GROUP_SIZE]
        members = {group: groups_of_rows == group for group in large}
        groups = [group for group in large if valid[members[group]].sum(axis=0).min() >= MIN_GROUP_SIZE]
        if len(groups) < 2:
            continue
        means = {group: _means(columns[members[group]]) for group in groups}
        facts |= {
            metric_name("by_group", kind, "min_group_size"): MIN_GROUP_SIZE,
            metric_name("by_group", kind, "worst"): min(groups, key=lambda group: means[group].mean()),
            metric_name("by_group", kind, "num_small"): counts.total() - sum(counts[group] for group in groups),
            metric_name("by_group", kind, "num_unlabeled"): unlabeled,
        }
        for group in groups:
            rows = members[group]
            path = metric_name("by_group", kind, "groups", group)
            facts[f"{path}/num_pairs"] = counts[group]
            of_group = {name: column[rows] for name, column in values.items()}
            measured = mean_estimates(of_group, names[rows], seed, dict.fromkeys(values, SHARE))
            metrics += [to_metric(f"{path}/{name}", estimate) for name, estimate in measured.items()]
    return metrics, facts


def _means(values: np.ndarray) -> np.ndarray:
    """The mean of what is not NaN in each column; NaN where there is nothing."""
    sums, counts = sums_and_counts(values)
    with np.errstate(invalid="ignore"):
        return sums / counts
