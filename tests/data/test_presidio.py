"""What Presidio detects in captions is replaced by our rules, counted, and recorded with its versions."""

import json
import logging
import re
import sys
from collections import Counter
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from medclip.data import prepare as prepare_module
from medclip.data import presidio
from medclip.data.dataset import Split
from medclip.data.prepare import prepare, preview
from medclip.data.prepare_config import PrepareConfig
from medclip.data.presidio import Detection, deidentify_caption, filter_versions, replace_detections
from medclip.errors import UserError
from medclip.require import install_command
from support.material import bytes_on_disk, draw_image, image_bytes

VERSIONS = {
    "tool": "presidio",
    "presidio_analyzer": "2.2.366",
    "spacy": "3.8.18",
    "model": "en_core_web_lg",
    "model_version": "3.8.0",
}
HAS_MODEL = any(point.name.startswith("en_") for point in entry_points(group="spacy_models"))
live = pytest.mark.skipif(
    not (find_spec("presidio_analyzer") and HAS_MODEL), reason="presidio-analyzer or an English model is not installed"
)


def redact(text, kind, part):
    start = text.index(part)
    return replace_detections(text, [Detection(kind, start, start + len(part))])


@pytest.mark.parametrize(
    ("text", "person", "expected"),
    [
        ("Courtesy of Ian Bickle, Ripas.", "Ian Bickle", "Courtesy of ___, Ripas."),
        ("Elizabeth H. White, MS", "Elizabeth H. White", "___, MS"),
        ("Jane White has pain", "Jane White", "___ has pain"),
        ("Seen by J. Whitfield", "J. Whitfield", "Seen by ___"),
        ("Dr. Whitfield agrees", "Whitfield", "Dr. ___ agrees"),
        ("Dr. Whitfield agrees", "Dr. Whitfield", "Dr. ___ agrees"),
        ("Dr. Long agrees", "Long", "Dr. ___ agrees"),
        ("Whitfield, MD", "Whitfield", "___, MD"),
        ("Jean-Pierre Smith-Joneson's film", "Jean-Pierre Smith-Joneson's", "___'s film"),
        ("Her sister Mary fell", "Mary", "Her sister ___ fell"),
        ("Patrick O’Brien was called", "Patrick O’Brien", "___ was called"),
        ("JOHN DOE", "JOHN DOE", "___"),
        ("Seen with ___ Whitfield", "Whitfield", "Seen with ___ ___"),
        ("Whitfield, Jonathan was seen", "Whitfield", "___ was seen"),
        ("Whitfield, Jonathan was seen", "Jonathan", "___ was seen"),
    ],
)
def test_a_person_is_replaced(text, person, expected):
    assert redact(text, "PERSON", person) == (expected, {"PERSON": 1})


@pytest.mark.parametrize(
    ("text", "person"),
    [
        ("The arrow head", "arrow head"),
        ("A concha bullosa", "concha bullosa"),
        ("5 mm", "mm"),
        ("Axial T2 image", "Axial T2"),
        ("Axial T2 image", "Axial T"),
        ("Color Doppler image", "Color Doppler"),
        ("Left Lung clear", "Left Lung"),
        ("Long White line", "Long White"),
        ("sinus of Valsalva", "Valsalva"),
        ("Morton's neuroma", "Morton"),
        ("the type II Hangman's fracture", "II Hangman's"),
        ("see Fig. 3", "Fig"),
        ("Rt SCA", "Rt SCA"),
        ("Pleural-Based mass Left", "Pleural-Based"),
        ("CT, Valsalva, Left lung", "Valsalva"),
    ],
)
def test_a_word_of_reports_is_no_person(text, person):
    assert redact(text, "PERSON", person) == (text, {})


@pytest.mark.parametrize(
    ("date", "expected"),
    [
        ("24 February 2009", "___"),
        ("May 5, 2015", "___"),
        ("July 22nd, 2014", "___"),
        ("December 2 2014", "___"),
        ("16th of August", "___"),
        ("12-MAR-2019", "___"),
        ("8/3/15", "___"),
        ("21.09.2012", "___"),
        ("2019-03-12", "___"),
        ("03/31/2019", "___"),
        ("the morning of 1 Oct. 2010", "the morning of ___"),
        ("69-year-old", "69-year-old"),
        ("3 months", "3 months"),
        ("2009", "2009"),
        ("January 2012", "January 2012"),
        ("33/44/2019", "33/44/2019"),
        ("10.5-12.3", "10.5-12.3"),
        ("the right eighth and ninth", "the right eighth and ninth"),
    ],
)
def test_of_times_only_calendar_dates_are_replaced(date, expected):
    text, counts = redact(f"Seen ({date}) again", "DATE_TIME", date)
    assert text == f"Seen ({expected}) again"
    assert counts == Counter(DATE_TIME=int("___" in expected))


def test_a_date_of_which_a_part_is_detected_is_replaced():
    assert redact("at 14:35 on 12 Mar 2019", "DATE_TIME", "2019") == ("at 14:35 on ___", {"DATE_TIME": 1})
    assert redact("2008, and on 12 Mar 2019", "DATE_TIME", "2008") == ("2008, and on 12 Mar 2019", {})


def test_numbers_go_as_detected_and_other_entities_stay():
    text = "MR of C5 in Plymouth: call 212-555-0187 or j@example.org"
    spans = {
        "LOCATION": "Plymouth",
        "NRP": "C5",
        "ORGANIZATION": "MR",
        "PHONE_NUMBER": "212-555-0187",
        "EMAIL_ADDRESS": "j@example.org",
        "URL": "example.org",
    }
    detections = [Detection(kind, text.index(part), text.index(part) + len(part)) for kind, part in spans.items()]
    assert replace_detections(text, detections) == (
        "MR of C5 in Plymouth: call ___ or ___",
        {"PHONE_NUMBER": 1, "EMAIL_ADDRESS": 1},
    )


def test_detections_that_overlap_are_replaced_once():
    text = "on 03-12-2019 05:12"
    detections = [Detection("DATE_TIME", 3, 13), Detection("PHONE_NUMBER", 3, 19), Detection("DATE_TIME", 3, 13)]
    assert replace_detections(text, detections) == ("on ___", {"PHONE_NUMBER": 1})


class FakeAnalyzer:
    """Takes every `Xx Xx` for a person and every ten digits for a phone."""

    def analyze(self, text, language, score_threshold):
        patterns = {"PERSON": r"[A-Z][a-z]+ [A-Z][a-z]+", "PHONE_NUMBER": r"\d{10}"}
        return [
            SimpleNamespace(entity_type=kind, start=match.start(), end=match.end())
            for kind, pattern in patterns.items()
            for match in re.finditer(pattern, text)
        ]


@pytest.fixture
def analyzer(monkeypatch):
    monkeypatch.setattr(presidio, "load_analyzer", FakeAnalyzer)
    monkeypatch.setattr(prepare_module, "filter_versions", lambda tool: VERSIONS if tool else {})


CAPTIONS = (
    "Discussed with Maria Gonzalez&#39;s team, 2125550187",
    "CT of the chest of Maria&nbsp;Gonzalez and Jens Franzen",
    "Plain radiograph  of the left knee",
)


@pytest.fixture
def table(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    rows = ["image\tcaption\tsplit"]
    for number, caption in enumerate(CAPTIONS):
        (folder / f"{number}.png").write_bytes(image_bytes(draw_image(number), "PNG"))
        rows.append(f"{number}.png\t{caption}\ttrain")
    (folder / "pairs.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return str(folder / "pairs.tsv")


CONFIG = PrepareConfig(deidentify="presidio")


def test_a_dataset_holds_neither_name_nor_number_and_counts_them(table, tmp_path, analyzer):
    dataset = prepare(table, tmp_path / "out", CONFIG, num_workers=1)
    rows = Split(tmp_path / "out", "train").table.to_pylist()
    assert [row["caption"] for row in rows] == [
        "Discussed with ___'s team, ___",
        "CT of the chest of ___ and ___",
        "Plain radiograph of the left knee",
    ]
    assert rows[2]["caption_original"] == CAPTIONS[2]
    assert dataset["privacy"] == {"train": {"presidio/PERSON": 3, "presidio/PHONE_NUMBER": 1}}
    assert dataset["deidentify"] == VERSIONS
    assert not re.search(b"Gonzalez|Franzen|2125550187", bytes_on_disk(tmp_path / "out"))


def test_without_the_setting_captions_stay_as_they_are(table, tmp_path, analyzer):
    dataset = prepare(table, tmp_path / "out", num_workers=1)
    assert "Franzen" in Split(tmp_path / "out", "train").column("caption")[1]
    assert not {"privacy", "deidentify"} & dataset.keys()


def test_a_preview_shows_what_would_be_replaced(table, analyzer):
    rows = preview(table, CONFIG)
    assert rows[0]["caption"] == "Discussed with ___'s team, ___"
    assert rows[0]["removed"] == ["presidio/PERSON", "presidio/PHONE_NUMBER"]


def test_a_caption_too_long_to_analyze_is_dropped_and_counted(table, tmp_path, analyzer):
    with Path(table).open("a") as file:
        file.write("2.png\t" + "lung " * 30_000 + "\ttrain\n")
    dataset = prepare(table, tmp_path / "out", CONFIG, num_workers=1)
    assert dataset["dropped"] == {"train": {"caption over 100,000 characters": 1}}


@pytest.mark.parametrize("change", [{"deidentify": None}, {"model_version": "3.8.1"}])
def test_a_preparation_does_not_resume_under_another_filter(table, tmp_path, analyzer, monkeypatch, change):
    def fail(*_):
        raise OSError("the disk is full")

    out = tmp_path / "out"
    monkeypatch.setattr(prepare_module, "write_notice", fail)
    with pytest.raises(Exception, match="the disk is full"):
        prepare(table, out, CONFIG, num_workers=1)
    monkeypatch.undo()
    monkeypatch.setattr(presidio, "load_analyzer", lambda: SimpleNamespace(analyze=lambda *_, **__: []))
    monkeypatch.setattr(prepare_module, "filter_versions", lambda tool: VERSIONS | change if tool else {})
    config = PrepareConfig(deidentify=change.get("deidentify", "presidio"))
    prepare(table, out, config, num_workers=1)
    assert "Franzen" in Split(out, "train").column("caption")[1]


def test_a_missing_package_is_named_before_anything_is_written(table, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "presidio_analyzer", None)
    with pytest.raises(
        UserError, match=re.escape(f"presidio_analyzer is not installed: {install_command('presidio')}")
    ):
        prepare(table, tmp_path / "out", CONFIG, num_workers=1)
    assert not (tmp_path / "out").exists()


def test_a_missing_model_is_named_with_its_command(table, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "presidio_analyzer", ModuleType("presidio_analyzer"))
    monkeypatch.setattr(presidio, "entry_points", lambda group: [])
    with pytest.raises(UserError, match="python -m spacy download en_core_web_lg"):
        preview(table, CONFIG)


@live
def test_presidio_detects_people_dates_and_numbers(caplog, capfd, monkeypatch):
    caplog.set_level(logging.DEBUG)
    text = (
        "69-year-old woman, T2 MR of C5 3 months later. Seen by Dr. Jonathan Whitfield on 12 March 2019, "
        "call 212-555-0187 or mail j.whitfield@example.org from 10.0.0.12. SSN 536-90-4399, card 4111 1111 1111 1111, "
        "IBAN GB29 NWBK 6016 1331 9268 19."
    )
    caption, counts = deidentify_caption(text)
    assert caption == (
        "69-year-old woman, T2 MR of C5 3 months later. Seen by Dr. ___ on ___, call ___ or mail ___ from ___. "
        "SSN ___, card ___, IBAN ___."
    )
    kinds = ("PERSON", "DATE_TIME", "PHONE_NUMBER", "EMAIL_ADDRESS", "IP_ADDRESS", "US_SSN", "CREDIT_CARD", "IBAN_CODE")
    assert counts == dict.fromkeys(kinds, 1)
    assert capfd.readouterr() == ("", "")
    assert not re.search("Whitfield|0187|536-90", caplog.text)


@live
def test_workers_load_presidio_themselves(table, tmp_path):
    dataset = prepare(table, tmp_path / "out", CONFIG, num_workers=2)
    assert dataset["deidentify"] == filter_versions("presidio")
    assert dataset["privacy"]["train"]["presidio/PERSON"] >= 2
    assert not re.search("Gonzalez|Franzen", json.dumps(Split(tmp_path / "out", "train").column("caption")))
