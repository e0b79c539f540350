"""`medclip info`: each kind of folder is told for what it is, and a run for how it went."""

import dataclasses
import json

import pytest

from medclip.cli.info import info, run_info
from medclip.cli.tables.runs import show_info
from medclip.errors import UserError
from medclip.model.checkpoint import model_hash


def records(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_finished_run_tells_its_settings_and_its_course(run, recipe):
    kind, about = info(str(run))
    assert kind == "run"
    given = {k: v for k, v in dataclasses.asdict(recipe).items() if v != getattr(type(recipe)(), k)}
    assert about.changed == given
    assert about.evaluations == [r for r in records(run) if "mean_recall" in r]
    assert (about.last, about.steps) == (4, 4)
    assert about.summary == json.loads((run / "summary.json").read_text())
    assert set(about.data) == {"train", "validation"}


def test_a_killed_run_says_how_far_it_came_and_how_to_go_on(run, copy, capsys):
    killed = copy(run)
    (killed / "summary.json").unlink()
    lines = (killed / "metrics.jsonl").read_text().splitlines()
    (killed / "metrics.jsonl").write_text("\n".join([*lines[:3], lines[3][:10]]))
    about = run_info(killed)
    assert (about.last, about.summary) == (records(run)[2]["step"], None)
    show_info("run", about, killed)
    said = " ".join(capsys.readouterr().out.split())
    assert f"step {about.last} of 4 was the last logged" in said
    assert "--resume" in said


def test_a_run_before_its_first_evaluation_is_shown_too(run, copy, capsys):
    young = copy(run)
    (young / "summary.json").unlink()
    (young / "metrics.jsonl").unlink()
    show_info("run", run_info(young), young)
    assert "step 0 of 4" in " ".join(capsys.readouterr().out.split())


def test_models_data_sets_and_indices_are_told_apart(run, model, data, index_folder, capsys):
    kind, about = info(str(run / "model"))
    assert kind == "model"
    assert about["sha256"] == model_hash(run)
    assert about["parameters"] == sum(p.size for p in model.params.values())
    for path in (run, data, index_folder, run / "model"):
        kind, about = info(str(path))
        show_info(kind, about, path)
        assert path.name in capsys.readouterr().out
    assert (info(str(data))[0], info(str(index_folder))[0]) == ("dataset", "index")


@pytest.mark.parametrize("said", ["{}", "[]", "{"])
def test_a_damaged_run_is_a_mistake_in_words(run, copy, said):
    broken = copy(run)
    (broken / "config.json").write_text(said)
    with pytest.raises(UserError, match=r"config\.json"):
        info(str(broken))
