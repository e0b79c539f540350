"""The command line: its help, what it refuses in one sentence, its exit codes, and what it imports."""

import dataclasses
import importlib
import re
from importlib.metadata import version
from pathlib import Path
from typing import get_type_hints

import pytest

from medclip import NOT_CLINICAL, __version__
from medclip.cli.main import GROUPS, Family
from medclip.cli.parse import command_flags
from support.material import in_new_process

ROOT = Path(__file__).parents[2]


def leaves(commands, *before):
    """The words of each command, and its class."""
    for word, command in commands.items():
        if isinstance(command, Family):
            yield from leaves(command.commands, *before, word)
        else:
            module, _, name = command.target.partition(":")
            yield (*before, word), getattr(importlib.import_module(f"medclip.cli.{module}"), name)


WORDS = {word for group in GROUPS.values() for word in group}
COMMANDS = {words: kind for group in GROUPS.values() for words, kind in leaves(group)}


def assert_one_sentence(result):
    code, out, err = result
    assert code == 2, err
    assert out == ""
    assert err.startswith("medclip: ")
    assert err.rstrip("\n").endswith(".")
    assert err.count("\n") == 1
    assert "Traceback" not in err


def fields_of(command):
    """The fields of a command and of the settings inside it."""
    hints = get_type_hints(command)
    for field in dataclasses.fields(command):
        if dataclasses.is_dataclass(hints[field.name]):
            yield from fields_of(hints[field.name])
        else:
            yield field


def help_rows(page):
    """The rows of a help page: each begins with a flag and goes on to the next."""
    return [re.sub(r"[│\s]+", " ", row) for row in re.split(r"\n[│ ] (?=-)", page)]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_names_and_explains_every_option(medclip, command):
    code, out, err = medclip(*command, "--help")
    assert (code, err) == (0, "")
    for field in fields_of(COMMANDS[command]):
        if "Positional" not in str(field.type):
            flag = f"--{field.name.replace('_', '-')}"
            explained = [row for row in help_rows(out) if re.match(rf"(-\w \S+, )?{flag}[, ]", row)]
            assert len(explained) == 1 and len(re.findall("[a-z]{2,}", explained[0])) > 3, flag
    assert " ".join(COMMANDS[command].__doc__.split())[:60] in " ".join(out.split())
    assert "--config FILE.toml" in out
    assert "(default: )" not in out
    assert ("--json" in out) == ("--table" in out) == (command not in {("app",), ("mcp",), ("serve",)})


INTERNAL = re.compile(r"medclip\.\w|\bNone\b|dataclass|settled|said|told|picture|licence|understanding|curate|\w+\(\)")


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_names_no_internals(medclip, command):
    assert INTERNAL.findall(medclip(*command, "--help")[1]) == []


def test_the_first_page_lists_the_commands_in_groups_and_says_what_it_is_not(medclip):
    code, out, _ = medclip("--help")
    assert code == 0
    assert NOT_CLINICAL in " ".join(out.split())
    titles = [line for line in out.splitlines() if line in GROUPS]
    assert titles == list(GROUPS)
    for words in COMMANDS:
        assert len(re.findall(rf"^  {words[0]} +\S", out, re.MULTILINE)) == 1
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize("family", ["evaluate", "index"])
def test_the_page_of_a_family_lists_its_commands(medclip, family):
    code, out, _ = medclip(family, "--help")
    assert code == 0
    for words in COMMANDS:
        if words[0] == family:
            assert re.search(rf"^  {words[1]} +\S", out, re.MULTILINE)


def test_the_version_is_told(medclip):
    assert medclip("--version") == (0, f"medclip {__version__}\n", "")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["serch"], "Did you mean search?"),
        (["index", "bild"], "Did you mean build?"),
        (["evaluate", "retreival"], "Did you mean retrieval?"),
        (["evaluate", "compositionalty"], "Did you mean compositionality?"),
        (["train", "--batch", "8"], "Did you mean --batch-size?"),
        (["train", "--batch_sice=8"], "Did you mean --batch-size?"),
        (["search", "--no-tabel"], "has no flag --no-tabel"),
        (["index"], "needs a command: build, add, delete, correct, snapshot, restore, purge, migrate"),
        (["search", "--json", "--table", "--index", "x", "chest"], "give --json or --table, not both"),
        (["juggle"], "has no command 'juggle'. See medclip --help."),
    ],
)
def test_a_mistyped_word_gets_a_suggestion(medclip, words, expected):
    result = medclip(*words)
    assert_one_sentence(result)
    assert expected in result[2]


@pytest.mark.skipif(
    f"\ntyro=={version('tyro')} " not in (ROOT / "requirements.lock").read_text(encoding="utf-8"),
    reason="the page is laid out by the tyro of requirements.lock",
)
def test_the_reference_page_is_what_the_commands_say():
    page = ROOT / "docs" / "cli.md"
    done = in_new_process("-m", "medclip.cli.reference")
    assert done.returncode == 0, done.stderr
    assert done.stdout == page.read_text(encoding="utf-8"), "python -m medclip.cli.reference > docs/cli.md"


PAGES = [
    path
    for pattern in (
        "README.md",
        "docs/*.md",
        "recipes/*.sh",
        "compose.yaml",
        "deploy/*",
        ".ci/run",
        "Dockerfile",
        "Makefile",
    )
    for path in sorted(ROOT.glob(pattern))
    if path.is_file() and path.name not in {"log.md", "decisions.md"}  # of other days, of other names
]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_commands_on_our_pages_exist_with_their_flags(page):
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for line in re.findall(r"(?:^ *|`|bin/|exec |serve )medclip ([a-z][^`#\n]*)", text, re.MULTILINE):
        words = line.split()
        names = [tuple(words[:n]) for n in (1, 2) if tuple(words[:n]) in COMMANDS]
        if not names:  # a family, or a command in prose
            assert words[0] in WORDS, line
            continue
        options = {option for flag in command_flags(COMMANDS[names[0]]).values() for option in flag.options}
        flags = {word.partition("=")[0].strip("[].,)") for word in words if word.startswith("--")}
        assert flags - {"--help"} <= options, line


def test_no_command_at_all_is_a_mistake(medclip):
    assert medclip()[0] == 2


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("prepare", "{run}/model/model.safetensors", "--out", "{tmp}/new"), "cannot be read. Sources are: a ROCO"),
        (("prepare", "{tmp}/absent", "--out", "{tmp}/new"), "cannot be read"),
        (("prepare", "{roco}"), "give the new folder with --out"),
        (
            ("prepare", "phantoms:x", "--out", "{tmp}/new"),
            "phantoms:x: write phantoms:COUNT",
        ),  # :x: is an emoji to rich
        (("prepare", "{roco}", "--out", "{data}"), "already finished"),
        (("train", "--data", "{tmp}", "--out", "{tmp}/new", "--steps", "1"), "is not a prepared dataset"),
        (
            ("train", "--data", "{data}", "--out", "{tmp}/new", "--steps", "1", "--batch-size", "999"),
            "--batch-size 999 is larger",
        ),
        (
            ("train", "--data", "{run}/metrics.jsonl", "--out", "{tmp}/new"),
            "(medclip prepare SOURCE --out DATA makes one): it is a file",
        ),
        (("train", "--data", "{data}", "--out", "{tmp}/new", "--steps", "0"), "--steps 0 is out of range: 1"),
        (("train", "--data", "{data}", "--out", "{tmp}/new", "--batch-size", "1"), "--batch-size 1 is out of range: 2"),
        (
            ("train", "--data", "{data}", "--out", "{tmp}/new", "--steps", "1", "--batch-size", "8", "--resume"),
            "is not a run to resume",
        ),
        (
            ("evaluate", "retrieval", "--model", "{tmp}/absent", "--data", "{data}"),
            "absent does not exist. A model is a folder, a run",
        ),
        (("evaluate", "retrieval", "--model", "{run}", "--data", "{data}", "--split", "test"), "has no split 'test'"),
        (("evaluate", "retrieval", "--data", "{data}"), "give either --model MODEL or --embeddings"),
        (
            ("evaluate", "retrieval", "--data", "{data}", "--model", "{run}", "--num-candidates", "1"),
            "must be at least 2",
        ),
        (
            ("evaluate", "retrieval", "--data", "{data}", "--embeddings", "{tmp}/x.npy", "{tmp}/y.npy"),
            "x.npy does not exist",
        ),
        (("evaluate", "zero-shot", "--model", "{run}", "--data", "{tmp}/absent"), "is not a folder; give a prepared"),
        (("evaluate", "zero-shot", "--model", "{run}", "--data", "{data}"), "shows one class only"),
        (
            ("evaluate", "probe", "--model", "{run}", "--data", "{data}", "--num-draws", "1"),
            "--num-draws must be at least 2",
        ),
        (("index", "build", "--model", "{tmp}", "--data", "{data}", "--out", "{tmp}/new"), "is not a model folder"),
        (("index", "build", "--model", "{run}", "--data", "{data}", "--out", "{index}"), "already finished"),
        (("search", "--index", "{tmp}", "words"), "is not an index"),
        (("search", "--index", "{run}", "words"), "it has no index.json. It is a run, as --model takes."),
        (("train", "--data", "{index}", "--out", "{tmp}/new"), "It is an index, as --index takes."),
        (("stats", "{run}/model"), "It is a model folder, as --model takes."),
        (("explain", "--model", "{data}", "--image", "a", "--text", "a", "--out", "{tmp}/a.png"), "as --data takes."),
        (("compare", "{run}", "{data}"), "holds no evaluation; medclip evaluate --out writes one. It is a run"),
        (("prepare", "{data}", "--out", "{tmp}/new"), "is no source: it is a prepared dataset, as --data takes."),
        (("prepare", "{index}", "--out", "{tmp}/new"), "is no source: it is an index, as --index takes."),
        (("search", "words"), "medclip search needs --index INDEX. See medclip search --help."),
        (("prepare", "--out", "{tmp}/new"), "medclip prepare needs SOURCE."),
        (("prepare", "{roco}", "{tmp}/new"), "say it by a flag, as --out OUT."),
        (("info", "{data}", "{run}"), "medclip info does not know what"),
        (("push", "{run}"), "medclip push needs OWNER/NAME."),
        (("train", "{data}", "{tmp}/new"), "say it by a flag, as --data DATA, --out OUT."),
        (("evaluate", "retrieval", "--embeddings", "a", "b", "{data}"), "say it by a flag, as --model MODEL."),
        (("prepare", "phantoms:1", "--out", "{index}"), "is there already: it is an index, as --index takes. Choose"),
        (("embed", "--model", "{run}", "--data", "{data}", "--out", "{run}"), "is there already: it is a run"),
        (
            ("train", "--data", "{data}", "--out", "{data}", "--steps", "1", "--batch-size", "8", "--preset", "tiny"),
            "is there already: it is a prepared dataset",
        ),
        (("evaluate", "retrieval", "--model", "{run}", "--data", "{data}", "--out", "{run}"), "already: it is a run"),
        (("leakage", "{data}", "--out", "{index}"), "is there already: it is an index, as --index takes. Choose"),
        (("stats", "{data}", "--out", "{data}/dataset.json"), "dataset.json is not a .html."),
        (("compare", "{tmp}", "{tmp}", "--out", "{run}/train_config.json"), "train_config.json is not a .html."),
        (("quickstart", "--out", "{data}"), "holds something else than this quickstart; choose another with --out."),
        (("version",), "Did you mean --version?"),
        (("help",), "Did you mean --help?"),
        (("search", "--index", "{index}"), "give a query"),
        (("search", "--index", "{index}", "words", "--filter", "modality"), "write KEY=VALUE"),
        (("search", "--index", "{index}", "words", "--filter", "color=red"), "no image of the index has 'color'"),
        (("embed", "--model", "{run}", "--data", "{tmp}", "--out", "{tmp}/new"), "is not a prepared dataset"),
        (
            ("index", "build", "--model", "{run}", "--data", "{data}", "--out", "{tmp}/new", "--vector-store", "x"),
            "choose exact",
        ),
        (("index", "add", "--index", "{tmp}", "--data", "{data}"), "is not an index"),
        (("index", "delete", "--index", "{index}"), "say what to delete"),
        (("index", "delete", "--index", "{index}", "--ids", "x"), "has no image of id 'x'"),
        (("index", "restore", "--index", "{index}", "x"), "has no snapshot 'x'; it has: none"),
        (("search", "--index", "{index}", "--image", "{tmp}/absent.jpg"), "image missing"),
        (("search", "--index", "{index}", " "), "the query is empty"),
        (("search", "--index", "{index}", "words", "-k", "0"), "the number of results must be at least 1"),
        (("search", "--index", "{index}", "words", "--model", "{tmp}"), "is not a model folder"),
        (
            ("explain", "--model", "{run}", "--image", "{tmp}/absent.jpg", "--text", "a", "--out", "{tmp}/a.png"),
            "absent.jpg: image missing",
        ),
        (("explain", "--model", "{run}", "--image", "{tmp}/a", "--text", " ", "--out", "{tmp}/a.png"), "text is empty"),
        (("explain", "--model", "{run}", "--image", "{tmp}/a", "--text", "a", "--out", "{tmp}/a.jpg"), "is not a .png"),
        (("app", "--index", "{tmp}"), "is not an index"),
        (("info", "{tmp}"), "is not a model folder"),
        (("compare", "{tmp}"), "give two evaluations or more"),
        (("compare", "{tmp}", "{tmp}"), "holds no evaluation"),
        (("stats", "{tmp}"), "is not a prepared dataset"),
        (("stats", "{tmp}/absent"), "is not a prepared dataset"),
    ],
)
def test_a_mistake_ends_with_one_sentence(medclip, roco, data, run, index_folder, tmp_path, arguments, expected):
    places = {"tmp": tmp_path, "roco": roco.folder, "data": data, "run": run, "index": index_folder}
    ended = medclip(*(argument.format(**places) for argument in arguments))
    assert_one_sentence(ended)
    assert expected in ended[2]


@pytest.mark.parametrize(
    "arguments",
    [("prepare",), ("search", "--k", "many"), ("juggle",), ("train", "--preset", "x"), ("quickstart", "--seed", "-1")],
)
def test_a_wrong_command_line_has_exit_code_two(medclip, arguments):
    code, out, err = medclip(*arguments)
    assert code == 2
    assert "Traceback" not in out + err


def test_failing_work_has_exit_code_one(medclip, roco, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    code, _, err = medclip("prepare", roco.folder, "--out", tmp_path / "new", "--max-samples", 1)
    assert code == 1
    assert "No space left on device" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("words", "absent"),
    [
        (["--help"], ["tyro", "rich", "numpy", "jax"]),
        (["evaluate", "--help"], ["tyro", "rich", "numpy", "jax"]),
        (["prepare", "--help"], ["jax", "matplotlib"]),
        (["search", "--help"], ["jax", "pyarrow", "matplotlib"]),
        (["app", "--help"], ["jax", "streamlit"]),
    ],
)
def test_help_imports_little(words, absent):
    program = f"""
import sys
from medclip.cli.main import run
try:
    run({words})
except SystemExit:
    pass
assert not set({absent}) & set(sys.modules), set({absent}) & set(sys.modules)
"""
    done = in_new_process("-c", program)
    assert done.returncode == 0, done.stderr


def test_preparation_imports_no_jax(roco, tmp_path):
    program = """
import sys
from pathlib import Path
from medclip.data.prepare_config import PrepareConfig
from medclip.data.prepare import prepare
prepare(sys.argv[1], Path(sys.argv[2]), PrepareConfig(max_samples=2), num_workers=1)
assert "jax" not in sys.modules, "prepare imports jax"
"""
    done = in_new_process("-c", program, roco.folder, tmp_path / "data")
    assert done.returncode == 0, done.stderr


def test_the_installed_command_ends_a_mistake_without_a_traceback(tmp_path):
    done = in_new_process("-m", "medclip.cli.main", "search", "--index", tmp_path, "words")
    assert_one_sentence((done.returncode, done.stdout, done.stderr))


@pytest.mark.slow
@pytest.mark.parametrize("platform", ["cuda", "rocm"])  # JAX raises two kinds of error
def test_a_platform_that_jax_cannot_open_is_named(run, data, tmp_path, monkeypatch, platform):
    monkeypatch.setenv("JAX_PLATFORMS", platform)
    words = ["embed", "--model", run, "--data", data, "--out", tmp_path / "new"]
    done = in_new_process("-m", "medclip.cli.main", *words)
    assert_one_sentence((done.returncode, done.stdout, done.stderr))
    assert f"JAX_PLATFORMS is '{platform}'" in done.stderr and "jax[cuda13]" in done.stderr


@pytest.mark.parametrize(
    "start",
    [
        ["--vision-model", "x"],
        ["--text-model", "x"],
        ["--init", "x", "--preset", "tiny"],
        ["--init", "x", "--vision-model", "y"],
    ],
)
def test_a_run_has_one_start(medclip, data, tmp_path, start):
    result = medclip("train", "--data", data, "--out", tmp_path / "run", *start)
    assert_one_sentence(result)
    assert "one of --preset, --init MODEL, or --vision-model MODEL with --text-model MODEL" in result[2]
