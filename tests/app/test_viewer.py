"""The viewer: window and level, zero-shot classes, and the saliency map of a text."""

import io

import numpy as np
import pytest
from PIL import Image

from medclip.app.viewer import apply_window, gray_values, read_classes
from medclip.encode.encoder import embed_images
from medclip.search.index import Index
from medclip.search.query import Query, SearchOptions
from medclip.zero_shot import classify


def button_named(at, label):
    return next(button for button in at.button if button.label == label)


def rerun_dialog(at):
    """Runs the page as a dialog's own changes do: with the dialog open, which a test's runs would close."""
    return button_named(at, "Enlarge image 1").click().run()


def enlarged_url(at):
    """The address of the enlarged image, which is made of its content."""
    return at.image[-1].value[0]


@pytest.fixture
def viewer(page, sound, index_folder):
    """The page with the first hit of "chest" opened."""
    at = page(index_folder).text_input(key="text").set_value("chest").run()
    return sound(rerun_dialog(at))


@pytest.fixture(scope="module")
def hit(index_folder):
    return Index.open(index_folder).search_many([Query(("chest",))], SearchOptions(1))[0][0]


def test_it_shows_source_and_license(viewer, hit):
    texts = [element.value for element in viewer.markdown]
    assert hit.caption in [element.value for element in viewer.text]
    assert hit.license in texts and hit.id.replace("_", "\\_") in texts
    links = [button.url for button in viewer.get("link_button")]
    assert links == [f"https://pmc.ncbi.nlm.nih.gov/articles/{hit.article}/"]


def test_the_notice_stands_on_it_too(viewer):
    notices = [element for element in viewer.caption if "not for clinical use" in element.value]
    assert len(notices) == 2


def test_a_gray_image_has_a_window_that_can_be_reset(viewer, sound, hit):
    whole = enlarged_url(viewer)
    viewer.slider(key=f"width-{hit.id}").set_value(40)
    narrow = enlarged_url(sound(rerun_dialog(viewer)))
    viewer.toggle(key=f"invert-{hit.id}").set_value(True)
    assert len({whole, narrow, enlarged_url(sound(rerun_dialog(viewer)))}) == 3
    button_named(viewer, "Reset").click()
    assert enlarged_url(sound(rerun_dialog(viewer))) == whole


def test_classes_get_the_probabilities_that_classify_gives(viewer, sound, hit, model):
    viewer.text_area(key="classes").set_value("chest, knee\nbrain,, chest")
    at = sound(rerun_dialog(viewer))
    expected = classify(model, embed_images(model, [hit.image]), ["chest", "knee", "brain"])[0]
    progress = dict(element.proto.text.rsplit(": ", 1) for element in at.get("progress"))
    assert progress == {
        name: f"**{100 * p:.0f} %**" for name, p in zip(("chest", "knee", "brain"), expected, strict=True)
    }


def test_a_class_of_the_index_may_hold_a_comma():
    presets = {"modality": ["CT, contrast", "MRI"]}
    assert read_classes("CT, contrast, MRI", presets) == (["CT, contrast", "MRI"], "modality")
    assert read_classes("CT,\nMRI, CT,", presets) == (["CT", "MRI"], "default")


def test_one_class_is_a_sentence(viewer, sound):
    viewer.text_area(key="classes").set_value("chest")
    assert "2 to 100 classes" in sound(rerun_dialog(viewer)).error[0].value


def test_a_saliency_map_is_made_when_the_button_is_pressed(viewer, sound):
    assert not [caption for caption in viewer.caption if "speaks for the text" in caption.value]
    assert viewer.text_input(key="saliency-text").value == "chest"
    button_named(viewer, "Show where").click()
    at = sound(rerun_dialog(viewer))
    assert [caption for caption in at.caption if "speaks for the text" in caption.value]
    at.text_input(key="saliency-text").set_value("  ")
    assert [caption for caption in sound(rerun_dialog(at)).caption if caption.value == "Say what to look for."]


def png(pixels):
    with io.BytesIO() as out:
        Image.fromarray(np.uint8(pixels)).save(out, "PNG")
        return out.getvalue()


def test_the_window_is_that_of_dicom():
    """PS3.3 C.11.2.1.2.1 by cases, in its own words: c is the level, w the width."""
    gray = np.arange(256, dtype=np.uint8)
    for level, width in ((128, 256), (60, 40), (200, 2), (0, 512), (255, 17)):
        expected = []
        for x in range(256):
            if x <= level - 0.5 - (width - 1) / 2:
                expected.append(0)
            elif x > level - 0.5 + (width - 1) / 2:
                expected.append(255)
            else:
                expected.append(round(((x - (level - 0.5)) / (width - 1) + 0.5) * 255))
        assert np.abs(apply_window(gray, level, width).astype(int) - expected).max() <= 1  # halves round either way


def test_the_whole_window_changes_nothing_and_the_narrowest_is_two_tones():
    gray = np.arange(256, dtype=np.uint8)
    assert (apply_window(gray, 128, 256) == gray).all()
    assert apply_window(gray, 100, 1).tolist() == [0] * 100 + [255] * 156


def test_only_a_gray_image_has_values():
    assert (gray_values(png([[0, 7], [9, 255]])) == [[0, 7], [9, 255]]).all()
    assert gray_values(png(np.random.default_rng(0).integers(0, 255, (4, 4, 3)))) is None
