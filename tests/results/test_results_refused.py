"""What is not whole, or was not made alike, is in no table of results."""

import json
import re
import shutil

import numpy as np
import pytest
from safetensors.numpy import save_file

from support.made_results import make_retrieval, set_software, tell_command, write


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
