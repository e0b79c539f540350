"""An image by itself: its window, its classes, and where it shows what words say."""

import pytest

from medclip.encode.encoder import embed_images
from medclip.search.query import Query, SearchOptions, open_searcher, search
from medclip.zero_shot import classify


def labeled(at, label):
    return next(button for button in at.button if button.label == label)


def again(at):
    """Runs the page as a dialog's own changes do: with the dialog open, which a test's runs would close."""
    return labeled(at, "Enlarge image 1").click().run()


def shown(at):
    """The address of the enlarged image, which is made of its content."""
    return at.image[-1].value[0]


@pytest.fixture
def opened(page, sound, index_folder):
    """The page with the first hit of "chest" opened."""
    at = page(index_folder).text_input(key="words").set_value("chest").run()
    return sound(again(at))


@pytest.fixture(scope="module")
def hit(index_folder):
    return search(open_searcher(index_folder), [Query(("chest",))], SearchOptions(1))[0][0]


def test_it_says_whose_the_picture_is(opened, hit):
    shown = [element.value for element in opened.markdown]
    assert hit.caption in [element.value for element in opened.text]
    assert hit.license in shown and hit.id.replace("_", "\\_") in shown
    links = [button.url for button in opened.get("link_button")]
    assert links == [f"https://pmc.ncbi.nlm.nih.gov/articles/{hit.article}/"]


def test_the_notice_stands_on_it_too(opened):
    notices = [element for element in opened.caption if "not for clinical use" in element.value]
    assert len(notices) == 2


def test_a_grey_picture_has_a_window_that_can_be_reset(opened, sound, hit):
    whole = shown(opened)
    opened.slider(key=f"width-{hit.id}").set_value(40)
    narrow = shown(sound(again(opened)))
    opened.toggle(key=f"invert-{hit.id}").set_value(True)
    assert len({whole, narrow, shown(sound(again(opened)))}) == 3
    labeled(opened, "Reset").click()
    assert shown(sound(again(opened))) == whole


def test_classes_get_the_probabilities_that_classify_gives(opened, sound, hit, model):
    opened.text_area(key="classes").set_value("chest, knee\nbrain,, chest")
    at = sound(again(opened))
    expected = classify(model, embed_images(model, [hit.image]), ["chest", "knee", "brain"])[0]
    told = dict(element.proto.text.rsplit(": ", 1) for element in at.get("progress"))
    assert told == {name: f"**{100 * p:.0f} %**" for name, p in zip(("chest", "knee", "brain"), expected, strict=True)}


def test_one_class_is_a_sentence(opened, sound):
    opened.text_area(key="classes").set_value("chest")
    assert "2 to 100 classes" in sound(again(opened)).error[0].value


def test_relevance_is_made_when_it_is_asked_for(opened, sound):
    assert not [caption for caption in opened.caption if "speaks for the words" in caption.value]
    assert opened.text_input(key="pointed-at").value == "chest"
    labeled(opened, "Show where").click()
    at = sound(again(opened))
    assert [caption for caption in at.caption if "speaks for the words" in caption.value]
    at.text_input(key="pointed-at").set_value("  ")
    assert [caption for caption in sound(again(at)).caption if caption.value == "Say what to look for."]
