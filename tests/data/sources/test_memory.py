"""Pairs from memory: whatever holds them, the rows that a file with the same content gives."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from medclip.data.prepare_config import Columns, PrepareConfig
from medclip.data.schema import Dropped, Pair
from medclip.data.sources.detect import open_source, source_length
from medclip.errors import UserError
from support.material import draw_image, image_bytes

IMAGES = [image_bytes(draw_image(number), "PNG") for number in range(3)]
CAPTIONS = ["CT of the chest", "MRI of the left knee", "A normal radiograph"]
ROWS = [
    {"image": image, "caption": caption, "article": f"PMC{n}", "license": "CC BY", "labels": {"modality": "ct"}}
    for n, (image, caption) in enumerate(zip(IMAGES, CAPTIONS, strict=True))
]


def pairs(source, **config):
    rows = list(open_source(source, PrepareConfig(**config)))
    assert all(isinstance(row, Pair) for row in rows), rows
    return rows


class Frame:
    """As much of a polars DataFrame as is used."""

    def __init__(self, rows):
        self.rows = rows

    def iter_rows(self, named):
        assert named
        return iter(self.rows)

    def __iter__(self):
        raise AssertionError("the columns of a DataFrame are not its rows")

    def __len__(self):
        return len(self.rows)


class Stored:
    """As much of a `datasets.Image` as is used."""

    def __init__(self, decode=True):
        self.decode = decode


class HubDataset(Frame):
    """As much of a `datasets.Dataset` as is used: images are decoded unless they are cast."""

    def __init__(self, rows, features):
        super().__init__(rows)
        self.features = features

    iter_rows = property()

    def cast_column(self, name, feature):
        return HubDataset(self.rows, self.features | {name: feature})

    def __iter__(self):
        for row in self.rows:
            stored = {"bytes": row["image"], "path": None}
            yield row | {"image": Image.new("L", (1, 1)) if self.features["image"].decode else stored}


def pandas_frame(rows):
    return pytest.importorskip("pandas", reason="pandas is not installed").DataFrame(rows)


def polars_frame(rows):
    return pytest.importorskip("polars", reason="polars is not installed").DataFrame(rows)


def hub_dataset(rows):
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    return datasets.Dataset.from_list(rows).cast_column("image", datasets.Image())


KINDS = {
    "a list of dicts": list,
    "a generator of dicts": iter,
    "something like polars": Frame,
    "something like datasets": lambda rows: HubDataset(rows, {"image": Stored(), "caption": SimpleNamespace()}),
    "pandas": pandas_frame,
    "polars": polars_frame,
    "datasets": hub_dataset,
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_the_same_pairs(kind):
    rows = pairs(KINDS[kind](ROWS))
    assert [(row.image, row.caption, row.article, row.license) for row in rows] == [
        (row["image"], row["caption"], row["article"], row["license"]) for row in ROWS
    ]
    assert [dict(row.labels) for row in rows] == [{"modality": "ct"}] * 3
    assert [row.id for row in rows] == [row.id for row in pairs(ROWS)]
    assert [row.split for row in rows] == [row.split for row in pairs(ROWS)]


def test_images_may_be_pixels_pil_or_files(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(IMAGES[0])
    pixels = np.asarray(Image.open(path))
    rows = pairs([(path, "a path"), (str(path), "a string"), (pixels, "pixels"), (Image.open(path), "a PIL image")])
    assert [row.image for row in rows[:2]] == [path, path]
    for row in rows[2:]:
        (tmp_path / "y.png").write_bytes(row.image)
        assert np.array_equal(np.asarray(Image.open(tmp_path / "y.png")), pixels)


def test_ids_and_groups_come_from_the_content_whatever_the_order():
    source = list(zip(IMAGES, CAPTIONS, strict=True))
    forward, backward = pairs(source), pairs(reversed(source))
    assert [row.id for row in forward] == [row.id for row in backward[::-1]]
    assert len({row.id for row in forward}) == 3
    same, other = pairs([(IMAGES[0], "one caption"), (IMAGES[0], "another")])
    assert same.id != other.id and same.article == other.article and same.split == other.split


def test_a_list_of_captions_is_a_pair_each():
    one, other = pairs([{"image": IMAGES[0], "caption": ("one caption", "another")}])
    assert (one.caption, other.caption) == ("one caption", "another") and one.id != other.id


def test_columns_may_have_any_name():
    columns = Columns(image_column="scan", caption_column="findings", id_column="accession")
    (row,) = pairs([{"scan": IMAGES[0], "findings": "CT of the chest", "accession": 7}], columns=columns)
    assert (row.id, row.caption) == ("7", "CT of the chest")
    with pytest.raises(UserError, match="list: which column is the image"):
        pairs([{"scan": IMAGES[0], "findings": "CT of the chest"}])


def test_a_mapping_names_the_splits():
    rows = pairs({"train": [(IMAGES[0], "one")], "dev": iter([(IMAGES[1], "two")])})
    assert [(row.split, row.caption) for row in rows] == [("train", "one"), ("validation", "two")]


def test_pairs_stay_as_they_are():
    pair = Pair("1", IMAGES[0], "one", "test", "PMC1")
    assert pairs([pair]) == [pair]


def test_a_root_is_not_left(tmp_path):
    (tmp_path / "x.png").write_bytes(IMAGES[0])
    columns = Columns(image_root=str(tmp_path))
    first, second = open_source([("x.png", "inside"), ("../x.png", "outside")], PrepareConfig(columns=columns))
    assert isinstance(first, Pair) and first.image == tmp_path / "x.png"
    assert isinstance(second, Dropped) and "--image-root" in second.reason


def test_what_is_missing_or_wrong_is_counted():
    rows = [(None, "no image"), (IMAGES[0], None), (IMAGES[0], float("nan")), (np.zeros((4, 4)), "of floats")]
    reasons = [row.reason for row in open_source(rows)]
    assert reasons[:3] == ["row without image or caption"] * 3 and "image array of float64" in reasons[3]


def test_a_missing_value_of_pandas_is_missing():
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = pandas.DataFrame({"image": [IMAGES[0]] * 2, "caption": pandas.array(["one", None], dtype="string")})
    first, second = open_source(frame)
    assert isinstance(first, Pair) and first.caption == "one" and isinstance(second, Dropped)


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        (3, "int is not a source of pairs"),
        (b"x", "bytes is not a source of pairs"),
        ([(IMAGES[0], "one"), 3], "row 2 of the source is int"),
    ],
)
def test_what_is_not_a_source_is_one_sentence(source, sentence):
    with pytest.raises(UserError, match=sentence):
        list(open_source(source))


def test_the_length_is_known_where_the_value_has_one():
    assert source_length(ROWS) == source_length(Frame(ROWS)) == 3
    assert source_length(iter(ROWS)) is source_length({"train": ROWS}) is None
