"""MODEL and DATA have the same forms in every command: a model of the Hub, a dataset behind a URL."""

import json

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from medclip.data.paths import parse_path
from support.labels import split_rows, write_table
from support.material import draw_image, image_bytes

URL = "memory://bucket/data"


@pytest.fixture
def chest_clip(run, hub):
    """A Hub with one model, that of the run."""
    hub.add("someone/chest-clip", run / "model")


@pytest.fixture
def bucket(data, tmp_path, monkeypatch):
    """The prepared dataset behind URL."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(MemoryFileSystem, "store", {})
    monkeypatch.setattr(MemoryFileSystem, "pseudo_dirs", [""])
    for path in data.glob("*.*"):
        (parse_path(URL) / path.name).write_bytes(path.read_bytes())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["someone/chest-clip", "hf-hub:someone/chest-clip"])
@pytest.mark.parametrize(
    "words",
    [
        ("info", "{name}"),
        ("evaluate", "retrieval", "--model", "{name}", "--data", "{data}"),
        ("evaluate", "zero-shot", "--model", "{name}", "--data", "{labeled}"),
        ("explain", "--model", "{name}", "--image", "{image}", "--text", "chest", "--out", "{out}.png"),
        ("embed", "--model", "{name}", "--data", "{data}", "--out", "{out}"),
        ("index", "build", "--model", "{name}", "--data", "{data}", "--out", "{out}"),
        ("index", "add", "--index", "{index}", "--model", "{name}", "--data", "{data}"),
        ("search", "--index", "{index}", "--model", "{name}", "chest"),
    ],
    ids=lambda words: " ".join(word for word in words[:2] if word.isalpha()),
)
def test_a_model_of_the_hub_is_a_model_wherever_one_is_read(
    medclip, chest_clip, roco, data, index_folder, copy, tmp_path, words, name
):
    folders = {
        "name": name,
        "data": data,
        "labeled": write_table(tmp_path / "labeled", split_rows()),
        "image": roco.folder / "validation" / "radiology" / "images" / "ROCO_00007.jpg",
        "index": copy(index_folder),
        "out": tmp_path / "out",
    }
    code, out, err = medclip(*(word.format(**folders) for word in words))
    assert code == 0, err
    assert json.loads(out.splitlines()[0])


@pytest.mark.parametrize(
    "words",
    [
        ("info", "{url}"),
        ("stats", "{url}"),
        ("leakage", "{url}"),
        ("leakage", "{data}", "{url}"),
        ("evaluate", "retrieval", "--model", "{run}", "--data", "{url}"),
        ("embed", "--model", "{run}", "--data", "{url}", "--out", "{out}"),
        ("index", "build", "--model", "{run}", "--data", "{url}", "--out", "{out}"),
        ("index", "add", "--index", "{index}", "--model", "{run}", "--data", "{url}"),
    ],
    ids=lambda words: " ".join(word for word in words[:2] if word.isalpha()),
)
def test_a_dataset_behind_a_url_is_one_wherever_a_dataset_is_read(
    medclip, bucket, run, data, index_folder, copy, tmp_path, words
):
    def output(url):
        index = copy(index_folder) if "{index}" in words else None
        folders = {"url": url, "data": data, "run": run, "index": index, "out": tmp_path / "out"}
        code, out, err = medclip(*(word.format(**folders) for word in words))
        assert code == 0, err
        return json.loads(out)

    result = output(URL)
    for folder in ("out", "copy-index"):
        if (tmp_path / folder).exists():
            (tmp_path / folder).rename(tmp_path / f"{folder}-of-url")
    expected = output(data)
    assert {k: v for k, v in result.items() if k != "data"} == {k: v for k, v in expected.items() if k != "data"}


def test_a_dataset_behind_a_url_is_exported_as_the_one_in_the_folder(medclip, bucket, data, tmp_path):
    for source, name in ((URL, "of-url"), (data, "of-folder")):
        assert medclip("export", source, "--to", "parquet", "--out", tmp_path / name)[0] == 0
    files = sorted(path.relative_to(tmp_path / "of-folder") for path in (tmp_path / "of-folder" / "data").iterdir())
    assert files
    for file in files:
        assert (tmp_path / "of-url" / file).read_bytes() == (tmp_path / "of-folder" / file).read_bytes()


def test_the_page_of_a_dataset_behind_a_url_goes_where_it_is_told(medclip, bucket, tmp_path):
    code, _, err = medclip("stats", URL)
    assert (code, "report.html" in err) == (0, False)
    code, _, err = medclip("stats", URL, "--out", tmp_path / "page.html")
    assert (code, "page.html" in err) == (0, True)
    assert (tmp_path / "page.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_embeddings_alone_are_measured_row_by_row(medclip, run, data, tmp_path):
    assert medclip("embed", "--model", run, "--data", data, "--out", tmp_path / "e")[0] == 0
    files = (tmp_path / "e" / "images.npy", tmp_path / "e" / "texts.npy")
    code, out, err = medclip("evaluate", "retrieval", "--embeddings", *files)
    assert code == 0, err
    result = json.loads(out)
    assert result["num_candidates"] == 12
    code, out, _ = medclip("evaluate", "retrieval", "--embeddings", *files, "--data", data)
    expected = json.loads(out)
    for direction in ("image_to_text", "text_to_image"):
        for name, metric in result[direction].items():
            assert metric["value"] == expected[direction][name]["value"], (direction, name)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), "give either --model MODEL or --embeddings IMAGES.npy TEXTS.npy."),
        (("--model", "x"), "give --data DATA"),
        (("--embeddings", "a.npy", "b.npy", "--split", "test"), "--split and --max-samples choose pairs of --data"),
        (("--embeddings", "a.npy", "b.npy", "--model", "x"), "give either --model MODEL or --embeddings"),
        (("--embeddings", "a.npy", "b.npy"), "a.npy does not exist"),
    ],
)
def test_what_is_measured_is_said_once(medclip, words, expected):
    code, out, err = medclip("evaluate", "retrieval", *words)
    assert (code, out) == (2, "")
    assert expected in " ".join(err.split())


@pytest.mark.parametrize(
    "words",
    [
        ("--caption-column", "findings", "--caption-column", "impression"),
        ("--caption-column", "findings", "impression"),
        ("--caption-column=findings", "--dry-run", "--caption_column", "impression"),
    ],
)
def test_a_flag_of_several_words_may_be_repeated(medclip, tmp_path, words):
    (tmp_path / "x.png").write_bytes(image_bytes(draw_image(1)))
    (tmp_path / "x.csv").write_text("image,findings,impression\nx.png,clear lungs,no effusion\n")
    code, out, err = medclip("prepare", tmp_path / "x.csv", "--dry-run", *(w for w in words if w != "--dry-run"))
    assert code == 0, err
    assert [json.loads(line)["caption"] for line in out.splitlines()] == ["clear lungs no effusion"]


@pytest.mark.slow
def test_several_caption_columns_repeat_from_a_config(medclip, tmp_path):
    (tmp_path / "x.png").write_bytes(image_bytes(draw_image(1)))
    (tmp_path / "x.csv").write_text("image,findings,impression\nx.png,clear lungs,no effusion\n")
    words = ("--caption-column", "findings", "--caption-column", "impression")
    assert medclip("prepare", tmp_path / "x.csv", "--out", tmp_path / "a", *words)[0] == 0
    config = tmp_path / "a" / "prepare.toml"
    assert medclip("prepare", "--config", config, "--out", tmp_path / "b")[0] == 0
    shards = [next((tmp_path / name).glob("*.arrow")).read_bytes() for name in "ab"]
    assert shards[0] == shards[1]
