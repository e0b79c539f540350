"""Files of prompts: the one that comes along is whole, and one of the user's is read or refused by a sentence."""

import re
import tomllib

import pytest

from medclip.data.stats.keyword_labels import MODALITY, ORGAN
from medclip.errors import UserError
from medclip.prompts import PLACE, SHIPPED, read_prompts

SECTIONS = tomllib.loads(SHIPPED.read_text(encoding="utf-8"))


@pytest.mark.parametrize("section", SECTIONS)
def test_every_template_has_its_place_and_no_two_are_alike(section):
    said = SECTIONS[section]
    for templates in (said["templates"], said.get("absent", ["{}"])):
        assert all(re.findall(r"\{.*?\}", template) == [PLACE] for template in templates)
        assert len(set(templates)) == len(templates)
    prompts = read_prompts(None, section, "absent" in said)
    for name in said.get("words", {}):
        texts = prompts.of(name) + prompts.against(name)
        assert len(set(texts)) == len(texts)
        assert not any("{" in text for text in texts)


@pytest.mark.parametrize(("section", "classes"), [("modality", MODALITY), ("organ", ORGAN)])
def test_every_class_of_roco_has_words(section, classes):
    assert classes.keys() <= SECTIONS[section]["words"].keys()


def test_a_class_is_said_with_each_of_its_words_in_each_template():
    texts = read_prompts(None, "modality", False).of("CXR")
    assert {"chest x-ray", "chest radiograph", "chest x-ray of a patient"} <= set(texts)
    assert len(texts) == 2 * len(SECTIONS["modality"]["templates"])


def test_a_class_without_words_goes_by_its_name():
    assert "a radiology image of round cell tumour" in read_prompts(None, "label", False).of("round_cell_tumour")


def test_a_finding_is_affirmed_and_denied():
    prompts = read_prompts(None, "anything", True)
    assert "no pneumothorax" in prompts.against("pneumothorax")
    assert "no evidence of round cell" in prompts.against("round_cell")


def test_a_file_of_the_user_stands_in_place_of_ours(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text('[default]\ntemplates = ["look: {}"]\n[default.words]\nx = ["ray", "beam"]\n', encoding="utf-8")
    prompts = read_prompts(path, "modality", False)
    assert prompts.of("x") == ["look: ray", "look: beam"]
    assert prompts.of("ct") == ["look: ct"]


@pytest.mark.parametrize(
    ("text", "several", "said"),
    [
        ("[default", False, "is no TOML"),
        ('[default]\ntemplates = ["no place"]', False, "'no place' of [default] must hold {} once"),
        ('[default]\ntemplates = ["{} and {}"]', False, "must hold {} once"),
        ('[default]\ntemplates = "{}"', False, "is no list of texts"),
        ("[default]\ntemplates = []", False, "is no list of texts"),
        ('[default]\nwords = {x = ["y"]}', False, "templates of [default] is no list"),
        ('[default]\ntemplates = ["{}"]\nwords = {x = "y"}', False, "x of [default] is no list"),
        ('[default]\ntemplates = ["{}"]\nwords = 3', False, "words of [default] is no list"),
        ('[default]\ntemplate = ["{}"]', False, "and nothing else"),
        ("default = 3", False, "and nothing else"),
        ('[other]\ntemplates = ["{}"]', False, "neither a section [label] nor [default]; it has: other"),
        ("", False, "it has: none"),
        ('[finding]\ntemplates = ["{}"]', True, "[finding] needs absent"),
    ],
)
def test_a_file_that_is_not_right_is_refused_by_a_sentence(tmp_path, text, several, said):
    path = tmp_path / "own.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=re.escape(said)) as refused:
        read_prompts(path, "label", several)
    assert str(path) in str(refused.value)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_prompts(tmp_path / "absent.toml", "label", False)
