"""Counts are what was put there; tokens are estimated as well as the page states."""

import gzip
import json

import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from medclip.data.shards import SCHEMA
from medclip.data.sources.roco import read_roco
from medclip.data.stats import statistics as module
from medclip.data.stats.statistics import (
    CONTEXT_LENGTH,
    TOKENS_PER_CHARACTER,
    NumberSummary,
    Template,
    compute_split_statistics,
    compute_statistics,
    summarize,
)
from support.handmade_datasets import dataset, row


@pytest.fixture
def small_dataset(tmp_path):
    """Six training pairs and two for validation, of two articles, with something in common."""
    training = [
        row(0, caption="CT of the chest", labels=[("modality", "ct")], concepts=["C1", "C1", "C2"], article="A"),
        row(1, caption="CT of the CHEST ", labels=[("modality", "ct")], concepts=["C1"], article="A", license=""),
        row(2, caption="MRI of the brain, axial", labels=[("modality", "mri"), ("organ", "brain")], article="A"),
        row(3, caption="x" * 400, width=300, height=100, article="B"),
        row(4, caption="A finding", keywords=["mass"], semantic_types=["Finding"], article="B"),
        row(5, caption="Chest film", image=row(2)["image"], article="id5"),
    ]
    held_out = [row(6, caption="ct of  the chest", article="B"), row(7, image=row(0)["image"], article="C")]
    return dataset(
        tmp_path / "known",
        {"train": training, "validation": held_out},
        dropped={"train": {"image missing": 3}, "validation": {}},
    )


def test_every_count_is_what_was_put_there(small_dataset):
    train = compute_statistics(small_dataset).splits["train"]
    assert train.pairs == 6
    assert train.numbers["words"].tolist() == [4, 4, 5, 1, 2, 2]
    assert train.numbers["characters"].tolist() == [15, 16, 23, 400, 9, 10]
    assert train.numbers["shorter_side"].tolist() == [40, 40, 40, 100, 40, 40]
    assert sorted(train.numbers["pairs_per_article"].tolist()) == [1, 2, 3]
    assert train.largest_article == ("A", 3)
    assert train.ungrouped_pairs == 1
    assert train.counts["license"] == {"CC BY": 5, "": 1}
    assert train.counts["source"] == {"handmade": 6}
    assert train.counts["concepts"] == {"C1": 2, "C2": 1, "": 4}  # pairs, however often a row names it
    assert train.counts["keywords"] == {"mass": 1, "": 5}
    assert train.counts["semantic_types"] == {"Finding": 1, "": 5}
    assert train.labels["modality"] == {"ct": 2, "mri": 1, "": 3}
    assert train.labels["organ"] == {"brain": 1, "": 5}
    assert train.keyword_labels["modality"] == {"ct": 2, "mri": 1, "xray": 1, "": 2}
    assert train.keyword_labels["organ"] == {"chest_lung": 3, "brain_head": 1, "": 2}
    assert train.caption_issues == {}


def test_what_splits_share_and_repeat_is_counted(small_dataset):
    stats = compute_statistics(small_dataset)
    shared = {(o.split, o.other): dict(o.counts) for o in stats.overlaps}
    assert shared == {
        ("train", "train"): {"same image": 1, "near image": 0, "caption": 1, "any": 2},
        ("validation", "train"): {"article": 1, "same image": 1, "near image": 0, "caption": 1, "any": 2},
        ("validation", "validation"): {"same image": 0, "near image": 0, "caption": 0, "any": 0},
    }
    examples = {(o.split, o.other): set(o.examples) for o in stats.overlaps}
    assert examples["train", "train"] == {(5, 2, "same image"), (1, 0, "caption")}


@pytest.mark.parametrize(("limit", "near"), [(7, True), (8, False)])
def test_near_images_are_not_compared_where_they_cost_too_much(small_dataset, monkeypatch, limit, near):
    monkeypatch.setattr(module, "MAX_NEAR_PAIRS", limit)
    stats = compute_statistics(small_dataset, near)
    assert not stats.near_images
    assert all("near image" not in overlap.counts for overlap in stats.overlaps)


def test_other_splits_are_compared_with_train_whatever_their_order(tmp_path):
    data = dataset(tmp_path / "data", {"validation": [row(1)], "train": [row(2)], "test": [row(3)]})
    order = [
        (overlap.split, overlap.other)
        for overlap in compute_statistics(data).overlaps
        if overlap.split != overlap.other
    ]
    assert order == [("validation", "train"), ("test", "train"), ("test", "validation")]


def test_the_main_numbers_are_json(small_dataset):
    train = json.loads(json.dumps(compute_statistics(small_dataset).to_json()))["splits"]["train"]
    assert (train["pairs"], train["articles"], train["dropped"]) == (6, 3, {"image missing": 3})
    assert train[f"over_{CONTEXT_LENGTH}_tokens"] == 1
    assert train["numbers"]["width"] == {"min": 48, "p5": 48, "median": 48, "p95": 237, "max": 300, "mean": 90}


def test_templates_are_words_that_many_share(tmp_path):
    names = ("hip", "knee", "skull", "wrist", "liver", "heart", "neck", "spine", "foot")
    rows = [row(n, caption=f"{name} {n}, image courtesy of Dr. A. Smith, 2010") for n, name in enumerate(names)]
    rows += [row(n, caption=f"Figure {n}") for n in range(20, 25)]
    split = compute_statistics(dataset(tmp_path / "data", {"train": rows})).splits["train"]
    assert split.templates == [Template("end", "courtesy of dr a smith #", 9), Template("whole caption", "figure #", 5)]


def test_a_table_without_rows_is_counted_too():
    split = compute_split_statistics(SCHEMA.empty_table())
    assert (split.pairs, split.templates, split.largest_article) == (0, [], ("", 0))
    assert summarize(split.numbers["words"]) is None


def test_batches_change_nothing(small_dataset, tmp_path):
    table = module.open_splits(small_dataset)["train"].table
    whole, parts = compute_split_statistics(table.combine_chunks()), compute_split_statistics(table)
    assert table.column("id").num_chunks == 2
    assert (whole.counts, whole.caption_issues, whole.templates) == (
        parts.counts,
        parts.caption_issues,
        parts.templates,
    )
    assert all(np.array_equal(whole.numbers[name], parts.numbers[name]) for name in whole.numbers)


def test_spread_of_known_numbers():
    assert summarize(np.arange(101)) == NumberSummary(0, 5, 50, 95, 100, 50)


def clip_tokenizer(path):
    """CLIP's byte-pair encoding, of its published merges."""
    merges = [tuple(line.split()) for line in gzip.decompress(path.read_bytes()).decode().split("\n")[1:48895]]
    letters = [chr(c) for c in (*range(33, 127), *range(161, 173), *range(174, 256))]
    letters += [chr(256 + n) for n in range(256 - len(letters))]
    pieces = [*letters, *(f"{x}</w>" for x in letters), *map("".join, merges)]
    tokenizer = Tokenizer(models.BPE({p: i for i, p in enumerate(pieces)}, merges, end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Lowercase()
    words = Regex(r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+")
    split = pre_tokenizers.Split(words, "removed", invert=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    return tokenizer


def test_the_estimate_of_tokens_is_as_good_as_stated(shared_folder):
    tokenizer = clip_tokenizer(shared_folder / "vocab" / "bpe_simple_vocab_16e6.txt.gz")
    captions = {"train": [], "validation": []}
    for pair in read_roco(shared_folder / "roco"):
        if len(caption := " ".join(pair.caption.split())) >= 10:
            captions[pair.split].append(caption)
    tokens = {s: np.array([len(e) + 2 for e in tokenizer.encode_batch(c)]) for s, c in captions.items()}
    characters = {s: np.array([len(caption) for caption in c]) for s, c in captions.items()}
    factor = (tokens["train"] - 2).sum() / characters["train"].sum()
    assert factor == pytest.approx(TOKENS_PER_CHARACTER, abs=5e-4)
    guess, true = np.rint(2 + TOKENS_PER_CHARACTER * characters["validation"]), tokens["validation"]
    error = np.abs(guess - true) / true
    assert np.median(error) == pytest.approx(0.08, abs=0.005)
    assert np.percentile(error, 95) == pytest.approx(0.29, abs=0.01)
    assert (guess > CONTEXT_LENGTH).mean() == pytest.approx(0.058, abs=0.001)
    assert (true > CONTEXT_LENGTH).mean() == pytest.approx(0.061, abs=0.001)
