"""Modality and organ are guessed from words; how often that agrees with ROCO's labels is measured."""

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
def test_words_speak_for_classes(caption, modality, organ):
    assert (keyword_label("modality", caption), keyword_label("organ", caption)) == (modality, organ)


@pytest.mark.parametrize(
    ("kind", "labeled", "answered", "agreed"), [("modality", 487, 481, 479), ("organ", 416, 398, 381)]
)
def test_agreement_with_the_labels_of_rows_kept_apart(shared_folder, kind, labeled, answered, agreed):
    rows = [row for row in read_roco(shared_folder / "roco") if row.split == "validation" and row.labels.get(kind)]
    told = [(row.labels[kind], keyword_label(kind, row.caption)) for row in rows]
    assert len(told) == labeled
    assert sum(guess != "" for _, guess in told) == answered
    assert sum(label == guess for label, guess in told) == agreed  # the page's and the log's figures
