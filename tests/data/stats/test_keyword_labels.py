"""Modality and organ by keywords; agreement with ROCO's labels is measured."""

import pytest

from medclip.data.sources.roco import read_roco
from medclip.data.stats.keyword_labels import keyword_label


@pytest.mark.parametrize(
    ("caption", "modality", "organ"),
    [
        ("Axial CT of the abdomen showing a hepatic cyst", "ct", "abdomen"),
        ("CT angiography of the pulmonary arteries", "ct", "chest_lung"),  # named first
        ("Chest X-ray: pneumonia", "xray", "chest_lung"),
        ("T2-weighted MRI of the brain", "mri", "brain_head"),
        ("MAMMOGRAM, MLO VIEW", "mammography", "breast"),
        ("Transthoracic echocardiogram of the left ventricle", "ultrasound", "heart"),
        ("Radiographie du thorax", "xray", "chest_lung"),
        ("The patient, actually arriving on the spot", "", ""),  # neither ct nor pet, though their letters are there
        ("", "", ""),
    ],
)
def test_keywords_decide_the_class(caption, modality, organ):
    assert (keyword_label("modality", caption), keyword_label("organ", caption)) == (modality, organ)


@pytest.mark.parametrize(
    ("kind", "labeled", "answered", "agreed"), [("modality", 487, 481, 479), ("organ", 416, 398, 381)]
)
def test_agreement_with_the_labels_of_held_out_rows(shared_folder, kind, labeled, answered, agreed):
    rows = [row for row in read_roco(shared_folder / "roco") if row.split == "validation" and row.labels.get(kind)]
    results = [(row.labels[kind], keyword_label(kind, row.caption)) for row in rows]
    assert len(results) == labeled
    assert sum(keyword != "" for _, keyword in results) == answered
    assert sum(label == keyword for label, keyword in results) == agreed  # the figures that the page states
