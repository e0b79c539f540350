"""`medclip info`: what each kind of folder is, and how a run went."""

import dataclasses
import json
import re

import pytest

from medclip.atomic_io import write_with_checksum
from medclip.cli.info import info, run_info
from medclip.errors import UserError
from medclip.model.checkpoint import model_hash
from medclip.search.manifest import read_manifest
from support import handmade_results


def records(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_finished_run_has_its_settings_and_its_course(run, train_config):
    kind, contents = info(str(run))
    assert kind == "run"
    given = {k: v for k, v in dataclasses.asdict(train_config).items() if v != getattr(type(train_config)(), k)}
    assert contents.changed == json.loads(json.dumps(given))
    assert contents.evaluations == [r for r in records(run) if "mean_recall" in r]
    assert (contents.last, contents.steps) == (4, 4)
    assert contents.summary == json.loads((run / "summary.json").read_text())
    assert set(contents.data) == {"train", "validation"}


def test_a_killed_run_says_how_far_it_came_and_how_to_go_on(medclip, run, copy):
    killed = copy(run)
    (killed / "summary.json").unlink()
    lines = (killed / "metrics.jsonl").read_text().splitlines()
    (killed / "metrics.jsonl").write_text("\n".join([*lines[:3], lines[3][:10]]))
    contents = run_info(killed)
    assert (contents.last, contents.summary) == (records(run)[2]["step"], None)
    code, out, _ = medclip("info", killed, "--table")
    assert code == 0
    assert f"step {contents.last} of 4 was the last logged" in " ".join(out.split())
    assert "--resume" in out


def test_a_run_before_its_first_evaluation_is_shown_too(medclip, run, copy):
    young = copy(run)
    (young / "summary.json").unlink()
    (young / "metrics.jsonl").write_text("")
    assert "step 0 of 4" in " ".join(medclip("info", young, "--table")[1].split())


def rows_of(table):
    """The cells of a table of two columns, by the first."""
    cells = [[cell.strip() for cell in re.split("[│┃]", line)[1:-1]] for line in table.splitlines()]
    return {row[0]: row[1] for row in cells if len(row) == 2}


def test_a_model_has_its_towers_and_its_hash(medclip, run, model):
    kind, contents = info(str(run / "model"))
    assert kind == "model"
    assert contents["sha256"] == model_hash(run)
    assert contents["parameters"] == sum(p.size for p in model.params.values())
    rows = rows_of(medclip("info", run / "model", "--table")[1])
    assert (rows["kind"], rows["sha256"]) == ("model", model_hash(run))
    assert rows["parameters"] == f"{contents['parameters']:,}"
    assert (contents["vision_tower"]["image_size"], contents["vision_tower"]["patch_size"]) == (32, 16)
    assert rows["vision tower"] == f"type: {model.config.vision.model_type}"


def test_a_dataset_has_its_pairs_and_what_was_dropped(medclip, roco, data):
    code, out, _ = medclip("info", data, "--table")
    assert code == 0
    counts = {name: split["pairs"] for name, split in json.loads((data / "dataset.json").read_text())["splits"].items()}
    for split, pairs in counts.items():
        assert re.search(rf"│ {split} +│ {pairs} +│", out)
    assert set(roco.dropped["train"]) <= {cell.strip() for cell in out.splitlines()[2].split("┃")}


def test_an_index_has_its_segments_and_its_model(medclip, run, index_folder):
    rows = rows_of(medclip("info", index_folder, "--table")[1])
    assert (rows["kind"], rows["pairs"], rows["deleted"], rows["snapshots"]) == ("index", "12", "0", "none")
    assert rows["model sha256"] == model_hash(run)
    assert re.fullmatch(r"00000: added: \d{4}-\d\d-\d\d, pairs: 12, data: roco\d*, split: validation", rows["segments"])


def test_piped_info_says_of_which_kind_each_folder_is(medclip, run, data, index_folder):
    for path, kind in ((run, "run"), (data, "dataset"), (index_folder, "index"), (run / "model", "model")):
        code, out, err = medclip("info", path)
        assert (code, json.loads(out)["kind"]) == (0, kind), err


def test_embeddings_evaluations_and_exports_are_described(tmp_path):
    write_with_checksum(tmp_path / "embedding.json", {"num_pairs": 2, "split": "test", "sha256": {"a": "b"}})
    assert info(str(tmp_path)) == ("embeddings", {"num_pairs": 2, "split": "test"})
    handmade_results.retrieval(tmp_path / "evaluation", [1, 2, 5], [1, 3, 1])
    kind, contents = info(str(tmp_path / "evaluation"))
    assert kind == "evaluations" and contents["retrieval"]["split"] == "validation"
    (tmp_path / "parquet").mkdir()
    (tmp_path / "parquet" / "export.json").write_text('{"form": "parquet", "pairs": {"train": 3}}')
    assert info(str(tmp_path / "parquet")) == ("export", {"form": "parquet", "pairs": {"train": 3}})


@pytest.mark.parametrize("name", ["absent", "absent/run"])
def test_a_folder_that_is_absent_is_said_to_be(tmp_path, name):
    with pytest.raises(UserError, match="does not exist"):
        info(str(tmp_path / name))
    with pytest.raises(UserError, match=f"{name} is not an index.*it does not exist"):
        read_manifest(tmp_path / name)


@pytest.mark.parametrize("text", ["{}", "[]", "{"])
def test_a_damaged_run_is_a_mistake_in_words(run, copy, text):
    broken = copy(run)
    (broken / "train_config.json").write_text(text)
    with pytest.raises(UserError, match=r"train_config\.json"):
        info(str(broken))
