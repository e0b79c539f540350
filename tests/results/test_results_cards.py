"""Each model card has what was measured of its own weights, beside what others wrote on it."""

import re
import shutil

from huggingface_hub import ModelCard

from support.made_results import VALIDATION, make_retrieval, make_root, write


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
