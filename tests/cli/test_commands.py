"""Whole commands: what they print and leave behind."""

import json
import re
import sys

import numpy as np
import pytest

from medclip import NOT_CLINICAL, __version__, metrics
from support.handmade_results import retrieval
from support.labels import split_rows, write_table
from support.material import in_new_process
from support.pages import check


def test_prepare_shows_each_reason_with_its_count(medclip, roco, tmp_path):
    code, out, _ = medclip("prepare", roco.folder, "--out", tmp_path / "new")
    assert code == 0
    for reason in roco.dropped["train"]:
        assert reason in out
    assert "dropped.jsonl" in out


def test_a_prepared_data_set_has_its_page_at_once(medclip, roco, tmp_path):
    code, _, err = medclip("prepare", roco.folder, "--out", tmp_path / "new", "--max-samples", 3)
    assert (code, "report.html" in err) == (0, True)
    assert NOT_CLINICAL in (tmp_path / "new" / "report.html").read_text(encoding="utf-8")


def test_piped_statistics_are_json(medclip, roco, data):
    code, out, err = medclip("stats", data)
    assert (code, err) == (0, "")
    said = json.loads(out)
    assert {name: split["dropped"] for name, split in said["splits"].items()} == roco.dropped
    assert [set(one) for one in said["advice"]] == [{"message", "remedy", "occurrences"}] * len(said["advice"])


def test_statistics_on_a_terminal_name_every_warning(medclip, data, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    code, out, _ = medclip("stats", data)
    assert code == 0
    assert "fewer than 200 pairs to measure on: validation 12." in " ".join(out.split())
    assert "CC BY 100%" in " ".join(out.split())


def test_a_dry_run_shows_the_first_rows_and_writes_nothing(medclip, roco, tmp_path):
    code, out, _ = medclip("prepare", roco.folder, "--dry-run", "--out", tmp_path / "new")
    assert code == 0
    assert roco.captions["train", "ROCO_00000"] in out
    assert not (tmp_path / "new").exists()


def test_evaluate_shows_pool_intervals_and_chance(medclip, run, data, tmp_path):
    code, out, _ = medclip("evaluate", "retrieval", "--model", run, "--data", data, "--out", tmp_path)
    assert code == 0
    said = json.loads((tmp_path / "results.json").read_text())
    assert "pool of 12" in out
    for k in metrics.KS:
        assert f"R@{k}" in out
        assert f"{k / 12:.1%}" in out  # chance
        measured = said["text_to_image"][f"R@{k}"]
        assert f"{measured['value']:.1%} ({measured['low']:.1%}–{measured['high']:.1%})" in out
    assert NOT_CLINICAL in out


def test_an_evaluation_has_its_page_of_all_measures(medclip, run, data, tmp_path):
    code, _, err = medclip("evaluate", "retrieval", "--model", run, "--data", data, "--out", tmp_path)
    assert (code, "report.html" in err) == (0, True)
    page = check((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert NOT_CLINICAL in page.text
    assert "Retrieval" in page.text


@pytest.fixture(scope="module")
def evaluations(tmp_path_factory):
    """A good model and a bad one, by hand."""
    ranks = np.random.default_rng(0).integers(1, 30, 100)
    folder = tmp_path_factory.mktemp("evaluations")
    return retrieval(folder / "good", ranks, ranks), retrieval(folder / "bad", ranks + 20, ranks)


def test_a_piped_comparison_is_json(medclip, evaluations):
    code, out, err = medclip("compare", *evaluations)
    assert (code, err) == (0, "")
    verdicts = {row["figure"]: row["against"][0]["verdict"] for row in json.loads(out)["figures"]}
    assert (verdicts["image_to_text / R@10"], verdicts["text_to_image / R@10"]) == ("worse", "within noise")


def test_a_comparison_on_a_terminal_is_a_table_and_writes_its_page(medclip, evaluations, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    code, out, _ = medclip("compare", *evaluations, "--metric", "R@10", "--out", tmp_path / "page.html")
    assert code == 0
    assert re.search(r"image_to_text / R@10 .* worse", out)
    assert "Holm" in out
    assert "Differences" in check((tmp_path / "page.html").read_text(encoding="utf-8")).text


@pytest.mark.parametrize(
    ("order", "below", "code"), [(1, "0.01", 1), (1, "0.9", 0), (-1, "0", 0), (1, "-1", 2), (1, "1", 2)]
)
def test_a_fall_is_exit_code_one(medclip, evaluations, order, below, code):
    ended, out, err = medclip("compare", *evaluations[::order], "--max-regression", below)
    assert ended == code, err
    if code == 1:
        assert json.loads(out)["fallen"]
        assert re.match(r"medclip: image_to_text / R@10 of bad is .*%", err)
        assert "Traceback" not in err


def test_comparing_needs_no_jax(evaluations):
    program = (
        "import sys; from medclip.cli.main import main; sys.argv[1:1] = ['compare']; main(); "
        "assert 'jax' not in sys.modules"
    )
    done = in_new_process("-c", program, *evaluations)
    assert done.returncode == 0, done.stderr


def test_evaluate_zero_shot_shows_figures_and_writes_a_page(medclip, run, tmp_path):
    folder = write_table(tmp_path / "set", split_rows())
    code, out, _ = medclip("evaluate", "zero-shot", "--model", run, "--data", folder, "--out", tmp_path / "out")
    assert code == 0
    said = json.loads((tmp_path / "out" / "zero_shot.json").read_text())
    for words in (NOT_CLINICAL, "set, test, label: 8 images", "50.0%", f"{said['auroc']['value']:.1%} ("):
        assert words in out
    assert (tmp_path / "out" / "report.html").is_file()


FIELDS = {"id", "score", "caption", "article", "license", "labels", "added", "copies"}


def test_a_piped_search_prints_json_lines_best_first(medclip, index_folder):
    code, out, err = medclip("search", "--index", index_folder, "left chest", "-k", 4)
    assert (code, err) == (0, "")
    hits = [json.loads(line) for line in out.splitlines()]
    assert len(hits) == 4
    assert all(set(hit) == FIELDS for hit in hits)
    assert [hit["score"] for hit in hits] == sorted((hit["score"] for hit in hits), reverse=True)


def test_a_search_by_picture_finds_that_picture(medclip, roco, index_folder):
    picture = roco.folder / "validation" / "radiology" / "images" / "ROCO_00007.jpg"
    code, out, _ = medclip("search", "--index", index_folder, "--image", picture, "-k", 1)
    assert (code, json.loads(out)["id"]) == (0, "ROCO_00007")


def test_words_after_a_flag_are_the_query(medclip, roco, index_folder):
    picture = roco.folder / "validation" / "radiology" / "images" / "ROCO_00007.jpg"
    words = ("--image", picture, "--negative", "knee", "--filter", "license=cc by", "chest", "brain", "-k", 2)
    code, out, _ = medclip("search", "--index", index_folder, *words)
    assert code == 0
    assert [json.loads(line)["query"] for line in out.splitlines()] == ["chest", "chest", "brain", "brain"]


def test_an_index_is_curated_by_commands(medclip, index_folder, run, again, copy):
    folder = copy(index_folder)
    for command, said in (
        (("add", "--data", again, "--split", "validation", "--model", run), "12 images added"),
        (("snapshot", "full"), "snapshot full: 24 images"),
        (("delete", "--ids", "again-ROCO_00003", "ROCO_00004"), "2 images deleted"),
        (("move", "exact"), "22 images of"),
        (("restore", "full"), "holds 24 images"),
        (("delete", "--ids", "ROCO_00003"), "1 images deleted"),
        (("purge",), "1 rows erased"),
    ):
        code, out, err = medclip("curate", command[0], "--index", folder, *command[1:])
        assert (code, out) == (0, ""), err
        assert said in err.replace("\n", " ")
    code, out, _ = medclip("search", "--index", folder, "--model", run, "chest", "-k", "30")
    assert len(out.splitlines()) == 12  # each image once, with its copy
    assert {len(json.loads(line)["copies"]) for line in out.splitlines()} == {0, 1}


@pytest.mark.slow
def test_the_whole_path_by_commands(medclip, roco, tmp_path):
    data, run, index = tmp_path / "data", tmp_path / "run", tmp_path / "index"
    for command in (
        ("prepare", roco.folder, "--out", data),
        ("train", "--data", data, "--out", run, "--preset", "tiny", "--steps", 1, "--batch-size", 8),
        ("index", "--model", run, "--data", data, "--out", index),
    ):
        code, _, err = medclip(*command)
        assert code == 0, err
    code, out, _ = medclip("search", "--index", index, "chest", "-k", 2)
    assert (code, len(out.splitlines())) == (0, 2)
    assert json.loads((data / "dataset.json").read_text())["medclip_version"] == __version__


@pytest.mark.slow
@pytest.mark.parametrize(
    ("start", "said"),
    [
        (["--init", "{run}", "--context-length", "48", "--image-size", "48"], "48"),
        (["--vision-model", "{run}", "--text-model", "{run}"], "32"),
    ],
)
def test_a_trained_model_is_trained_on(medclip, run, data, tmp_path, start, said):
    start = [word.format(run=run) for word in start]
    code, _, err = medclip(
        "train",
        "--data",
        data,
        "--out",
        tmp_path / "run",
        *start,
        "--steps",
        "1",
        "--batch-size",
        "4",
        "--max-samples",
        "8",
    )
    assert code == 0, err
    made = json.loads((tmp_path / "run/model/config.json").read_text())
    assert str(made["vision_config"]["image_size"]) == said
    assert (made["model_type"] == "clip") == ("--init" in start)
    assert str(tmp_path.parent) not in (tmp_path / "run/model/README.md").read_text()  # no home of anybody's
    assert json.loads((tmp_path / "run/config.json").read_text())["init"] == (str(run) if "--init" in start else None)
