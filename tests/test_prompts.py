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


@pytest.mark.parametrize(
    "sentence",
    [
        # what is no thing that can be counted, and what only ends as such
        *(
            "is heart failure",
            "is hydrocephalus",
            "is lung vascular paucity",
            "is obesity",
            "is hardware",
            "is surgery",
        ),
        *("is heart insufficiency", "is respiratory distress", "is lymphangitis carcinomatosa", "is renal agenesis"),
        *("is asthma", "is sepsis", "is aortic tortuosity", "is hilar prominence", "is multiple myeloma", "is ARDS"),
        *("is a breast implant", "is a halo sign", "is a hip replacement", "is a pelvic fluid collection", "is an AVM"),
        *("is a uterine fibroid", "is an anastomosis", "is a liver transplant", "is a mandible", "is an exostosis"),
        # sounds
        *("is a urinary calculus", "is a ureteral stone", "is an hourglass deformity", "is an unidentified object"),
        *("is an 8 mm nodule", "is an 11-mm nodule", "is a FLAIR hyperintensity", "is an MS lesion", "is an ulcer"),
        # nouns joined, set aside, or before a preposition
        *("is pneumonia or a nodule", "is edema or an effusion", "is a pleural or pericardial effusion"),
        *("is a mass or nodules", "are nodules or a mass", "is a pneumothorax (right)", "is a fracture, left"),
        *("are opacities (GGO)", "are GGOs", "is fluid around the lung", "is a catheter via the jugular vein"),
    ],
)
def test_a_finding_is_counted_as_english_counts_it(sentence):
    """From the bare label, in capitals and joined by a slash, as tables write it."""
    label = re.sub(r"\b(a|an) ", "", sentence.split(" ", 1)[1]).replace(" or ", "/")
    prompts = read_prompts(None, "findings", True)
    verb, phrase = sentence.split(" ", 1)
    for spelling in (label, label.upper(), label.lower()):
        texts = prompts.affirm(spelling)
        assert f"there {verb} {phrase}" in texts
        assert f"no {re.sub(r'(^| )(a|an) ', lambda m: m[1], phrase)}" in prompts.deny(spelling)
        assert f"{phrase} {'are' if re.search('GGO|nodules$', phrase) else 'is'} seen" in texts


@pytest.mark.parametrize(
    ("label", "text"),
    [
        ("Unremarkable", "there is no abnormality"),
        ("none", "there is no finding"),
        ("negative for pneumonia", "there is no pneumonia"),
        ("No evidence of metastases", "there are no metastases"),
        ("notumor", "there is no tumor"),
        ("Other", "there are other findings"),
        ("Subdural", "there is a subdural hematoma"),
        ("squamous.cell.carcinoma", "there is a squamous cell carcinoma"),
        ("heart valve calcified", "a calcified heart valve is seen"),
        ("XR_HAND", "image showing a hand x-ray"),
    ],
)
def test_labels_of_known_sets_that_are_no_nouns_have_names(label, text):
    assert text in read_prompts(None, "findings", True).affirm(label)


def test_what_is_other_alone_has_no_article_after_no():
    prompts = read_prompts(None, "any", False)
    assert prompts.affirm("OTHER")[-1] == "an example of another" and prompts.deny("OTHER")[0] == "no other"


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


def test_a_file_of_an_editor_that_marks_the_byte_order_is_read(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text('[default]\r\ntemplates = ["{}"]\r\n', "utf-8-sig")
    assert read_prompts(path, "any", False).affirm("Cyst") == ["cyst"]


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
