"""The search page in each of its states, without a browser."""

import dataclasses
import io
import json
import os
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medclip.app.text import escape_markdown
from medclip.atomic_io import write_with_checksum
from medclip.data import images
from medclip.match_calibration import read_calibration, write_calibration
from medclip.model.checkpoint import model_hash
from medclip.no_match import Threshold
from medclip.search.curate import add, delete
from medclip.search.filters import make_filter
from medclip.search.index import Index
from medclip.search.match import describe_model, to_percent
from medclip.search.query import Query, SearchOptions, similar
from medclip.search.reader import IndexReader


def captions(at):
    return [element.value for element in at.text]


def button_named(at, label):
    return next(button for button in at.button if button.label == label)


def ask(at, words):
    return at.text_input(key="text").set_value(words).run()


def upload(at, name, content):
    return at.file_uploader(key="upload").set_value((name, content, "application/octet-stream")).run()


@pytest.fixture(scope="module")
def png():
    with io.BytesIO() as out:
        Image.fromarray(np.arange(60 * 40, dtype=np.uint8).reshape(60, 40)).save(out, "PNG")
        return out.getvalue()


@pytest.fixture(scope="module")
def searcher(index_folder):
    return Index.open(index_folder)


def expected_captions(searcher, query, k=12, **only):
    return [hit.caption for hit in searcher.search_many([query], SearchOptions(k, make_filter(only)))[0]]


def test_before_a_question_the_page_says_what_to_do(page, sound, index_folder):
    at = sound(page(index_folder))
    assert captions(at) == []
    assert any("Type what you are looking for" in element.value for element in at.markdown)


def test_words_find_what_the_search_finds_and_say_how_near(page, sound, index_folder, searcher):
    at = sound(ask(page(index_folder), "CT of the left chest"))
    (hits,) = searcher.search_many([Query(("CT of the left chest",))], SearchOptions(12))
    assert captions(at) == [hit.caption for hit in hits]
    cosines = [element.value for element in at.caption if element.value.startswith("cosine")]
    assert cosines == [f"cosine {hit.score:.3f}" for hit in hits]
    links = [element.value for element in at.markdown if "pmc.ncbi" in element.value]
    assert links == [
        f"[{hit.article}](https://pmc.ncbi.nlm.nih.gov/articles/{hit.article}/) · {hit.license}" for hit in hits
    ]


def test_beside_the_cosines_it_says_how_likely_the_right_image_is_among_them(page, sound, index_folder, searcher):
    at = sound(ask(page(index_folder), "CT of the left chest"))
    (result,) = searcher.answer([Query(("CT of the left chest",))], SearchOptions(12))
    shown = [element.value for element in at.caption]
    assert [text for text in shown if text.startswith("right so far")] == [
        f"right so far {to_percent(probability)}" for probability in result.probabilities
    ]
    assert escape_markdown(result.note) in shown
    (warning,) = at.warning
    assert warning.value == escape_markdown(describe_model(searcher.calibration))
    assert "That is near chance" in warning.value


def change_calibration(run, copy, change):
    """A copy of the model with another calibration."""
    model = copy(run / "model")
    calibration = read_calibration(model, model_hash(model))
    write_calibration(model, change(calibration))
    return model


def test_a_good_model_is_no_warning_and_far_hits_are_one(page, sound, index_folder, run, copy):
    def good_and_far(calibration):
        recall = dataclasses.replace(calibration.recall_at_10, low=0.25, chance=0.015)
        return dataclasses.replace(calibration, recall_at_10=recall, thresholds=(Threshold(1, 12, 0.99),))

    at = page(index_folder, models=(change_calibration(run, copy, good_and_far),))
    at = sound(ask(at, "CT of the left chest"))
    (warning,) = at.warning
    assert warning.value.startswith("No match\\: of texts as long whose image is in the index")
    assert len(captions(at)) == 12  # they are shown all the same
    assert not any("right so far" in element.value for element in at.caption)  # that holds where there is a match
    assert any(element.value.startswith("The model on its own validation") for element in at.caption)


def test_without_a_calibration_the_page_says_why(page, sound, index_folder, run, copy):
    model = copy(run / "model")
    (model / "calibration.json").unlink()
    at = sound(ask(page(index_folder, models=(model,)), "CT of the left chest"))
    shown = [element.value for element in at.caption]
    assert any(text.startswith("No probability\\: the model has no calibration.json") for text in shown)
    assert not any("right so far" in text or "its own validation" in text for text in shown)
    assert list(at.warning) == []


def test_an_example_fills_the_box_and_answers(page, sound, index_folder):
    at = sound(button_named(page(index_folder), "brain MRI").click().run())
    assert at.text_input(key="text").value == "brain MRI"
    assert len(captions(at)) == 12


def test_the_number_of_results_is_obeyed_and_stops_at_the_pool(page, sound, index_folder):
    at = ask(page(index_folder), "chest")
    assert len(captions(at.slider(key="k").set_value(2).run())) == 2
    assert len(captions(sound(at.slider(key="k").set_value(48).run()))) == 12


@pytest.mark.parametrize("words", ["", "   "])
def test_an_empty_question_is_none(page, sound, index_folder, words):
    at = sound(ask(page(index_folder), words))
    assert captions(at) == [] and list(at.error) == []


def test_what_is_not_wanted_changes_the_answer_as_the_search_says(page, sound, index_folder, searcher):
    at = ask(page(index_folder), "chest")
    at = sound(at.text_input(key="negative").set_value("knee, pelvis").run())
    assert captions(at) == expected_captions(searcher, Query(("chest",), (), ("knee", "pelvis")))


def test_filters_narrow_the_answer_and_can_be_cleared(page, sound, index_folder, searcher):
    at = ask(page(index_folder), "chest")
    at = sound(at.multiselect(key="only-modality").set_value(["ct"]).run())
    assert captions(at) == expected_captions(searcher, Query(("chest",)), modality=["ct"]) and len(captions(at)) == 1
    assert at.multiselect(key="only-modality").options == ["ct (1)"]
    assert len(captions(sound(button_named(at, "Clear these").click().run()))) == 12


def test_without_labels_nothing_is_offered_to_filter_by(page, sound, index_folder, monkeypatch):
    assert "Only" in [header.value for header in page(index_folder).header]
    monkeypatch.setattr("medclip.app.query_form._label_counts", lambda indexes: {})
    assert [header.value for header in sound(page(index_folder)).header] == ["Results"]


def test_days_are_offered_where_there_are_several(page, sound, index_folder, data, copy):
    assert page(index_folder).get("date_input") == []
    folder = copy_index(index_folder, copy)
    assert add(folder, data, "train", 15, None)[0] == 3
    manifest = json.loads((folder / "index.json").read_text())
    manifest["segments"][0]["added"], manifest["segments"][1]["added"] = "2026-01-02", "2026-03-04"
    write_with_checksum(folder / "index.json", manifest)
    at = sound(ask(page(folder), "chest"))
    assert len(captions(at)) == 12
    at = sound(at.date_input(key="only-added").set_value((date(2026, 3, 1), date(2026, 3, 4))).run())
    assert captions(at) == expected_captions(Index.open(folder), Query(("chest",)), added=["2026-03-04"])
    at = sound(at.date_input(key="only-added").set_value((date(2026, 1, 2),)).run())
    assert len(captions(at)) == 12
    assert at.button(key="clear-side").click().run().date_input(key="only-added").value in ((), None)


def test_nothing_found_says_so_and_how_to_go_on(page, sound, index_folder):
    at = sound(ask(page(index_folder), "chest").multiselect(key="only-modality").set_value(["ct"]).run())
    assert len(captions(at)) == 1
    at = next(b for b in at.button if b.label == "Find similar").click().run()  # to the only one that the filter leaves
    assert captions(sound(at)) == [] and "No results" in at.info[0].value
    assert len(captions(sound(button_named(at, "Clear the filters").click().run()))) == 11


def test_an_article_is_shown_once_where_that_is_asked_for(page, sound, index_folder):
    at = sound(ask(page(index_folder), "chest").toggle(key="one-per-article").set_value(True).run())
    assert len(captions(at)) == 6  # two images an article


def test_an_image_finds_what_the_search_finds_also_with_words(page, sound, index_folder, searcher, png):
    at = sound(upload(page(index_folder), "x.png", png))
    assert captions(at) == expected_captions(searcher, Query((), (png,)))
    assert "upload" not in [uploader.key for uploader in at.file_uploader]
    at = sound(ask(at, "like this, but MRI"))
    assert captions(at) == expected_captions(searcher, Query(("like this, but MRI",), (png,)))
    at = sound(button_named(at, "Remove").click().run())
    assert captions(at) == expected_captions(searcher, Query(("like this, but MRI",)))


@pytest.mark.parametrize(
    "content", [b"not an image", b"", b"<svg onload='alert(1)'/>", b"\x89PNG\r\n\x1a\n" + bytes(60)]
)
def test_an_upload_that_is_not_an_image_is_one_sentence(page, sound, index_folder, content):
    at = sound(upload(page(index_folder), "x.png", content))
    assert [element.value for element in at.error] == [
        "The uploaded image\\: image unreadable; choose another PNG, JPEG or DICOM file."
    ]
    assert captions(at) == []
    assert len(captions(sound(ask(at, "chest")))) == 12  # and the page goes on


def test_find_similar_leaves_the_image_itself_out(page, sound, index_folder, searcher):
    at = ask(page(index_folder), "chest")
    first = captions(at)[0]
    at = sound(next(b for b in at.button if b.label == "Find similar").click().run())
    (hit,) = searcher.search_many([Query(("chest",))], SearchOptions(1))[0]
    assert captions(at) == [
        hit.caption for hit in similar(searcher.reader, *searcher.reader.find_rows(hit.id), SearchOptions(12))
    ]
    assert first not in captions(at) and at.text_input(key="text").value == ""


def test_a_change_of_the_index_is_seen_without_a_restart(page, sound, index_folder, copy):
    folder = copy_index(index_folder, copy)
    at = ask(page(folder), "chest")
    first = Index.open(folder).search_many([Query(("chest",))], SearchOptions(1))[0][0]
    delete(folder, ids=[first.id])
    at = sound(at.run())
    assert len(captions(at)) == 11 and first.caption not in captions(at)


def test_an_index_that_goes_away_is_one_sentence_until_it_is_back(page, sound, index_folder, copy):
    folder = copy_index(index_folder, copy)
    at = ask(page(folder), "chest")
    folder.rename(folder.with_name("away"))
    at = sound(at.run())
    assert "it does not exist" in at.error[0].value
    folder.with_name("away").rename(folder)
    assert len(captions(sound(button_named(at, "Try again").click().run()))) == 12


def test_a_damaged_index_is_one_sentence(page, sound, index_folder, copy):
    folder = copy_index(index_folder, copy)
    next(folder.rglob("embeddings.npy")).write_bytes(b"nothing")
    at = sound(page(folder))
    assert "is damaged" in at.error[0].value


def test_an_index_that_is_damaged_or_unreadable_while_it_is_shown_is_one_sentence(
    page, sound, index_folder, copy, monkeypatch
):
    folder = copy_index(index_folder, copy)
    at = sound(ask(page(folder), "chest"))
    shown, rows = captions(at), next(folder.rglob("rows.arrow"))
    content = rows.read_bytes()
    os.truncate(rows, 100)
    at = sound(ask(at, "knee"))
    assert "is damaged" in at.error[0].value and captions(at) == []
    rows.write_bytes(content)
    at = sound(button_named(at, "Try again").click().run())
    assert captions(sound(ask(at, "chest"))) == shown

    def fail(*_):
        raise PermissionError(13, "Permission denied", "segments")

    monkeypatch.setattr(IndexReader, "nearest_rows", fail)
    assert sound(ask(at, "ribs")).error[0].value == "Segments\\: Permission denied."


def test_an_index_of_another_model_is_one_sentence(page, sound, index_folder, copy):
    folder = copy_index(index_folder, copy)
    manifest = json.loads((folder / "index.json").read_text())
    write_with_checksum(folder / "index.json", manifest | {"model_sha256": "0" * 64})
    at = sound(page(folder))
    assert "was made by another model" in at.error[0].value


def test_two_indexes_answer_side_by_side_or_alone(page, sound, index_folder, copy):
    first = copy_index(index_folder, copy)
    other = copy_index(first, copy)
    first = first.rename(other.with_name(other.name.replace("-", ".")))  # names that are told apart by a dot
    delete(other, ids=["ROCO_00000"])
    at = sound(ask(page(first, other), "chest"))
    assert len(captions(at)) == 12 + 11
    assert len(captions(sound(at.segmented_control(key="index").set_value(other.name).run()))) == 11


def test_an_image_that_cannot_be_decoded_is_a_sentence_in_its_place(page, sound, index_folder, copy, searcher):
    folder = copy_index(index_folder, copy)
    (hit,) = searcher.search_many([Query(("chest",))], SearchOptions(1))[0]
    rows = next(folder.rglob("rows.arrow"))
    content = rows.read_bytes()
    assert content.count(hit.image) == 1
    rows.write_bytes(content.replace(hit.image, hit.image[:3] + bytes(len(hit.image) - 3)))
    at = sound(ask(page(folder), "chest"))
    sentence = "This image cannot be shown\\: image unreadable."
    assert [element.value for element in at.error] == [sentence] and len(captions(at)) == 12
    at = sound(button_named(at, "Enlarge image 1").click().run())
    assert [element.value for element in at.error] == [sentence] * 2
    at = sound(button_named(at, "Find similar").click().run())
    assert at.error[0].value == sentence and captions(at) == []


def test_images_of_the_index_are_decoded_by_workers(page, sound, index_folder, monkeypatch):
    monkeypatch.setattr(images, "_open_image", None)  # of this process alone
    at = sound(ask(page(index_folder), "chest"))
    assert not at.error and len(captions(at)) == 12
    assert not sound(button_named(at, "Enlarge image 1").click().run()).error


def test_a_caption_is_data(page, sound, index_folder, copy, monkeypatch):
    hostile = "# big ![x](https://example.org/x.png) <b>bold</b> :red[x] $x$"
    original = IndexReader.hit

    def hit(*args):
        return dataclasses.replace(original(*args), caption=hostile, article=hostile, license=hostile)

    monkeypatch.setattr(IndexReader, "hit", hit)
    monkeypatch.setattr(IndexReader, "value_counts", property(lambda reader: {hostile: {"a": 1, "b": 2}}))
    at = sound(ask(page(index_folder), "chest"))
    assert set(captions(at)) == {hostile}
    at = sound(button_named(at, "Enlarge image 1").click().run())
    names = [at.multiselect[0].label, *(option.content for option in at.get("button_group")[0].proto.options)]
    assert names == [escape_markdown(hostile.capitalize()), escape_markdown(hostile)]
    assert not [mark for mark in ("![", "<b>", ":red[", "$x$") for element in at.markdown if mark in element.value]


def copy_index(folder, copy) -> Path:
    """A copy of an index that may be changed, beside the model that it names."""
    target = copy(folder)
    manifest = json.loads((target / "index.json").read_text())
    write_with_checksum(target / "index.json", manifest | {"model": str((folder / manifest["model"]).resolve())})
    return target


def test_every_image_says_what_it_shows(page, index_folder, png):
    at = upload(page(index_folder), "x.png", png)
    assert [image.proto.imgs[0].alt for image in at.image] == [
        "The query's image: Your image",
        *captions(at),
    ]
