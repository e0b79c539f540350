"""The tables of results are what the files of runs and evaluations say, worked out here by hand; nothing is typed."""

import json
from dataclasses import replace

import numpy as np
import pytest

from medclip.evaluation.results import Kind, Results, write_results
from medclip.model.checkpoint import model_hash
from support import handmade_results
from support.benchmarks import ROOT
from support.made_results import (
    BENCHMARK,
    VALIDATION,
    make_retrieval,
    make_run,
    set_software,
    tell_command,
    write,
)


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


def test_the_tables_of_this_checkout_are_what_its_records_give():
    records = BENCHMARK.read_records(ROOT / "docs" / "results")
    assert records, "docs/results holds no record"
    assert (ROOT / "docs" / "results.md").read_text(encoding="utf-8") == BENCHMARK.results_page(records)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme == BENCHMARK.between_marks(readme, BENCHMARK.START, BENCHMARK.END, BENCHMARK.readme_table(records))
