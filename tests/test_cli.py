"""Whole commands: what they print, how they end, and what they refuse in one sentence."""

import dataclasses
import json
import re
import subprocess
import sys
from typing import get_args, get_type_hints

import numpy as np
import pytest

from evaluate.handmade import retrieval
from evaluate.labels import split_rows, write_table
from medclip import NOT_CLINICAL, __version__, cli, progress
from medclip.data.preparation import Preparation
from medclip.data.privacy import Studies
from medclip.data.sources.columns import Columns
from medclip.evaluate import metrics
from medclip.evaluate.labelled import Task
from medclip.evaluate.subject import Subject
from medclip.tables import parts
from medclip.train.recipe import Recipe
from pages import check


def commands(choices, *before):
    """The words of each command, and its class; `choices` is a union of subcommands."""
    for command, said in map(get_args, get_args(choices)):
        inner = get_type_hints(command, include_extras=True).get("measure")
        yield from commands(inner, *before, said.name) if inner else [((*before, said.name), command)]


COMMANDS = dict(commands(cli.Command))


@pytest.fixture
def medclip(monkeypatch, capsys):
    """Runs a command in this process: (exit code, standard output, standard error)."""
    monkeypatch.setenv("COLUMNS", "200")  # of the help
    for console in (progress.console, parts.screen):
        monkeypatch.setattr(console, "width", 200)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["medclip", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def in_new_process(*arguments):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)


def assert_one_sentence(said):
    code, out, err = said
    assert code == 2, err
    assert out == ""
    assert err.startswith("medclip: ")
    assert err.rstrip("\n").endswith(".")
    assert err.count("\n") == 1
    assert "Traceback" not in err


def flags(command):
    """The fields of a command, and of the settings whose fields are flags of the command itself."""
    inner = {
        "recipe": Recipe,
        "how": Preparation,
        "columns": Columns,
        "studies": Studies,
        "subject": Subject,
        "task": Task,
    }
    for field in dataclasses.fields(command):
        yield from flags(inner[field.name]) if field.name in inner else [field]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_names_and_explains_every_option(medclip, command):
    code, out, err = medclip(*command, "--help")
    assert (code, err) == (0, "")
    for field in flags(COMMANDS[command]):
        positional = "Positional" in str(field.type)
        said = {"repository": "OWNER/NAME", "what": "MODEL|DATA", "dirs": "DIR DIR …"}.get(
            field.name, field.name.upper()
        )
        assert (said if positional else f"--{field.name.replace('_', '-')}") in out, field.name
    assert " ".join(COMMANDS[command].__doc__.split())[:60] in " ".join(out.split())


def test_the_first_page_lists_the_commands_and_says_what_it_is_not(medclip):
    code, out, _ = medclip("--help")
    assert code == 0
    assert NOT_CLINICAL in " ".join(out.replace("│", " ").split())
    for command, *_ in COMMANDS:
        assert command in out


def test_no_command_at_all_is_a_mistake(medclip):
    assert medclip()[0] == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("prepare", "{tmp}", "--out", "{tmp}/new"), "cannot be read: it is neither a ROCO folder"),
        (("prepare", "{tmp}/absent", "--out", "{tmp}/new"), "cannot be read"),
        (("prepare", "{roco}"), "give the new folder with --out"),
        (("prepare", "{roco}", "--out", "{data}"), "already finished"),
        (("train", "--data", "{tmp}", "--out", "{tmp}/new", "--steps", "1"), "is not a prepared data set"),
        (
            ("train", "--data", "{data}", "--out", "{tmp}/new", "--steps", "1", "--batch", "999"),
            "--batch 999 is larger",
        ),
        (("train", "--data", "{data}", "--out", "{tmp}/new", "--steps", "0"), "--steps 0 is out of range: 1"),
        (("train", "--data", "{data}", "--out", "{tmp}/new", "--batch", "1"), "--batch 1 is out of range: 2"),
        (
            ("train", "--data", "{data}", "--out", "{tmp}/new", "--steps", "1", "--batch", "8", "--resume"),
            "is not a run to resume",
        ),
        (("evaluate", "retrieval", "--model", "{tmp}/absent", "--data", "{data}"), "is no model folder"),
        (("evaluate", "retrieval", "--model", "{run}", "--data", "{data}", "--split", "test"), "has no split 'test'"),
        (("evaluate", "retrieval", "--data", "{data}"), "give either --model MODEL or --vectors"),
        (("evaluate", "retrieval", "--data", "{data}", "--model", "{run}", "--pool", "1"), "must be at least 2"),
        (
            ("evaluate", "retrieval", "--data", "{data}", "--vectors", "{tmp}/x.npy", "{tmp}/y.npy"),
            "x.npy does not exist",
        ),
        (("evaluate", "zero-shot", "--model", "{run}", "--data", "{tmp}/absent"), "is no folder; give a prepared"),
        (("evaluate", "zero-shot", "--model", "{run}", "--data", "{data}"), "shows one class only"),
        (("evaluate", "probe", "--model", "{run}", "--data", "{data}", "--seeds", "1"), "--seeds must be at least 2"),
        (("index", "--model", "{tmp}", "--data", "{data}", "--out", "{tmp}/new"), "is no model folder"),
        (("index", "--model", "{run}", "--data", "{data}", "--out", "{index}"), "already finished"),
        (("search", "--index", "{tmp}", "words"), "is not an index"),
        (("search", "--index", "{index}"), "give either a query"),
        (("search", "--index", "{index}", "words", "--image", "x.jpg"), "give either a query"),
        (("search", "--index", "{index}", "--image", "{tmp}/absent.jpg"), "image missing"),
        (("search", "--index", "{index}", " "), "the query is empty"),
        (("search", "--index", "{index}", "words", "-k", "0"), "--k must be at least 1"),
        (("search", "--index", "{index}", "words", "--model", "{tmp}"), "is no model folder"),
        (
            ("explain", "--model", "{run}", "--image", "{tmp}/absent.jpg", "--text", "a", "--out", "{tmp}/a.png"),
            "absent.jpg: image missing",
        ),
        (("explain", "--model", "{run}", "--image", "{tmp}/a", "--text", " ", "--out", "{tmp}/a.png"), "text is empty"),
        (("explain", "--model", "{run}", "--image", "{tmp}/a", "--text", "a", "--out", "{tmp}/a.jpg"), "is no .png"),
        (("app", "--index", "{tmp}"), "is not an index"),
        (("info", "{tmp}"), "is no model folder"),
        (("compare", "{tmp}"), "give two evaluations or more"),
        (("compare", "{tmp}", "{tmp}"), "holds no evaluation"),
        (("stats", "{tmp}"), "is not a prepared data set"),
        (("stats", "{tmp}/absent"), "is not a prepared data set"),
    ],
)
def test_a_mistake_ends_with_one_sentence(medclip, roco, data, run, index_folder, tmp_path, arguments, said):
    places = {"tmp": tmp_path, "roco": roco.folder, "data": data, "run": run, "index": index_folder}
    ended = medclip(*(argument.format(**places) for argument in arguments))
    assert_one_sentence(ended)
    assert said in ended[2]


@pytest.mark.parametrize(
    "arguments",
    [("prepare",), ("search", "--k", "many"), ("dance",), ("train", "--preset", "x"), ("quickstart", "--seed", "-1")],
)
def test_a_wrong_command_line_has_exit_code_two(medclip, arguments):
    code, out, err = medclip(*arguments)
    assert code == 2
    assert "Traceback" not in out + err


def test_failing_work_has_exit_code_one(medclip, roco, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("medclip.data.prepare._finish", full)
    code, _, err = medclip("prepare", roco.folder, "--out", tmp_path / "new", "--limit", 1)
    assert code == 1
    assert "No space left on device" in err
    assert "Traceback" not in err


def test_prepare_shows_each_reason_with_its_count(medclip, roco, tmp_path):
    code, out, _ = medclip("prepare", roco.folder, "--out", tmp_path / "new")
    assert code == 0
    for reason in roco.dropped["train"]:
        assert reason in out
    assert "dropped.jsonl" in out


def test_a_prepared_data_set_has_its_page_at_once(medclip, roco, tmp_path):
    code, _, err = medclip("prepare", roco.folder, "--out", tmp_path / "new", "--limit", 3)
    assert (code, "report.html" in err) == (0, True)
    assert NOT_CLINICAL in (tmp_path / "new" / "report.html").read_text(encoding="utf-8")


def test_piped_statistics_are_json(medclip, roco, data):
    code, out, err = medclip("stats", data)
    assert (code, err) == (0, "")
    said = json.loads(out)
    assert {name: split["dropped"] for name, split in said["splits"].items()} == roco.dropped
    assert [set(one) for one in said["advice"]] == [{"what", "remedy", "places"}] * len(said["advice"])


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
    code, out, _ = medclip("compare", *evaluations, "--figure", "R@10", "--out", tmp_path / "page.html")
    assert code == 0
    assert re.search(r"image_to_text / R@10 .* worse", out)
    assert "Holm" in out
    assert "Differences" in check((tmp_path / "page.html").read_text(encoding="utf-8")).text


@pytest.mark.parametrize(
    ("order", "below", "code"), [(1, "0.01", 1), (1, "0.9", 0), (-1, "0", 0), (1, "-1", 2), (1, "1", 2)]
)
def test_a_fall_is_exit_code_one(medclip, evaluations, order, below, code):
    ended, out, err = medclip("compare", *evaluations[::order], "--fail-below", below)
    assert ended == code, err
    if code == 1:
        assert json.loads(out)["fallen"]
        assert re.match(r"medclip: image_to_text / R@10 of bad is .*%", err)
        assert "Traceback" not in err


def test_comparing_needs_no_jax(evaluations):
    program = (
        "import sys, medclip.cli; sys.argv[1:1] = ['compare']; medclip.cli.main(); assert 'jax' not in sys.modules"
    )
    done = in_new_process("-c", program, *evaluations)
    assert done.returncode == 0, done.stderr


def test_evaluate_zero_shot_shows_figures_and_writes_a_page(medclip, run, tmp_path):
    folder = write_table(tmp_path / "set", split_rows())
    code, out, _ = medclip("evaluate", "zero-shot", "--model", run, "--data", folder, "--out", tmp_path / "out")
    assert code == 0
    said = json.loads((tmp_path / "out" / "zero_shot.json").read_text())
    for words in (NOT_CLINICAL, "set, test, label: 8 pictures", "50.0%", f"{said['auroc']['value']:.1%} ("):
        assert words in out
    assert (tmp_path / "out" / "report.html").is_file()


def test_a_piped_search_prints_json_lines_best_first(medclip, index_folder):
    code, out, err = medclip("search", "--index", index_folder, "left chest", "-k", 4)
    assert (code, err) == (0, "")
    hits = [json.loads(line) for line in out.splitlines()]
    assert len(hits) == 4
    assert all(set(hit) == {"id", "score", "caption", "article", "licence"} for hit in hits)
    assert [hit["score"] for hit in hits] == sorted((hit["score"] for hit in hits), reverse=True)


def test_a_search_by_picture_finds_that_picture(medclip, roco, index_folder):
    picture = roco.folder / "validation" / "radiology" / "images" / "ROCO_00007.jpg"
    code, out, _ = medclip("search", "--index", index_folder, "--image", picture, "-k", 1)
    assert (code, json.loads(out)["id"]) == (0, "ROCO_00007")


def test_the_command_line_and_preparation_import_no_jax(roco, tmp_path):
    program = """
import sys
import medclip.cli
assert not {"jax", "matplotlib", "streamlit"} & set(sys.modules), "medclip.cli imports too much"
from pathlib import Path
from medclip.data.preparation import Preparation
from medclip.data.prepare import prepare
prepare(sys.argv[1], Path(sys.argv[2]), Preparation(limit=2), workers=1)
assert "jax" not in sys.modules, "prepare imports jax"
"""
    done = in_new_process("-c", program, roco.folder, tmp_path / "data")
    assert done.returncode == 0, done.stderr


def test_the_installed_command_ends_a_mistake_without_a_traceback(tmp_path):
    done = in_new_process("-m", "medclip.cli", "search", "--index", tmp_path, "words")
    assert_one_sentence((done.returncode, done.stdout, done.stderr))


@pytest.mark.slow
def test_the_whole_path_by_commands(medclip, roco, tmp_path):
    data, run, index = tmp_path / "data", tmp_path / "run", tmp_path / "index"
    for command in (
        ("prepare", roco.folder, "--out", data),
        ("train", "--data", data, "--out", run, "--preset", "tiny", "--steps", 1, "--batch", 8),
        ("index", "--model", run, "--data", data, "--out", index),
    ):
        code, _, err = medclip(*command)
        assert code == 0, err
    code, out, _ = medclip("search", "--index", index, "chest", "-k", 2)
    assert (code, len(out.splitlines())) == (0, 2)
    assert json.loads((data / "dataset.json").read_text())["medclip"] == __version__


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (["--init", "{run}", "--max-tokens", "48", "--side", "48"], "48"),
        (["--vision", "{run}", "--text", "{run}"], "32"),
    ],
)
def test_a_trained_model_is_trained_on(medclip, run, data, tmp_path, start, said):
    start = [word.format(run=run) for word in start]
    code, _, err = medclip(
        "train", "--data", data, "--out", tmp_path / "run", *start, "--steps", "1", "--batch", "4", "--limit", "8"
    )
    assert code == 0, err
    made = json.loads((tmp_path / "run/model/config.json").read_text())
    assert str(made["vision_config"]["image_size"]) == said
    assert (made["model_type"] == "clip") == ("--init" in start)
    assert str(tmp_path.parent) not in (tmp_path / "run/model/README.md").read_text()  # no home of anybody's
    assert json.loads((tmp_path / "run/config.json").read_text())["init"] == (str(run) if "--init" in start else None)


@pytest.mark.parametrize(
    "start", [["--vision", "x"], ["--text", "x"], ["--init", "x", "--preset", "tiny"], ["--init", "x", "--vision", "y"]]
)
def test_a_run_has_one_start(medclip, data, tmp_path, start):
    said = medclip("train", "--data", data, "--out", tmp_path / "run", *start)
    assert_one_sentence(said)
    assert "one of --preset, --init MODEL, or --vision MODEL with --text MODEL" in said[2]
