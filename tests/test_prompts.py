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
    assert "a radiology image of a round cell tumour" in read_prompts(None, "label", False).affirm("round_cell_tumour")


def test_a_finding_is_affirmed_and_denied():
    prompts = read_prompts(None, "anything", True)
    assert "no pneumothorax" in prompts.deny("pneumothorax")
    assert "no evidence of a round cell" in prompts.deny("round_cell")


CHEXPERT = (
    *("No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Lesion", "Lung Opacity", "Edema"),
    *("Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture"),
    "Support Devices",
)
NIH = ("Effusion", "Infiltration", "Mass", "Nodule", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia")
VINDR = (
    *("Aortic enlargement", "Calcification", "Clavicle fracture", "Enlarged PA", "ILD", "Lung cavity", "Lung cyst"),
    *("Mediastinal shift", "Nodule/Mass", "Pulmonary fibrosis", "Rib fracture", "Other lesion", "COPD", "Lung tumor"),
    *("Tuberculosis", "Other disease", "No finding"),
)
UNLISTED = ("Bullae", "gallstones", "ascites", "hiatal hernia", "NSG tube", "Metastases", "no_tumor", "COVID-19")
NOT_ENGLISH = re.compile(
    r"\bno (a|an|the|no|another) |\b(a|an) (a|an|the|no) |\ba [aeio]|\bis no \w+ devices|_"
    r"|there is .*(devices|stones|bullae|metastases)$|(devices|stones|bullae|metastases) is "
    r"|(there is|showing|with|without|of) (mass|nodule|fracture|hernia|lung lesion|pneumothorax|pleural effusion)\b",
    re.IGNORECASE,
)


@pytest.mark.parametrize("finding", [*CHEXPERT, *NIH, *VINDR, *UNLISTED])
def test_prompts_of_every_finding_are_english_in_any_spelling(finding):
    prompts = read_prompts(None, "findings", True)
    texts = prompts.affirm(finding) + prompts.deny(finding)
    assert len(texts) == len(set(texts)) >= 10
    assert [text for text in texts if NOT_ENGLISH.search(text)] == []
    for spelling in (finding.upper(), finding.lower(), finding.title(), finding.replace(" ", "_")):
        assert prompts.affirm(spelling) + prompts.deny(spelling) == texts
    assert all(not NOT_ENGLISH.search(text) for text in prompts.combine(finding))


@pytest.mark.parametrize(
    ("finding", "affirmed", "denied"),
    [
        (
            "Mass",
            ["mass", "there is a mass", "a mass is seen"],
            ["no mass", "there is no mass", "image without a mass"],
        ),
        ("Support Devices", ["there are support devices"], ["there are no support devices"]),
        ("Pleural effusions", ["pleural effusions are seen"], ["pleural effusions are not seen"]),
        ("edema", ["there is pulmonary edema"], ["no evidence of pulmonary edema"]),
        ("No Finding", ["no finding", "image without a finding"], ["finding", "there is a finding"]),
        ("NORMAL", ["there is no abnormality"], ["there is an abnormality"]),
        ("Nodule/Mass", ["there is a nodule or mass"], ["no nodule or mass"]),
        ("Other lesion", ["there is another lesion"], ["there is no other lesion"]),
        ("unilateral hilar opacity", ["there is a unilateral hilar opacity"], ["no unilateral hilar opacity"]),
        ("NG tube", ["image showing an NG tube"], ["there is no NG tube"]),
    ],
)
def test_articles_verbs_and_plurals(finding, affirmed, denied):
    prompts = read_prompts(None, "findings", True)
    assert set(affirmed) <= set(prompts.affirm(finding))
    assert set(denied) <= set(prompts.deny(finding))


@pytest.mark.parametrize("label", ["пневмония", "Πνευμονία", "épanchement pleural", "Fußfraktur", "肺炎"])
def test_a_label_of_another_language_stays_as_it_is_spelled(label):
    texts = read_prompts(None, "label", False).affirm(label)
    assert f"a radiology image of {label.lower()}" in texts


def test_a_class_without_a_finding_is_a_class():
    texts = read_prompts(None, "label", False).affirm("no_tumor")
    assert texts[:2] == ["no tumor", "a radiology image without a tumor"]


def test_names_of_the_user_get_articles_in_templates_of_the_user(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text('[default]\ntemplates = ["{} CT", "CT with {}", "the {}"]\n[default.names]\nx = ["Cyst"]\n')
    assert read_prompts(path, "any", False).affirm("X") == ["Cyst CT", "CT with a Cyst", "the Cyst"]


def test_a_section_is_found_in_any_case():
    assert read_prompts(None, "Modality", False) == read_prompts(None, "modality", False)


def test_a_file_of_the_user_stands_in_place_of_ours(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text('[default]\ntemplates = ["look: {}"]\n[default.names]\nx = ["ray", "beam"]\n', encoding="utf-8")
    prompts = read_prompts(path, "modality", False)
    assert prompts.affirm("x") == ["look: ray", "look: beam"]
    assert prompts.affirm("ct") == ["look: CT"]


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
        ('[default]\ntemplates = ["{}"]\nnames = {CT = ["x"], ct = ["y"]}', False, "are one class"),
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
