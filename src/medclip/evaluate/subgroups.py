"""Figures by group: by modality, by organ, by license, by whatever the prepared rows are labeled with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medclip.data.dataset import Split
from medclip.data.normalize import license_name
from medclip.metrics import intervals

LEAST = 30
"""Fewer items say too little of a group to name it."""


def row_labels(rows: Split) -> dict[str, list[str]]:
    """Every kind of label of the prepared rows (modality, organ, year, … as the source has them) and the license.

    A value a row, "" where it has none.
    """
    of_rows = [dict(labels or ()) for labels in rows.iter_column("labels")]
    kinds = sorted({kind for labels in of_rows for kind in labels})
    licenses = [license_name(said or "") for said in rows.iter_column("license")]
    return {kind: [labels.get(kind) or "" for labels in of_rows] for kind in kinds} | {"license": licenses}


def by_group(
    values: Mapping[str, np.ndarray], labels: Mapping[str, Sequence[str]], articles: Sequence[str], seed: int
) -> dict[str, Any]:
    """Means of `values` (f64 (n,), more is better) by group of each kind of label, each with its interval.

    Of a kind: `groups` by name with their `n`, of at least `LEAST` items and the largest first; `worst`, the group with
    the lowest mean over all of `values`; how many items are in smaller groups (`small`) or have no label
    (`unlabeled`). A kind without two such groups is left out. The worst of many is in part so by chance: mind its
    interval.
    """
    columns, where = np.stack(list(values.values()), axis=1), np.asarray(articles, dtype=str)

    def measure(rows: np.ndarray) -> dict[str, float]:
        return dict(zip(values, rows.mean(axis=0).tolist(), strict=True))

    found = {}
    for kind, of_rows in labels.items():
        counts, own = Counter(of_rows), np.asarray(of_rows, dtype=str)
        unlabeled = counts.pop("", 0)
        named = [group for group, n in counts.most_common() if n >= LEAST]
        if len(named) < 2:
            continue
        members = {group: own == group for group in named}
        found[kind] = {
            "least": LEAST,
            "worst": min(named, key=lambda group: columns[members[group]].mean()),
            "small": counts.total() - sum(counts[group] for group in named),
            "unlabeled": unlabeled,
            "groups": {
                group: {"n": counts[group], **intervals(columns[at], where[at], measure, seed)}
                for group, at in members.items()
            },
        }
    return found
