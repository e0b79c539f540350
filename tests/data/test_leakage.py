"""Planted leaks are found, each in its way; what is not shared is not; the copy without them is clean."""

import csv
import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

from medclip.data.corrections import correct_data, pair_keys
from medclip.data.dataset import Split, read_dataset
from medclip.data.leakage import MATCH_KINDS, decontaminate, find_matches, leakage
from medclip.data.perceptual_hash import MAX_HASH_DISTANCE, THUMBNAIL_SIDE, Fingerprints, fingerprint, near_duplicates
from medclip.data.prepare import prepare
from medclip.data.prepare_config import PrepareConfig
from medclip.errors import UserError
from medclip.verify import verify
from support.handmade_datasets import dataset, row
from support.material import draw_image, image_bytes

SIZE = (256, 192)


def soft_image(number):
    """Blocks with soft edges, as anatomy has them."""
    return draw_image(number, SIZE).filter(ImageFilter.GaussianBlur(3))


ALTERED = {
    "compressed": lambda image: Image.open(io.BytesIO(image_bytes(image, quality=30))),
    "halved": lambda image: image.resize((SIZE[0] // 2, SIZE[1] // 2)),
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(2)),
    "brightened": lambda image: image.point(lambda level: int(255 * (level / 255) ** 0.7)),
}


def fingerprints_of(images):
    return Fingerprints(*(np.stack(part) for part in zip(*map(fingerprint, images), strict=True)))


def prepare_rows(folder, rows, name="pairs"):
    """A dataset of rows (image, caption, patient, split)."""
    for number, (image, *_) in enumerate(rows):
        image.save(folder / f"{name}-{number}.png")
    with (folder / f"{name}.csv").open("w", newline="") as handle:
        out = csv.writer(handle)
        out.writerow(["id", "image", "caption", "patient", "split"])
        out.writerows([f"{name}{i}", f"{name}-{i}.png", *row[1:]] for i, row in enumerate(rows))
    prepare(str(folder / f"{name}.csv"), folder / name, num_workers=1)
    return folder / name


@pytest.fixture
def leaky(tmp_path):
    """Twelve training pairs; validation shares an article, an image, an altered image and a caption with them."""
    training = [(soft_image(n), f"CT of the chest, number {n}", f"p{n}", "train") for n in range(12)]
    return prepare_rows(
        tmp_path,
        [
            *training,
            (soft_image(20), "Another view of the patient", "p3", "validation"),
            (soft_image(5), "The image once more", "q1", "validation"),
            (ALTERED["brightened"](soft_image(6)), "The image, brightened", "q2", "validation"),
            (soft_image(23), "ct of the CHEST,  number 7", "q3", "validation"),
            (soft_image(24), "Nothing in common at all", "q4", "validation"),
        ],
    )


def test_each_planted_leak_is_found_in_its_way(leaky):
    report = leakage(leaky)
    validation = report["held_out"]["validation"]
    assert {(row["id"], row["train_id"], row["kind"]) for row in validation["rows"]} == {
        ("pairs12", "pairs3", "article"),
        ("pairs13", "pairs5", "same image"),
        ("pairs14", "pairs6", "near image"),
        ("pairs15", "pairs7", "caption"),
    }
    assert validation["shared"] == dict.fromkeys(MATCH_KINDS, 1)
    assert (report["train"], validation["pairs"], validation["any"]) == (12, 5, 4)


def test_the_copy_without_leaks_is_clean_and_otherwise_the_same(leaky, tmp_path):
    removed = decontaminate(leaky, tmp_path / "clean")
    assert verify(tmp_path / "clean").findings == ()
    assert removed == dict.fromkeys(MATCH_KINDS, 1)
    assert leakage(tmp_path / "clean")["held_out"]["validation"]["any"] == 0
    expected = [
        row for row in Split(leaky, "train").table.to_pylist() if row["id"] not in {f"pairs{n}" for n in (3, 5, 6, 7)}
    ]
    assert Split(tmp_path / "clean", "train").table.to_pylist() == expected
    assert Split(tmp_path / "clean", "validation").table.to_pylist() == Split(leaky, "validation").table.to_pylist()
    assert read_dataset(tmp_path / "clean")["leakage_removed"] == removed


def test_a_split_that_lost_every_row_is_passed_over_and_stays_empty(tmp_path):
    rows = [
        *((soft_image(n), f"CT of the chest, number {n}", f"p{n}", "train") for n in range(2)),
        (soft_image(2), "Nothing in common at all", "q", "validation"),
        (soft_image(3), "CT", "r", "test"),  # too short a caption
    ]
    data = prepare_rows(tmp_path, rows)
    assert list(leakage(data)["held_out"]) == ["validation"]
    assert decontaminate(data, tmp_path / "clean") == {}
    first, _ = pair_keys(Split(data, "train").table)
    assert correct_data(data, tmp_path / "corrected", {first: None}) == {"deleted": 1, "relabeled": 0, "absent": 0}
    for name, pairs in (("clean", 2), ("corrected", 1)):
        splits = {split: entry["pairs"] for split, entry in read_dataset(tmp_path / name)["splits"].items()}
        assert splits == {"train": pairs, "validation": 1, "test": 0}
        assert verify(tmp_path / name).findings == ()


def test_another_dataset_is_compared_with_all_of_its_splits(leaky, tmp_path):
    rows = [
        (soft_image(5), "From another collection", "z1", "test"),
        (soft_image(30), "Also from there", "z2", "train"),
    ]
    other = prepare_rows(tmp_path, rows, "other")
    report = leakage(leaky, other)
    assert {name: validation["any"] for name, validation in report["held_out"].items()} == {"test": 1, "train": 0}
    assert decontaminate(leaky, tmp_path / "clean", other) == {"same image": 1}


@pytest.mark.parametrize("alteration", ALTERED)
def test_altered_copies_are_near_and_others_are_not(alteration):
    originals = [image_bytes(soft_image(number)) for number in range(20)]
    copies = [image_bytes(ALTERED[alteration](soft_image(number))) for number in range(20)]
    matches = {(i, j) for i, rows in near_duplicates(fingerprints_of(originals), fingerprints_of(copies)) for j in rows}
    assert matches == {(n, n) for n in range(20)}


def test_near_is_counted_in_bits():
    thumbnails = np.tile(np.arange(THUMBNAIL_SIDE**2) % 256, (2, 1)).astype(np.uint8)
    mine = Fingerprints(np.zeros((1, 4), np.uint64), thumbnails[:1])
    bits = np.array([[2**MAX_HASH_DISTANCE - 1, 0, 0, 0], [2**MAX_HASH_DISTANCE - 1, 1, 0, 0]], np.uint64)
    assert [(i, list(rows)) for i, rows in near_duplicates(mine, Fingerprints(bits, thumbnails))] == [(0, [0])]


def bits_of(*numbers):
    """A hash with these bits set."""
    bits = np.zeros(256, np.uint8)
    bits[list(numbers)] = 1
    return np.packbits(bits).view(np.uint64)


def test_a_large_collection_is_searched_as_exactly_as_a_small_one():
    """Beside every pair compared: copies at 24 and 25 random bits, bits spread so that few stay together, and an
    image that many rows show."""
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, (24_000, 4), np.uint64)
    hashes[10_000:12_000] = bits_of(*range(40))
    spread = [[i for i in range(26) if i % 13 != without] for without in range(13)]  # two of every 13 bits but one
    far = [rng.choice(256, count, replace=False) for count in (24, 25) for _ in range(20)]
    flips = [*spread, *far, range(24), range(25), range(7, 256, 11)]
    copied = np.arange(len(flips)) * 400
    queries = hashes[copied] ^ np.stack([bits_of(*flip) for flip in flips])
    thumbnails = rng.integers(0, 256, (3, 1024)).astype(np.uint8)
    shown = rng.integers(0, 3, len(hashes))
    matches = near_duplicates(Fingerprints(queries, thumbnails[shown[copied]]), Fingerprints(hashes, thumbnails[shown]))
    for query, rows in matches:
        different = np.bitwise_count(hashes ^ queries[query]).sum(axis=1, dtype=int)
        assert list(rows) == np.flatnonzero((different <= 24) & (shown == shown[copied[query]])).tolist()


@pytest.mark.parametrize("within", [False, True])
def test_near_images_of_repeated_images_are_as_if_each_row_were_compared(tmp_path, within):
    """The first row that shows the same by other bytes, before the row where both are one split."""
    versions = [[image_bytes(soft_image(n), quality=quality) for quality in (95, 60, 30)] for n in range(3)]
    rng = np.random.default_rng(0)
    drawn = {name: list(zip(*rng.integers(0, 3, (2, 30)).tolist(), strict=True)) for name in ("train", "validation")}
    splits = {
        name: [row(i, image=versions[n][version], caption=f"{name} {i}") for i, (n, version) in enumerate(rows)]
        for name, rows in drawn.items()
    }
    data = dataset(tmp_path / "data", splits)
    split = Split(data, "validation")
    other = split if within else Split(data, "train")
    expected = set()
    for i, (n, version) in enumerate(drawn["validation"]):
        others = drawn["validation"][:i] if within else drawn["train"]
        near = [j for j, (m, other_version) in enumerate(others) if m == n and other_version != version]
        expected |= {(i, near[0])} if near else set()
    assert {(m.row, m.other_row) for m in find_matches(split, other) if m.kind == "near image"} == expected


def test_empty_frames_are_alike_only_when_equal():
    frames = fingerprints_of([image_bytes(Image.new("L", (64, 64), level)) for level in (0, 90, 0)])
    assert [(i, list(rows)) for i, rows in near_duplicates(frames, frames, within=True)] == [(0, []), (1, []), (2, [0])]


def test_a_split_beside_itself_is_searched_for_repetitions(tmp_path):
    rows = [
        *((soft_image(n), f"CT of the chest {n}", f"p{n}", "train") for n in range(6)),
        (soft_image(2), "The same image once more", "p2", "train"),
        (ALTERED["blurred"](soft_image(4)), "The image, blurred", "p4", "train"),
        (soft_image(40), "ct of the CHEST  3", "p3", "train"),
        (soft_image(2), "The same for the third time", "p2", "train"),
    ]
    split = Split(prepare_rows(tmp_path, rows), "train")
    matches = {(s.row, s.other_row, s.kind) for s in find_matches(split, split)}
    assert matches == {(6, 2, "same image"), (9, 2, "same image"), (7, 4, "near image"), (8, 3, "caption")}


def test_a_single_split_has_nothing_to_leak_into(tmp_path):
    data = prepare_rows(tmp_path, [(soft_image(n), f"CT of the chest {n}", f"p{n}", "train") for n in range(2)])
    with pytest.raises(UserError, match="no split but train"):
        leakage(data)


@pytest.mark.slow
def test_rocos_own_splits_here_share_no_article(shared_folder, tmp_path):
    prepare(str(shared_folder / "roco"), tmp_path / "data", PrepareConfig(max_samples=300))
    validation = leakage(tmp_path / "data")["held_out"]["validation"]
    assert validation["shared"]["article"] == validation["shared"]["same image"] == 0


def test_a_copy_that_would_leave_nothing_to_train_on_is_not_written(tmp_path):
    rows = [(soft_image(n), f"CT of the chest, number {n}", "p", split) for n, split in enumerate(["train", "test"])]
    data = prepare_rows(tmp_path, rows)
    with pytest.raises(UserError, match=r"no pair of split 'train' of .*pairs would be left, so nothing is written"):
        decontaminate(data, tmp_path / "clean")
    assert not (tmp_path / "clean").exists()
