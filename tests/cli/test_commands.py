"""Whole commands: what they print and leave behind."""

import json
import re
import shutil
import sys

import numpy as np
import pytest

from medclip import NOT_CLINICAL, __version__, metrics
from medclip.cli.format import screen
from medclip.search.match import to_percent
from support.handmade_results import retrieval
from support.labels import split_rows, write_table
from support.material import in_new_process
from support.pages import check


@pytest.mark.slow
def test_prepare_shows_each_reason_with_its_count(medclip, roco, tmp_path):
    code, out, _ = medclip("prepare", roco.folder, "--out", tmp_path / "new", "--table")
    assert code == 0
    for reason in roco.dropped["train"]:
        assert reason in out
    assert "dropped.jsonl" in out


def test_a_prepared_dataset_has_its_page_at_once(medclip, roco, tmp_path):
    code, _, err = medclip("prepare", roco.folder, "--out", tmp_path / "new", "--max-samples", 3)
    assert (code, "report.html" in err) == (0, True)
    assert NOT_CLINICAL in (tmp_path / "new" / "report.html").read_text(encoding="utf-8")


def test_piped_statistics_are_json(medclip, roco, data):
    code, out, _ = medclip("stats", data)
    assert code == 0
    result = json.loads(out)
    assert {name: split["dropped"] for name, split in result["splits"].items()} == roco.dropped
    assert result["warnings"]
    assert all(set(warning) == {"message", "remedy", "occurrences"} for warning in result["warnings"])


def test_statistics_on_a_terminal_name_every_warning(medclip, data, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    code, out, _ = medclip("stats", data)
    assert code == 0
    assert "fewer than 200 pairs to measure on: validation 12." in " ".join(out.split())
    assert "CC BY 100%" in " ".join(out.split())


def test_a_dry_run_shows_the_first_rows_and_writes_nothing(medclip, roco, tmp_path):
    code, out, _ = medclip("prepare", roco.folder, "--dry-run", "--table", "--out", tmp_path / "new")
    assert code == 0
    assert roco.captions["train", "ROCO_00000"] in out
    assert not (tmp_path / "new").exists()


def test_a_dry_run_says_what_to_do_about_a_row_that_would_be_dropped(medclip, tmp_path):
    (tmp_path / "x.csv").write_text("image,caption\nelsewhere/1.png,CT of the chest\n")
    code, out, _ = medclip("prepare", tmp_path / "x.csv", "--dry-run", "--table")
    assert code == 0 and "image missing: Name the folder that the paths start from with --image-root" in out


def test_evaluate_shows_pool_intervals_and_chance(medclip, run, data, tmp_path):
    code, out, _ = medclip("evaluate", "retrieval", "--model", run, "--data", data, "--out", tmp_path, "--table")
    assert code == 0
    result = json.loads((tmp_path / "retrieval.json").read_text())
    assert "12 candidates" in out
    for k in metrics.KS:
        assert f"R@{k}" in out
        measured = result["text_to_image"][f"R@{k}"]
        assert measured["chance"] == pytest.approx(k / 12)
        assert f"{100 * k / 12:.1f}\u00a0%" in out
        low, high = (f"{100 * measured[end]:.1f}" for end in ("low", "high"))
        assert f"{100 * measured['value']:.1f}\u00a0% ({low}–{high})" in out
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


def test_a_piped_comparison_is_json(medclip, evaluations, monkeypatch):
    monkeypatch.setattr("medclip.progress._BRIEF_S", 0.0)
    code, out, err = medclip("compare", *evaluations)
    assert code == 0 and [json.loads(line)["progress"] for line in err.splitlines()] == ["compare"]
    verdicts = {row["metric"]: row["contrasts"][0]["verdict"] for row in json.loads(out)["metrics"] if row["contrasts"]}
    assert (verdicts["image_to_text/R@10"], verdicts["text_to_image/R@10"]) == ("worse", "within noise")


def test_a_comparison_on_a_terminal_is_a_table_and_writes_its_page(medclip, evaluations, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(screen, "width", 80)
    code, out, _ = medclip("compare", *evaluations, "--metric", "R@10", "--out", tmp_path / "page.html")
    assert code == 0
    assert re.search(r"image→text .* worse", out)
    assert "R@10" in out and not re.search(r"R@1\b", out)  # a name is not broken within its number
    assert "Holm" in out
    assert "Differences" in check((tmp_path / "page.html").read_text(encoding="utf-8")).text


@pytest.mark.slow
def test_brackets_in_names_of_folders_are_no_markup(medclip, evaluations, roco, tmp_path):
    new = tmp_path / "[new]"
    folders = [shutil.copytree(folder, new / f"[{folder.name}]") for folder in evaluations]
    code, out, err = medclip("compare", *folders, "--table", "--out", new / "page.html")
    assert code == 0
    assert "[good]" in out and "[bad]" in out and "\\" not in out
    assert str(new / "page.html") in err
    assert str(new / "data" / "report.html") in medclip("prepare", "phantoms:1", "--out", new / "data")[2]


@pytest.mark.parametrize(
    ("order", "below", "code"), [(1, "0.01", 1), (1, "0.9", 0), (-1, "0", 0), (1, "-1", 2), (1, "1", 2)]
)
def test_a_fall_is_exit_code_one(medclip, evaluations, order, below, code):
    ended, out, err = medclip("compare", *evaluations[::order], "--max-regression", below)
    assert ended == code, err
    if code == 1:
        assert json.loads(out)["regressions"]
        assert re.match(r"medclip: image_to_text/R@10 of bad is .*%", err)
        assert "Traceback" not in err


@pytest.mark.slow
def test_comparing_and_evaluating_embeddings_need_no_jax(evaluations, tmp_path):
    files = [tmp_path / "images.npy", tmp_path / "texts.npy"]
    for file in files:
        np.save(file, np.eye(4))
    program = (
        "import sys; from medclip.cli.main import run; run(['compare', *sys.argv[1:3]]); "
        "run(['evaluate', 'retrieval', '--embeddings', *sys.argv[3:]]); assert 'jax' not in sys.modules"
    )
    done = in_new_process("-c", program, *evaluations, *files)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_evaluate_zero_shot_shows_figures_and_writes_a_page(medclip, run, tmp_path):
    folder = write_table(tmp_path / "set", split_rows())
    code, out, _ = medclip(
        "evaluate", "zero-shot", "--model", run, "--data", folder, "--out", tmp_path / "out", "--table"
    )
    assert code == 0
    result = json.loads((tmp_path / "out" / "zero_shot.json").read_text())
    for words in (
        NOT_CLINICAL,
        "set, test: label: 8 images",
        "50.0\u00a0%",
        f"{100 * result['auroc']['value']:.1f}\u00a0% (",
    ):
        assert words in out
    assert (tmp_path / "out" / "report.html").is_file()


FIELDS = {"id", "score", "caption", "article", "license", "labels", "added", "duplicates"}
FIELDS |= {"probability_so_far", "no_match", "note"}


def test_a_piped_search_prints_json_lines_best_first(medclip, index_folder):
    code, out, err = medclip("search", "--index", index_folder, "left chest", "-k", 4)
    assert (code, err) == (0, "")
    hits = [json.loads(line) for line in out.splitlines()]
    assert len(hits) == 4
    assert all(set(hit) == FIELDS for hit in hits)
    assert [hit["score"] for hit in hits] == sorted((hit["score"] for hit in hits), reverse=True)


def test_a_search_says_how_likely_the_right_image_is_among_its_hits(medclip, index_folder, run, copy):
    _, out, _ = medclip("search", "--index", index_folder, "left chest", "-k", 12)
    hits = [json.loads(line) for line in out.splitlines()]
    so_far = [hit["probability_so_far"] for hit in hits]
    assert so_far == sorted(so_far) and 0 < so_far[0] < 1 == so_far[-1]
    assert {hit["no_match"] for hit in hits} == {None}
    _, out, _ = medclip("search", "--index", index_folder, "left chest", "-k", 12, "--table")
    assert f" {to_percent(so_far[0])} " in out and "right so far" in out
    assert hits[0]["note"] in out and "That is near chance" in out
    without = copy(run / "model")
    (without / "calibration.json").unlink()
    _, out, _ = medclip("search", "--index", index_folder, "--model", without, "left chest", "-k", 1)
    assert json.loads(out)["probability_so_far"] is None
    assert json.loads(out)["note"].startswith("No probability: the model has no calibration.json")
    _, out, _ = medclip("search", "--index", index_folder, "--model", without, "left chest", "--table")
    assert "No probability: the model has no calibration.json" in out and "its own validation" not in out


def test_a_search_by_image_finds_that_image(medclip, roco, index_folder):
    image = roco.folder / "validation" / "radiology" / "images" / "ROCO_00007.jpg"
    code, out, _ = medclip("search", "--index", index_folder, "--image", image, "-k", 1)
    assert (code, json.loads(out)["id"]) == (0, "ROCO_00007")


def test_words_after_a_flag_are_the_query(medclip, roco, index_folder):
    image = roco.folder / "validation" / "radiology" / "images" / "ROCO_00007.jpg"
    words = ("--image", image, "--negative", "knee", "--filter", "license=cc by", "chest", "brain", "-k", 2)
    code, out, _ = medclip("search", "--index", index_folder, *words)
    assert code == 0
    assert [json.loads(line)["query"] for line in out.splitlines()] == ["chest", "chest", "brain", "brain"]


def test_an_index_is_changed_by_commands(medclip, index_folder, run, again, copy):
    folder = copy(index_folder)
    for words, expected in (
        (("add", "--data", again, "--split", "validation", "--model", run), {"added": 12, "already_present": 0}),
        (("snapshot", "full"), {"snapshot": "full", "images": 24}),
        (("delete", "--ids", "again-ROCO_00003", "ROCO_00004"), {"deleted": 2}),
        (("migrate", "exact"), {"vector_store": "exact", "images": 22}),
        (("restore", "full"), {"snapshot": "full", "images": 24}),
        (("delete", "--ids", "ROCO_00003"), {"deleted": 1}),
        (("purge",), {"erased": 1}),
    ):
        code, out, err = medclip("index", words[0], "--index", folder, *words[1:])
        assert code == 0, err
        assert json.loads(out) == {"index": str(folder), **expected}
    code, out, _ = medclip("search", "--index", folder, "--model", run, "chest", "-k", "30")
    assert len(out.splitlines()) == 12  # each image once, with its copy
    assert {len(json.loads(line)["duplicates"]) for line in out.splitlines()} == {0, 1}


def test_a_change_of_an_index_is_a_sentence_on_a_terminal(medclip, index_folder, copy):
    assert medclip("index", "snapshot", "first", "--index", copy(index_folder), "--table")[1] == (
        "snapshot first: 12 images\n"
    )


def test_nothing_found_is_exit_code_one(medclip, index_folder):
    code, out, err = medclip("search", "--index", index_folder, "chest", "--filter", "license=none")
    assert (code, out) == (1, "")
    assert "no image of index" in err and "meets license=none: license is CC" in err


def test_a_source_of_which_nothing_is_left_is_exit_code_one(medclip, tmp_path):
    (tmp_path / "pairs.csv").write_text("image,caption\nabsent.png,An absent image of the chest\n")
    code, _, err = medclip("prepare", tmp_path / "pairs.csv", "--out", tmp_path / "data")
    assert code == 1
    assert "no row" in err and "dropped.jsonl" in err


PRINTING = (
    ("stats", "{data}"),
    ("leakage", "{data}"),
    ("info", "{run}"),
    pytest.param(("evaluate", "retrieval", "--model", "{run}", "--data", "{data}"), marks=pytest.mark.slow),
    ("compare", "{good}", "{bad}"),
    ("search", "--index", "{index}", "chest"),
    ("embed", "--model", "{run}", "--data", "{data}", "--out", "{tmp}/embeddings"),
    ("index", "build", "--model", "{run}", "--data", "{data}", "--out", "{tmp}/index"),
)


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "piped"])
@pytest.mark.parametrize("words", PRINTING, ids=lambda words: "-".join(words[:2]).replace("-{", " {"))
def test_flags_force_json_and_tables(
    medclip, data, run, index_folder, evaluations, tmp_path, monkeypatch, words, terminal
):
    good, bad = evaluations
    folders = {"data": data, "run": run, "index": index_folder, "good": good, "bad": bad}
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal, raising=False)

    def output(flag):
        code, out, err = medclip(*(word.format(**folders, tmp=tmp_path / str(flag)) for word in words), *flag)
        assert code == 0, err
        return out

    assert all(isinstance(json.loads(line), dict) for line in output(["--json"]).splitlines())
    table = output(["--table"])
    with pytest.raises(json.JSONDecodeError):
        json.loads(table.splitlines()[0])
    by_default = output([])
    assert by_default.startswith("{") != terminal


@pytest.mark.slow
def test_the_whole_path_by_commands(medclip, roco, tmp_path):
    data, run, index = tmp_path / "data", tmp_path / "run", tmp_path / "index"
    for command in (
        ("prepare", roco.folder, "--out", data),
        ("train", "--data", data, "--out", run, "--preset", "tiny", "--steps", 1, "--batch-size", 8),
        ("index", "build", "--model", run, "--data", data, "--out", index),
    ):
        code, out, err = medclip(*command)
        assert code == 0, err
        assert isinstance(json.loads(out), dict)
    code, out, _ = medclip("search", "--index", index, "chest", "-k", 2)
    assert (code, len(out.splitlines())) == (0, 2)
    assert json.loads((data / "dataset.json").read_text())["medclip_version"] == __version__


@pytest.mark.slow
@pytest.mark.parametrize(
    ("start", "side"),
    [
        (["--init", "{run}", "--context-length", "48", "--image-size", "48"], "48"),
        (["--vision-model", "{run}", "--text-model", "{run}"], "32"),
    ],
)
def test_a_trained_model_is_trained_on(medclip, run, data, tmp_path, start, side):
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
    assert str(made["vision_config"]["image_size"]) == side
    assert (made["model_type"] == "clip") == ("--init" in start)
    assert str(tmp_path.parent) not in (tmp_path / "run/model/README.md").read_text()  # no home of anybody's
    settings = json.loads((tmp_path / "run/train_config.json").read_text())
    assert settings.get("init") == (str(run) if "--init" in start else None)
