"""Do the stated rates of a search hold? Random halves of pairs: calibrate on one, search the other, 300 times.

    medclip embed --model RUN --data DATA --split validation --out EMBEDDED
    python benchmarks/no_match.py --data DATA --embeddings EMBEDDED

Prints a line of JSON for each size of the searched pool: mean predicted probability and share of texts whose image is
among the first k; rate of "no match" where the image is there; and, over pools without one organ (by the keywords of
captions), the rate stated by the calibration and the one measured.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from medclip.data.dataset import Split
from medclip.data.stats.keyword_labels import keyword_label
from medclip.match_calibration import ValidationRecall, fit_calibration, withhold
from medclip.search.embed import EMBEDDING_FILES, ORIGIN_FILE

NO_RECALL = ValidationRecall(0, 0, 0, 0, 0, 0)  # which plays no part here
KS = (1, 5, 10)


def main() -> None:
    """Draw, calibrate, search, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--embeddings", type=Path, required=True)
    parser.add_argument("--split", default="validation")
    parser.add_argument("--num-draws", type=int, default=300)
    args = parser.parse_args()
    split = Split(args.data, args.split)
    (args.embeddings / ORIGIN_FILE).stat()  # whole
    images, texts = (np.load(args.embeddings / EMBEDDING_FILES[kind]) for kind in ("images", "captions"))
    rows = np.intersect1d(*(np.unique(ids, return_index=True)[1] for ids in split.duplicate_ids))  # each of both once
    cosines = texts[rows].astype(np.float64) @ images[rows].T.astype(np.float64)
    captions = split.column("caption")
    organs = np.array([keyword_label("organ", captions[row]) for row in rows])
    n, rng, errors, withheld = len(rows), np.random.default_rng(0), {}, []
    sizes = [n // 16, n // 5, n // 2]
    for draw in range(args.num_draws):
        order = rng.permutation(n)
        first, second = order[: n // 2], order[n // 2 :]
        pairs, groups = np.eye(len(first), dtype=bool), organs[first].tolist()
        calibration = fit_calibration(cosines[np.ix_(first, first)], pairs, groups, groups, NO_RECALL, "", "", draw)
        for size in sizes:
            pool = second[:size]
            scores = cosines[np.ix_(pool, pool)]
            highest = -np.sort(-scores, axis=1)
            ranks = (scores >= scores.diagonal()[:, None]).sum(axis=1)
            for row, rank in zip(highest, ranks, strict=True):
                total, ones = calibration.log_total(row, row, size), np.ones(max(KS), int)
                probabilities = calibration.probabilities(row[: max(KS)], ones, total, size)
                hits = [value for k in KS for value in (probabilities[k - 1], rank <= k)]
                errors.setdefault(size, []).append([*hits, calibration.is_no_match(row, size)])
        groups = organs[second].tolist()
        measured = withhold(calibration, cosines[np.ix_(second, second)], groups, groups)
        if measured and calibration.withheld:
            withheld.append((calibration.withheld.no_match_rate, measured.no_match_rate))
    for size, values in errors.items():
        means = np.mean(np.array(values, float), axis=0).round(4).tolist()
        predicted = {f"k={k}": {"predicted": means[2 * i], "measured": means[2 * i + 1]} for i, k in enumerate(KS)}
        print(json.dumps({"calibrated_on": n // 2, "searched": size, **predicted, "no_match": means[-1]}))
    if withheld:
        stated, tested = np.mean(withheld, axis=0).round(4).tolist()
        print(json.dumps({"withheld_organs": {"stated": stated, "measured": tested}}))


if __name__ == "__main__":
    main()
