"""The public functions: what a notebook has goes in, typed values come out, and files are as the commands make them."""

import ast
import doctest
import io
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import medclip
from medclip.cli.main import run as run_command
from medclip.errors import UserError
from support.material import draw_image, image_bytes


def pairs(count, start=0):
    organs, sides = ("chest", "abdomen", "brain", "knee", "pelvis"), ("left", "right", "upper")
    return [
        (draw_image(n), f"CT of the {sides[n % 3]} {organs[n % 5]}, image number {n}")
        for n in range(start, start + count)
    ]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Prepared from images and captions in memory."""
    out = tmp_path_factory.mktemp("api") / "data"
    return medclip.prepare({"train": pairs(20), "validation": pairs(8, 20)}, out, num_workers=1)


def test_every_public_name_is_there_for_programs_and_for_type_checkers():
    tree = ast.parse(Path(medclip.__file__).read_text())
    (typed,) = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    names = {node.names[0].asname for node in typed.body if isinstance(node, ast.ImportFrom)}
    assert {"load", "prepare", "train", "evaluate", "Index"} <= names <= set(dir(medclip))
    assert all(getattr(medclip, name).__doc__ for name in names)


def test_pairs_in_memory_become_a_dataset(dataset):
    assert dataset.num_pairs == {"train": 20, "validation": 8} and dataset.dropped == {"train": {}, "validation": {}}
    rows = dataset.split("validation")
    assert rows.column("caption") == [caption for _, caption in pairs(8, 20)]
    image = np.asarray(Image.open(io.BytesIO(rows.image(0))), np.int16)
    assert np.abs(image - np.asarray(draw_image(20), np.int16)).mean() < 3  # a JPEG of it


def test_what_was_prepared_before_is_opened(dataset, tmp_path):
    assert medclip.PreparedDataset.open(str(dataset.folder)) == dataset
    with pytest.raises(UserError, match="a prepared dataset"):
        medclip.PreparedDataset.open(tmp_path)


def test_what_is_dropped_is_counted(tmp_path):
    made = medclip.prepare(
        [(draw_image(0), "A caption that is long enough"), (b"no image", "Another caption")],
        tmp_path / "d",
        num_workers=1,
    )
    assert sum(made.num_pairs.values()) == 1
    assert [count for counts in made.dropped.values() for count in counts.items()] == [("image unreadable", 1)]


@pytest.mark.slow
def test_a_script_without_a_main_guard_prepares_in_several_processes(tmp_path):
    (tmp_path / "x.png").write_bytes(image_bytes(draw_image(0), "PNG"))
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, medclip\n"
        "pairs = [('x.png', f'CT of the chest, number {n}') for n in range(3)]\n"
        "print(medclip.prepare(pairs, 'data', num_workers=2).num_pairs)\n"
        "assert (__name__, __file__) == ('__main__', sys.argv[0])\n"
    )
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1 and sum(eval(done.stdout).values()) == 3


@pytest.mark.slow
@pytest.mark.parametrize("module", ["__init__", "dual_encoder", "search.index"])
def test_the_examples_of_the_docstrings_run(module, run, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, source in {"run": run, "data": data}.items():
        (tmp_path / name).symlink_to(source)
    for number, name in enumerate(("a.png", "b.png")):
        (tmp_path / name).write_bytes(image_bytes(draw_image(number), "PNG"))
    examples = doctest.DocTestFinder().find(import_module(f"medclip.{module}"), globs={"medclip": medclip})
    runner = doctest.DocTestRunner()
    for example in examples:
        runner.run(example)
    assert runner.tries and not runner.failures


@pytest.mark.slow
@pytest.mark.parametrize(
    "lines",
    [
        "medclip.train; import medclip.training.loop; medclip.evaluate; import medclip.evaluation.config",
        "import medclip.training.loop; import medclip.evaluation.config",
        "from medclip.training.loop import train as other; from medclip import train, evaluate",
    ],
)
def test_functions_stay_functions_whatever_is_imported_when(lines):
    program = (
        f"import medclip; {lines}; print(*[(f.__name__, f.__module__) for f in (medclip.train, medclip.evaluate)])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "('train', 'medclip.api') ('evaluate', 'medclip.api')\n", done.stderr


@pytest.fixture(scope="module")
def trained_run(dataset, tmp_path_factory, train_config):
    """A run of the dataset, and the calls of its callback."""
    calls = []
    out = tmp_path_factory.mktemp("api-run") / "run"
    return medclip.train(dataset, str(out), train_config, callbacks=[lambda *call: calls.append(call)]), calls


def test_a_run_is_a_value_and_a_path_to_its_model(trained_run):
    run, _ = trained_run
    assert 0 <= run.best["mean_recall"] <= 1 and run.wise_ft == ()
    assert run.load().folder == medclip.load(run).folder == run.folder / "model"


def test_a_callback_gets_every_line_of_the_log(trained_run):
    run, calls = trained_run
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert [{"step": step} | dict(metrics) for step, metrics in calls] == lines


def test_an_evaluation_gives_typed_results_and_writes_them_where_asked(trained_run, dataset, tmp_path):
    run, _ = trained_run
    results = medclip.evaluate(run.load(), dataset, out=tmp_path / "out")
    recall = results["image_to_text/R@1"]
    assert results.kind == "retrieval" and 0 <= recall.low <= recall.value <= recall.high <= 1
    assert {"retrieval.json", "retrieval.arrow", "report.html"} <= {path.name for path in (tmp_path / "out").iterdir()}
    assert medclip.evaluate(run, dataset)["image_to_text/R@1"] == recall


@pytest.mark.slow
def test_pairs_in_memory_are_evaluated_and_leave_nothing(trained_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run, _ = trained_run
    results = medclip.evaluate(run, {"validation": pairs(8, 20)})
    assert (
        results["image_to_text/R@1"] == medclip.evaluate(run, {"test": pairs(8, 20)}, split="test")["image_to_text/R@1"]
    )
    assert list(tmp_path.iterdir()) == []


def test_evaluations_are_compared_and_shown_in_a_notebook(trained_run, dataset, tmp_path):
    run, _ = trained_run
    results = medclip.evaluate(run, dataset, out=tmp_path / "before")
    comparison = medclip.compare(tmp_path / "before", str(tmp_path / "before"), metrics=["R@10"])
    assert {row.name for row in comparison.rows if row.contrasts} >= {"image_to_text/R@10", "text_to_image/R@10"}
    assert comparison.regressions(0) == []
    for value, heading in ((results, "Retrieval among"), (comparison, "retrieval: ")):
        assert len(repr(value)) < 400  # a line, not every metric
        table = value._repr_html_()
        assert heading in table and "R@10" in table and "not for clinical use" in table


def test_an_unknown_kind_is_one_sentence(trained_run, dataset):
    with pytest.raises(UserError, match="'recall' is not a kind of evaluation"):
        medclip.evaluate(trained_run[0], dataset, "recall")


@pytest.fixture
def brightness(tmp_path):
    """A folder of two classes of images."""
    for name, gray in (("dark", 20), ("bright", 230)):
        (tmp_path / "labeled" / name).mkdir(parents=True)
        for n in range(3):
            Image.new("L", (32, 32), gray + n).save(tmp_path / "labeled" / name / f"{n}.png")
    return tmp_path / "labeled"


def test_a_single_class_is_refused_where_a_list_is_meant(tmp_path):
    with pytest.raises(TypeError, match=r"single string|'classes'"):  # beartype may be the first to refuse
        medclip.evaluate(tmp_path, tmp_path, "zero-shot", classes="Edema")


@pytest.mark.slow
def test_draws_among_fewer_candidates_are_those_of_the_command(trained_run, dataset, tmp_path):
    run, _ = trained_run
    results = medclip.evaluate(run, dataset, num_candidates=4, num_draws=3)
    command = [
        "evaluate",
        "retrieval",
        "--model",
        str(run.folder),
        "--data",
        str(dataset.folder),
        "--num-candidates",
        "4",
    ]
    run_command([*command, "--num-draws", "3", "--out", str(tmp_path / "out")])
    written = json.loads((tmp_path / "out" / "retrieval.json").read_text())
    assert results.to_json().items() <= written.items() and results.below("fixed_pool")


@pytest.mark.slow
def test_zero_shot_by_a_protocol_is_that_of_the_command(trained_run, brightness, tmp_path):
    run, _ = trained_run
    results = medclip.evaluate(run, brightness, "zero-shot", protocol="chexzero")
    command = ["evaluate", "zero-shot", "--model", str(run.folder), "--data", str(brightness), "--protocol", "chexzero"]
    run_command([*command, "--out", str(tmp_path / "out")])
    written = json.loads((tmp_path / "out" / "zero_shot.json").read_text())
    assert written.keys() - results.to_json().keys() == {"checksum", "items_sha256"}  # of the files
    assert results.to_json().items() <= written.items()
    assert results.facts["protocol"] == "chexzero" and not results.below("protocols")
    beside = medclip.evaluate(run, brightness, "zero-shot")
    assert beside.facts["protocol"] == "own prompts" and len(beside.below("protocols")) == 5
    assert beside["protocols/chexzero/auroc"].value == results["auroc"].value


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        ("zero-shot", {"protocol": "clip"}, "'clip' is not a protocol; choose one of: all, chexzero, biomedclip"),
        ("probe", {"num_candidates": 4}, "num_candidates is of retrieval, not of probe"),
        ("retrieval", {"prompts": "x.toml"}, "prompts is of zero-shot, not of retrieval"),
        ("robustness", {"num_draws": 3}, "num_draws is of retrieval and probe, not of robustness"),
        ("probe", {"protocol": "gloria"}, "protocol is of zero-shot, not of probe"),
        ("retrieval", {"protocol": "gloria"}, "protocol is of zero-shot, not of retrieval"),
        ("retrieval", {"label": "modality"}, "label is of zero-shot and probe, not of retrieval"),
        ("robustness", {"classes": ["ct"]}, "classes is of zero-shot and probe, not of robustness"),
    ],
)
def test_an_argument_that_decides_nothing_is_refused(trained_run, brightness, kind, arguments, message):
    with pytest.raises(UserError, match=message):
        medclip.evaluate(trained_run[0], brightness, kind, **arguments)


def test_an_index_is_built_and_searched(trained_run, tmp_path):
    run, _ = trained_run
    index = medclip.Index.build(run, {"validation": pairs(8, 20)}, tmp_path / "index")
    assert len(index) == 8 and repr(index).count("\n") == 0
    hits = index.search(pairs(1, 20)[0][0], k=3)
    assert hits[0].caption == pairs(1, 20)[0][1] and hits[0].score > hits[1].score
    assert hits[0].caption in repr(hits) and len(repr(hits)) < 2000  # not the bytes of images
    assert [hit.id for hit in medclip.Index.open(tmp_path / "index").search("CT of the left chest")] == [
        hit.id for hit in index.search("CT of the left chest")
    ]


@pytest.mark.slow
def test_what_is_not_yet_prepared_is_prepared_beside_the_run(tmp_path, train_config):
    run = medclip.train({"train": pairs(12), "validation": pairs(4, 12)}, tmp_path / "run", train_config)
    assert (tmp_path / "run-data" / "dataset.json").is_file() and run.folder == tmp_path / "run"
    with pytest.raises(UserError, match="run-data is already prepared"):
        medclip.train(pairs(12), tmp_path / "run", train_config, resume=True)


@pytest.mark.slow
def test_the_quickstart_runs(tmp_path):
    example = Path(__file__).parents[1] / "examples" / "quickstart.py"
    done = subprocess.run([sys.executable, example, tmp_path / "out"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for words in ("{'train': 500, 'validation': 300}", "step 60: loss", "image_to_text/R@10 0.", "radiograph 0."):
        assert words in done.stdout
