"""The tables of results are what the files of runs and evaluations say, worked out here by hand; nothing is typed."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from huggingface_hub import ModelCard
from safetensors.numpy import save_file

from medclip.evaluation.results import Kind, Results, write_results
from medclip.model.checkpoint import model_hash
from support import handmade_results
from support.benchmarks import ROOT, load_benchmark

BENCHMARK = load_benchmark("results_table")
VALIDATION = "d" * 64
CONFIG = {
    "vision_model": "/home/somebody/towers/dinov2-small",
    "text_model": "sentence-transformers/all-MiniLM-L6-v2",
    "tokenizer": "",
    "context_length": 128,
    "steps": 91,
    "batch_size": 256,
    "micro_batch_size": 256,
    "lr": 1e-3,
    "vision_lr": 3e-4,
    "text_lr": 1e-3,
    "freeze": ["vision_model.encoder.layer.[0-7].*"],
    "fsdp": True,
    "weight_decay": 0.2,
    "max_samples": None,
    "software": [{"medclip": "0.2.0", "jax": "0.10.2"}],
    "data": {"train": "c" * 64, "validation": VALIDATION},
}


def make_root(folder):
    """A checkout that has no results yet."""
    (folder / "docs" / "results").mkdir(parents=True)
    (folder / "README.md").write_text(f"# x\n\n{BENCHMARK.START}\nold\n{BENCHMARK.END}\n\n## Tests\n")
    return folder


@pytest.fixture
def root(tmp_path):
    return make_root(tmp_path / "root")


def write(root, *arguments):
    """Run the script; what it stops with."""
    try:
        BENCHMARK.main([*map(str, arguments), "--root", str(root)])
    except SystemExit as stopped:
        return str(stopped)
    return ""


def make_run(folder, seed=0, **settings):
    """A run that has ended."""
    (folder / "model").mkdir(parents=True)
    (folder / "train_config.json").write_text(json.dumps(CONFIG | {"seed": seed} | settings))
    summary = {"best": {"step": 70 + seed}, "wise_ft": [], "medclip_version": "0.2.0", "commit": f"c0ffee{seed}"}
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "model" / "config.json").write_text("{}")
    (folder / "model" / "README.md").write_text("---\nlicense: mit\n---\n# toy\n\n## License\n\nNone.\n")
    save_file({"logit_scale": np.full(1, seed, np.float32)}, folder / "model" / "model.safetensors")
    return folder


def tell_command(folder, kind="retrieval", **settings):
    lines = {"model": "../runs/model", "data": "/home/somebody/roco", "out": "x", "split": "validation", "seed": 0}
    text = "".join(f"{name} = {json.dumps(value)}\n" for name, value in (lines | settings).items())
    (folder / f"evaluate-{kind}.toml").write_text(f"# medclip evaluate {kind}\n{text}")
    return folder


def make_retrieval(folder, run, ranks, articles, **origin):
    """An evaluation of a run: these ranks of images and, one later each, of captions."""
    folder.mkdir(parents=True)
    ranks = np.array(ranks)
    origin = {"data": "roco", "data_sha256": VALIDATION, "model": model_hash(run), "commit": "feedface"} | origin
    handmade_results.retrieval(folder, ranks, ranks + 1, articles=articles, **origin)
    return tell_command(folder)


def make_seeds(folder):
    """Two runs and their evaluations. R@10 of article a is 1 for both, of article b 1/2 for seed 0 and 0 for seed 1."""
    runs = [make_run(folder / f"run{seed}", seed) for seed in (0, 1)]
    ranks = [[1, 2, 3, 50], [2, 4, 20, 60]]
    articles = ["a", "a", "b", "b"]
    return [*runs, *(make_retrieval(folder / f"eval{s}", run, ranks[s], articles) for s, run in enumerate(runs))]


@pytest.fixture
def two_seeds(tmp_path):
    return make_seeds(tmp_path)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A checkout that holds the results of two seeds, and their runs."""
    root = make_root(tmp_path_factory.mktemp("toy") / "root")
    folders = make_seeds(root.parent)
    assert write(root, "toy", *folders) == ""
    return root, folders


def test_the_table_of_two_seeds_is_as_worked_out_by_hand(toy):
    root, _ = toy
    (evaluation,) = json.loads((root / "docs/results/toy.json").read_text())["evaluations"]
    metrics = {metric["name"]: metric for metric in evaluation["metrics"]}
    recall = metrics["image_to_text/R@10"]
    # Both articles have two pairs, so a resample is a twice, b twice or both. Mean over seeds: a 1, b (1/2 + 0) / 2.
    assert (recall["value"], recall["low"], recall["high"]) == (0.625, 0.25, 1.0)
    assert recall["by_seed"] == [0.75, 0.5] and recall["chance"] == 1.0
    rank = metrics["image_to_text/median_rank"]  # medians 2.5 and 12; of a 1.5 and 3, of b 26.5 and 40
    assert (rank["value"], rank["low"], rank["high"], rank["by_seed"]) == (7.25, 2.25, 33.25, [2.5, 12.0])
    page = (root / "docs/results.md").read_text()
    assert "| image→text · R@10 | 62.5\u00a0% (25.0–100.0) | 75.0\u00a0%, 50.0\u00a0% | 100.0\u00a0% |" in page
    assert "| image→text · median rank | 7.2 (2.2–33.2) | 2.5, 12 | – |" in page


def test_what_made_the_numbers_stands_beside_them(toy):
    root, _ = toy
    page = (root / "docs/results.md").read_text()
    assert (
        "medclip train --data DATA --out RUN --vision-model dinov2-small --text-model "
        "sentence-transformers/all-MiniLM-L6-v2 --context-length 128 --steps 91 --batch-size 256 --lr 0.001 "
        "--vision-lr 0.0003 --freeze 'vision_model.encoder.layer.[0-7].*' --fsdp --seed SEED\n"
    ) in page
    assert "medclip evaluate retrieval --model MODEL --data DATA --split validation --seed 0\n" in page
    assert "Seeds 0, 1; weights of step 70, 71." in page and "commit c0ffee0" in page and "commit feedface" in page
    assert "4 candidates" in page and f"`{VALIDATION[:12]}`" in page
    readme = (root / "README.md").read_text().splitlines()
    row = next(line for line in readme if line.startswith("| [toy]"))
    assert "roco validation <sup>1,2</sup> |" in row and "| 0, 1 |" in row
    assert "<br>image→text · R@10 62.5\u00a0% (25.0–100.0)<br>image→text · median rank 7.2 (2.2–33.2)<br>text→" in row
    assert (
        "<sup>1</sup> from ROCO's test part, re-split; not comparable with published ROCO figures; "
        "<sup>2</sup> this split also chose the weights"
    ) in readme
    everything = page + (root / "README.md").read_text() + (root / "docs/results/toy.json").read_text()
    assert "somebody" not in everything and "item 0" not in everything


def test_only_what_is_between_the_markers_changes_and_twice_gives_the_same(toy):
    root, folders = toy
    card = folders[1] / "model" / "README.md"
    files = [root / "README.md", root / "docs/results.md", root / "docs/results/toy.json", card]
    before = [file.read_text() for file in files]
    assert before[0].startswith("# x\n\n<!--") and before[0].endswith("-->\n\n## Tests\n") and "old" not in before[0]
    for arguments in ((), ("toy", *folders)):
        assert write(root, *arguments) == ""
        assert [file.read_text() for file in files] == before


def test_each_model_card_has_the_numbers_of_its_own_seed(toy):
    card = ModelCard.load(toy[1][1] / "model" / "README.md")
    assert card.data.license == "mit" and card.text.startswith("# toy\n\n## License\n\nNone.\n\n## Evaluation\n")
    assert re.findall(r"\| image→text · R@10 \| (\S+) % \((\S+)\)", card.text.replace("\u00a0", " ")) == [
        ("50.0", "50.0–50.0")
    ]
    (recall,) = [result for result in card.data.eval_results if result.metric_type == "image_to_text/R@10"]
    assert (recall.metric_value, recall.metric_args["low"], recall.metric_args["high"]) == (0.5, 0.5, 0.5)
    assert (recall.dataset_name, recall.dataset_split, recall.dataset_revision) == ("roco", "validation", VALIDATION)
    args = recall.dataset_args
    assert (args["pool"], args["commit"], args["medclip_version"]) == ({"candidates": 4}, "feedface", "0")
    assert "this split also chose the weights" in args["notes"]
    assert card.data.model_name == "run1" and "somebody" not in str(card)


def test_a_second_evaluation_of_the_same_pairs_takes_the_place_of_the_first_and_another_stands_beside_it(toy, tmp_path):
    run = shutil.copytree(toy[1][1], tmp_path / "run")
    again = make_retrieval(tmp_path / "again", run, [1, 1, 1, 1], ["a", "a", "b", "b"], commit="second")
    other = make_retrieval(tmp_path / "other", run, [1, 2], ["a", "b"], data="rocov2", data_sha256="e" * 64)
    assert write(make_root(tmp_path / "root"), "toy", run, again, other) == ""
    card = ModelCard.load(run / "model" / "README.md")
    values = {(result.dataset_name, result.metric_type): result.metric_value for result in card.data.eval_results}
    assert values["roco", "image_to_text/R@1"] == 1.0 and values["rocov2", "image_to_text/R@1"] == 0.5
    assert card.text.count("### retrieval, ") == 2 and "feedface" not in card.text.split("rocov2")[0]


FOREIGN = """model-index:
- name: theirs
  results:
  - task: {type: image-classification}
    dataset: {type: x, name: X, args: [1, 2]}
    metrics:
    - {type: accuracy, value: 87.2, name: "a|b"}
    - {type: f1, value: {macro: 0.5}}
"""


def test_what_others_measured_stands_on_a_card_as_they_wrote_it(root, two_seeds):
    """Theirs may be percent."""
    card = two_seeds[0] / "model" / "README.md"
    card.write_text(card.read_text().replace("---\n", f"---\n{FOREIGN}", 1))
    assert write(root, "toy", *two_seeds) == ""
    text = card.read_text()
    assert "| a\\|b | 87.2 | – |" in text and "| f1 | {'macro': 0.5} | – |" in text
    assert "### retrieval, " in text


def test_a_card_that_cannot_be_read_is_named(root, two_seeds):
    (two_seeds[0] / "model" / "README.md").write_text("---\n: [\n---\n")
    assert re.search(r"run0/model/README.md is not a model card that can be read", write(root, "toy", *two_seeds))


def begin_from(run, before):
    """Let a run have begun from another one."""
    file = run / "train_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"init": str(before)}))


def test_runs_that_began_from_runs_of_their_seeds_are_one_record_with_both_commands(root, two_seeds):
    for seed, run in enumerate(two_seeds[:2]):
        begin_from(run, make_run(run.with_name(f"first{seed}"), seed, lr=0.002, color_jitter=0.0))
    assert write(root, "toy", *two_seeds) == ""
    first, second = json.loads((root / "docs/results/toy.json").read_text())["training"]["command"].splitlines()
    assert first.startswith("medclip train --data DATA --out RUN-INIT --")
    assert "--lr 0.002" in first and "--color-jitter 0.0" in first  # 0 is not the default
    assert second.startswith("medclip train --data DATA --out RUN --") and "--init RUN-INIT" in second
    begin_from(two_seeds[0], make_run(two_seeds[0].with_name("other"), lr=0.1))
    assert "differ in more than their seed: init." in write(root, "toy", *two_seeds)


def test_other_data_are_not_marked_as_roco(root, two_seeds, tmp_path):
    other = make_retrieval(tmp_path / "other", two_seeds[0], [1, 2], ["a", "b"], data="rocov2", data_sha256="e" * 64)
    write(root, "toy", two_seeds[0], other)
    assert "| [toy]" in (root / "README.md").read_text() and "not comparable" not in (root / "README.md").read_text()


def test_classes_are_averaged_each_counting_as_much(root, tmp_path):
    folders = []
    for seed, correct in enumerate([[1, 1, 1, 0], [1, 0, 0, 0]]):
        run = make_run(tmp_path / f"run{seed}", seed)
        folder = tmp_path / f"zero{seed}"
        folder.mkdir()
        origin = {"model": model_hash(run), "contamination": "yes", "data_sha256": "e" * 64}
        handmade_results.classes(folder, ["ct", "ct", "ct", "mri"], correct, **origin)
        folders += [run, tell_command(folder, "zero-shot", label="modality")]
    assert write(root, "toy", *folders) == ""
    (evaluation,) = json.loads((root / "docs/results/toy.json").read_text())["evaluations"]
    values = {metric["name"]: metric["value"] for metric in evaluation["metrics"]}
    assert values == {"accuracy": 0.5, "balanced_accuracy": pytest.approx(1 / 3)}  # (3 + 1) / 8; (1 + 0 + 1/3 + 0) / 4
    measured = "| zero-shot of modality (ct, mri), made-up validation <sup>1</sup> |"
    assert measured in (root / "README.md").read_text()


def test_what_has_no_interval_is_null_in_the_record_and_bare_in_the_tables(root, tmp_path):
    """Of two seeds that are right throughout no resample differs, and nothing tells how balanced accuracy or a median
    of two articles varies; of one article nothing does."""
    folders = []
    for seed in (0, 1):
        run, right = make_run(tmp_path / f"run{seed}", seed), tmp_path / f"zero{seed}"
        right.mkdir()
        handmade_results.classes(right, ["ct", "ct", "mri", "mri"], [1, 1, 1, 1], model=model_hash(run))
        single = make_retrieval(tmp_path / f"eval{seed}", run, [1, 2, 3, 50], ["a"] * 4)
        folders += [run, tell_command(right, "zero-shot", label="modality"), single]
    assert write(root, "toy", *folders) == ""
    text = (root / "docs/results/toy.json").read_text()
    of_one_article, of_classes = json.loads(text, parse_constant=pytest.fail)["evaluations"]
    assert {(metric["low"], metric["high"]) for metric in of_one_article["metrics"]} == {(None, None)}
    ends = {metric["name"]: (metric["low"], metric["high"]) for metric in of_classes["metrics"]}
    assert ends == {"accuracy": (pytest.approx(0.025**0.5), 1.0), "balanced_accuracy": (None, None)}
    page = (root / "docs/results.md").read_text()
    assert "| image→text · R@10 | 75.0\u00a0% | 75.0\u00a0%, 75.0\u00a0% |" in page
    assert "| balanced accuracy | 100.0\u00a0% | 100.0\u00a0%, 100.0\u00a0% | 50.0\u00a0% |" in page


def make_measured(folder, run, kind, metric_names, facts):
    """An evaluation of another kind whose items are all right."""
    folder.mkdir()
    metrics = tuple(
        handmade_results.metric(name, 1.0, column="correct", statistic="mean", role="gated") for name in metric_names
    )
    provenance = replace(handmade_results.PROVENANCE, model=model_hash(run))
    results = Results(kind=kind, metrics=metrics, facts=facts, provenance=provenance)
    items = {"id": ["a", "b"], "article": ["a", "b"], "correct": np.ones(2)}
    write_results(folder, results, items)
    return tell_command(folder, str(kind))


def test_a_probe_has_the_classes_it_learned_and_corruptions_stay_out_of_the_readme(root, tmp_path):
    run = make_run(tmp_path / "run")
    learned = {"label": "modality", "num_images": 2, "trained_on/classes/ct": 3, "trained_on/classes/mri": 4}
    probe = make_measured(tmp_path / "probe", run, Kind.PROBE, ["logistic_regression/accuracy"], learned)
    names = ["clean/image_to_text/R@10", "corruptions/blur/1/image_to_text/R@10"]
    robustness = make_measured(tmp_path / "robustness", run, Kind.ROBUSTNESS, names, {"num_candidates": 2})
    assert write(root, "toy", run, probe, robustness) == ""
    readme, page = (root / "README.md").read_text(), (root / "docs/results.md").read_text()
    assert "| probe of modality (ct, mri), made-up validation" in readme
    assert "clean · image→text · R@10" in readme and "blur" not in readme and "blur" in page


def test_a_model_whose_run_is_not_at_hand_says_so(root, two_seeds):
    assert write(root, "toy", two_seeds[2]) == ""
    assert "its seed, settings and training data are not known here" in (root / "docs/results.md").read_text()
    assert "| not recorded |" in (root / "README.md").read_text()


def test_seeds_made_on_other_devices_or_by_another_numpy_are_one_record_that_says_so(root, two_seeds):
    for run, numpy in zip(two_seeds[:2], ("2.1.0", "2.2.0"), strict=True):
        set_software(run, numpy=numpy, devices=f"{numpy[2]} cpu", optax="0.2.5")
    assert write(root, "toy", *two_seeds) == ""
    assert "; numpy 2.1.0, 2.2.0; devices 1 cpu, 2 cpu.\n" in (root / "docs/results.md").read_text()


def spoil_no_summary(folders):
    (folders[0] / "summary.json").unlink()


def spoil_other_weights(folders):
    save_file({"logit_scale": np.full(1, 9, np.float32)}, folders[0] / "model" / "model.safetensors")


def spoil_no_items(folders):
    (folders[2] / "retrieval.arrow").unlink()


def spoil_half_a_file(folders):
    file = folders[2] / "retrieval.json"
    file.write_text(file.read_text()[:400])


def spoil_no_command(folders):
    (folders[2] / "evaluate-retrieval.toml").unlink()


def spoil_other_command(folders):
    tell_command(folders[2], max_samples=4)


def spoil_other_settings(folders):
    config = json.loads((folders[0] / "train_config.json").read_text())
    (folders[0] / "train_config.json").write_text(json.dumps(config | {"lr": 0.5}))


def set_software(run, **versions):
    """Change the software that a run says made it."""
    file = run / "train_config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | {"software": [config["software"][0] | versions]}))


def spoil_other_jax(folders):
    set_software(folders[1], jax="0.9.0")


def spoil_other_commit(folders):
    set_software(folders[1], commit="f00d")


def spoil_resumed_by_other_jax(folders):
    config = json.loads((folders[1] / "train_config.json").read_text())
    config["software"].append({"medclip": "0.2.0", "jax": "0.9.0"})
    (folders[1] / "train_config.json").write_text(json.dumps(config))


def spoil_same_seed(folders):
    shutil.copy(folders[1] / "train_config.json", folders[0] / "train_config.json")


def spoil_other_items(folders):
    shutil.rmtree(folders[2])
    make_retrieval(folders[2], folders[0], [1, 2, 3], ["a", "a", "b"], data_sha256="e" * 64)


def spoil_nothing_in_it(folders):
    shutil.rmtree(folders[2])
    folders[2].mkdir()


def spoil_the_same_twice(folders):
    folders.append(shutil.copytree(folders[2], folders[2].parent / "copy"))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_no_summary, "run0 has not ended: it has no summary.json"),
        (spoil_other_weights, "none of these evaluations is of the model that .*run0 holds now"),
        (spoil_no_items, "retrieval.arrow is absent or damaged"),
        (spoil_half_a_file, "retrieval.json"),
        (spoil_no_command, "evaluate-retrieval.toml does not tell the command"),
        (spoil_other_command, "was not measured by one command"),
        (spoil_other_settings, "differ in more than their seed: lr"),
        (spoil_other_jax, "differ in more than their seed: jax"),
        (spoil_other_commit, "differ in more than their seed: commit"),
        (spoil_resumed_by_other_jax, "differ in more than their seed: jax"),
        (spoil_same_seed, "two of these runs have one seed"),
        (spoil_other_items, "were not measured alike"),
        (spoil_nothing_in_it, "eval0 holds no evaluation"),
        (spoil_the_same_twice, "eval0 and .*copy hold the same"),
    ],
)
def test_what_is_not_whole_is_refused_and_nothing_is_written(root, two_seeds, spoil, message):
    spoil(two_seeds)
    before = (root / "README.md").read_text()
    assert re.search(message, write(root, "toy", *two_seeds))
    assert list((root / "docs" / "results").iterdir()) == [] and (root / "README.md").read_text() == before


def test_several_models_without_their_runs_are_refused(root, two_seeds):
    assert "give the run of each" in write(root, "toy", two_seeds[2], two_seeds[3])


@pytest.mark.parametrize("arguments", [["Toy run", "x"], ["toy"], ["../toy", "x"]])
def test_a_name_is_that_of_a_file_and_of_a_heading(root, arguments):
    assert "small letters, digits" in write(root, *arguments)


def test_the_tables_of_this_checkout_are_what_its_records_give():
    records = BENCHMARK.read_records(ROOT / "docs" / "results")
    assert records, "docs/results holds no record"
    assert (ROOT / "docs" / "results.md").read_text(encoding="utf-8") == BENCHMARK.results_page(records)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme == BENCHMARK.between_marks(readme, BENCHMARK.START, BENCHMARK.END, BENCHMARK.readme_table(records))
