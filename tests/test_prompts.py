"""Files of prompts: the one that comes along is whole, and one of the user's is read or refused by a sentence."""

import re
import tomllib

import pytest

from medclip.data.stats.keyword_labels import MODALITY_KEYWORDS, ORGAN_KEYWORDS
from medclip.errors import UserError
from medclip.prompts import DEFAULT_PROMPTS, PLACEHOLDER, read_prompts

SECTIONS = tomllib.loads(DEFAULT_PROMPTS.read_text(encoding="utf-8"))


@pytest.mark.parametrize("section", SECTIONS)
def test_every_template_has_its_place_and_no_two_are_alike(section):
    content = SECTIONS[section]
    for templates in (content["templates"], content.get("negated_templates", ["{}"])):
        assert all(re.findall(r"\{.*?\}", template) == [PLACEHOLDER] for template in templates)
        assert len(set(templates)) == len(templates)
    prompts = read_prompts(None, section, "negated_templates" in content)
    for name in content.get("names", {}):
        texts = prompts.affirm(name) + prompts.deny(name)
        assert len(set(texts)) == len(texts)
        assert not any("{" in text for text in texts)


@pytest.mark.parametrize(("section", "classes"), [("modality", MODALITY_KEYWORDS), ("organ", ORGAN_KEYWORDS)])
def test_every_class_of_roco_has_names(section, classes):
    assert classes.keys() <= SECTIONS[section]["names"].keys()


def test_a_class_has_each_of_its_names_in_each_template():
    texts = read_prompts(None, "modality", False).affirm("CXR")
    assert {"chest x-ray", "chest radiograph", "chest x-ray of a patient"} <= set(texts)
    assert len(texts) == 2 * len(SECTIONS["modality"]["templates"])


def test_a_class_without_names_goes_by_its_name():
    assert "a radiology image of round cell tumour" in read_prompts(None, "label", False).affirm("round_cell_tumour")


def test_a_finding_is_affirmed_and_denied():
    prompts = read_prompts(None, "anything", True)
    assert "no pneumothorax" in prompts.deny("pneumothorax")
    assert "no evidence of round cell" in prompts.deny("round_cell")


def test_a_file_of_the_user_stands_in_place_of_ours(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text('[default]\ntemplates = ["look: {}"]\n[default.names]\nx = ["ray", "beam"]\n', encoding="utf-8")
    prompts = read_prompts(path, "modality", False)
    assert prompts.affirm("x") == ["look: ray", "look: beam"]
    assert prompts.affirm("ct") == ["look: ct"]


@pytest.mark.parametrize(
    ("text", "multilabel", "message"),
    [
        ("[default", False, "is not TOML"),
        ('[default]\ntemplates = ["no place"]', False, "'no place' of [default] must hold {} once"),
        ('[default]\ntemplates = ["{} and {}"]', False, "must hold {} once"),
        ('[default]\ntemplates = "{}"', False, "is not a list of texts"),
        ("[default]\ntemplates = []", False, "is not a list of texts"),
        ('[default]\nnames = {x = ["y"]}', False, "templates of [default] is not a list"),
        ('[default]\ntemplates = ["{}"]\nnames = {x = "y"}', False, "x of [default] is not a list"),
        ('[default]\ntemplates = ["{}"]\nnames = 3', False, "names of [default] is not a list"),
        ('[default]\ntemplate = ["{}"]', False, "and nothing else"),
        ("default = 3", False, "and nothing else"),
        ('[other]\ntemplates = ["{}"]', False, "neither a section [label] nor [default]; it has: other"),
        ("", False, "it has: none"),
        ('[finding]\ntemplates = ["{}"]', True, "[finding] needs negated_templates"),
    ],
)
def test_a_file_that_is_not_right_is_refused_by_a_sentence(tmp_path, text, multilabel, message):
    path = tmp_path / "own.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=re.escape(message)) as refused:
        read_prompts(path, "label", multilabel)
    assert str(path) in str(refused.value)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_prompts(tmp_path / "absent.toml", "label", False)
