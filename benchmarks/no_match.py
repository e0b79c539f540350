"""Do the stated rates of a search hold? Halves of the articles of a split: calibrate on one, search the other.

    python benchmarks/no_match.py --model RUN --data DATA [--typed FILE]

Prints lines of JSON, means over the draws with the 2.5 and 97.5 % quantiles of the draws: for sizes of the searched
pool the predicted probability, and the share of captions whose image is among the first k; how often "no match" comes
though the image is there, of whole captions and of the first words of captions; and where nothing is there: of texts
about other things than radiology, and of texts about an organ whose images are all left out, as the calibration states
it and as measured. FILE has a text a line that the split answers. Beside the thresholds by length stands one threshold
for all, of whole captions.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from medclip import jax_setup

jax_setup.start()

import numpy as np  # noqa: E402

from medclip.data.dataset import Split  # noqa: E402
from medclip.data.stats.keyword_labels import keyword_label  # noqa: E402
from medclip.encode.encoder import embed_captions, jax_backend, stream_split  # noqa: E402
from medclip.match_calibration import Calibration, ValidationRecall, fit_calibration  # noqa: E402
from medclip.model.checkpoint import load  # noqa: E402
from medclip.no_match import (  # noqa: E402
    MIN_WORDS,
    ExcerptCosines,
    Threshold,
    cut_captions,
    fit_thresholds,
    group_by_words,
    is_no_match,
    withhold,
)
from medclip.training.validation import embed_excerpts  # noqa: E402

NO_RECALL = ValidationRecall(0, 0, 0, 0, 0, 0)  # which plays no part here
KS = (1, 5, 10)
OFF_TOPIC = (
    *("cat", "pizza", "guitar", "invoice number 4711", "photograph of a cat", "a red sports car", "asdf qwer zxcv"),
    *("recipe for tomato soup", "purple elephants dancing on the moon", "quarterly sales report", "concert tickets"),
    *("how do I reset my password", "cheap flights to Paris", "a bowl of fruit on a table", "wedding photograph"),
    *("map of the London underground", "screenshot of a spreadsheet", "portrait of a young woman smiling"),
    *("please pay the invoice within 30 days", "the president signed a new law yesterday", "to be or not to be"),
    *("ein Hund spielt im Garten", "Rechnung für Büromaterial", "un chat noir sur le toit", "lorem ipsum dolor sit"),
    *("el gato duerme en la silla", "la bolletta della luce", "сегодня хорошая погода", "今日は天気がいいですね"),
    "two children play football in the park while their parents have lunch at a wooden table under a tree",
)


def main() -> None:
    """Embed, draw, calibrate, search, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="validation")
    parser.add_argument("--typed", type=Path)
    parser.add_argument("--num-draws", type=int, default=300)
    args = parser.parse_args()
    folder = args.model / "model" if (args.model / "model").is_dir() else args.model
    typed = args.typed.read_text("utf-8").splitlines() if args.typed else []
    pairs = Pairs(folder, Split(args.data, args.split), {"off-topic": OFF_TOPIC, "typed": typed})
    rng, rates = np.random.default_rng(0), defaultdict(list)
    articles = np.unique(pairs.articles)
    for draw in range(args.num_draws):
        first = np.isin(pairs.articles, rng.permutation(articles)[: len(articles) // 2])
        halves = [rng.permutation(np.flatnonzero(rows)) for rows in (first, ~first)]
        for name, rate in pairs.measure(*halves, draw).items():
            rates[name].append(rate)
    for name, values in rates.items():
        low, high = np.percentile(values, (2.5, 97.5)).round(4).tolist()
        print(json.dumps({"rate": name, "mean": round(float(np.mean(values)), 4), "low": low, "high": high}))


class Pairs:
    """The distinct pairs of a split, excerpts of their captions, other texts, and the embeddings of all."""

    def __init__(self, model_folder: Path, split: Split, texts: dict[str, Sequence[str]]):
        model = load(model_folder)
        backend = jax_backend(model, cache=True)
        rows = np.intersect1d(*(np.unique(ids, return_index=True)[1] for ids in split.duplicate_ids)).tolist()
        captions = split.take("caption", rows)
        self.articles = np.array(split.take("article", rows))
        self.organs = np.array([keyword_label("organ", caption) for caption in captions])
        self.images = np.concatenate(list(stream_split(backend, split, "images", rows))).astype(np.float64)
        embeddings = embed_captions(backend, captions)
        self.captions = embeddings.astype(np.float64)
        self.excerpts = cut_captions(captions)
        self.excerpt_rows = np.array([excerpt.row for excerpt in self.excerpts])
        self.excerpt_organs = np.array([keyword_label("organ", excerpt.text) for excerpt in self.excerpts])
        self.min_words = np.array([excerpt.min_words for excerpt in self.excerpts])
        self.excerpt_embeddings = embed_excerpts(backend, self.excerpts, embeddings).astype(np.float64)
        self.texts = {name: own for name, own in texts.items() if own}
        self.text_embeddings = {name: embed_captions(backend, own) for name, own in self.texts.items()}

    def measure(self, first: np.ndarray, second: np.ndarray, seed: int) -> dict[str, float]:
        """The rates in pools of the second rows by calibrations on the first."""
        cosines, right = self.captions[first] @ self.images[first].T, np.eye(len(first), dtype=bool)
        whole = ExcerptCosines(cosines, right, np.ones(len(first), int), [""] * len(first), [""] * len(first))
        calibration = fit_calibration(cosines, right, self._excerpt_cosines(first), NO_RECALL, "", "", seed)
        rules = {"by length": calibration.thresholds, "one for all": tuple(fit_thresholds(whole, seed))}
        rates = {}
        for part in (8, 3, 1):
            pool, images = second[: len(second) // part], f"1/{part} of a half" if part > 1 else "a half"
            rates |= {f"{images}, {name}": rate for name, rate in self._probabilities(calibration, pool).items()}
            for name, thresholds in rules.items():
                rates |= {f"{images}, no match {name}, {kind}": rate for kind, rate in self._rates(thresholds, pool)}
        measured = {own.min_words: own for own in withhold(calibration.thresholds, self._excerpt_cosines(second))}
        for stated in calibration.withheld:
            if stated.min_words in measured:
                name = f"withheld organ, {stated.min_words} words or more"
                rates[f"{name}, stated"] = stated.no_match_rate
                rates[f"{name}, measured"] = measured[stated.min_words].no_match_rate
        return rates

    def _excerpt_cosines(self, pool: np.ndarray) -> ExcerptCosines:
        rows = np.flatnonzero(np.isin(self.excerpt_rows, pool))
        return ExcerptCosines(
            self.excerpt_embeddings[rows] @ self.images[pool].T,
            self.excerpt_rows[rows][:, None] == pool,
            self.min_words[rows],
            self.excerpt_organs[rows].tolist(),
            self.organs[pool].tolist(),
        )

    def _probabilities(self, calibration: Calibration, pool: np.ndarray) -> dict[str, float]:
        """Predicted and measured, of the captions of a pool with its images."""
        cosines, n = self.captions[pool] @ self.images[pool].T, len(pool)
        highest, ranks = -np.sort(-cosines, axis=1), (cosines >= cosines.diagonal()[:, None]).sum(axis=1)
        ones = np.ones(max(KS), int)
        predicted = np.mean(
            [
                calibration.probabilities(row[: len(ones)], ones, calibration.log_total(row, row, n), n)
                for row in highest
            ],
            axis=0,
        )
        rates = {f"k={k}, predicted": float(predicted[k - 1]) for k in KS}
        return rates | {f"k={k}, measured": float((ranks <= k).mean()) for k in KS}

    def _rates(self, thresholds: Sequence[Threshold], pool: np.ndarray) -> list[tuple[str, float]]:
        """How often there is no match among the images of a pool, by kind of text."""
        chosen = np.flatnonzero(np.isin(self.excerpt_rows, pool)).tolist()
        kinds = {"captions": [row for row in chosen if not self.excerpts[row].is_cut]}
        for least in MIN_WORDS:
            kinds[f"{least} words or more"] = [row for row in chosen if self.min_words[row] == least]
        groups = {
            kind: ([self.excerpts[row].text for row in rows], self.excerpt_embeddings[rows])
            for kind, rows in kinds.items()
        }
        groups |= {kind: (texts, self.text_embeddings[kind]) for kind, texts in self.texts.items()}
        rates = []
        for kind, (texts, embeddings) in groups.items():
            highest = -np.sort(-embeddings @ self.images[pool].T, axis=1)
            no_match = [
                is_no_match(thresholds, row, len(pool), group_by_words(text))
                for text, row in zip(texts, highest, strict=True)
            ]
            rates.append((kind, float(np.mean(no_match))))
        return rates


if __name__ == "__main__":
    main()
