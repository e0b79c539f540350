"""Nothing tells a measured caption from its foil but its image; the frames that are measured are not trained on."""

import re
from collections import Counter
from itertools import combinations, product

import numpy as np
import pytest

from medclip.data.foils import foil_rules
from medclip.data.phantoms.cases import WORDINGS
from support.benchmarks import load_benchmark

CAPTIONS = load_benchmark("balanced_captions")
MEASURED = list(CAPTIONS.measured_captions())
IMAGE_TESTS = (("left or right",), ("finding present", "finding absent"), ("plane",), ("modality",))
VISIBLE = {noun: finding for finding in CAPTIONS.FINDINGS for noun in WORDINGS[finding]}


def foils(tests):
    """Each measured caption that has a foil, with it."""
    rules = [foil_rules(0)[test] for test in tests]
    return [(caption, foil) for _, caption in MEASURED for rule in rules if (foil := rule(caption)) is not None]


def holds(caption, case):
    """Whether what a caption says is so, read from its words alone."""
    noun = next(noun for noun in sorted(VISIBLE, key=len, reverse=True) if noun in caption.lower())
    side = re.search(r"\b(left|right)\b", caption)
    modality = next(name for name in CAPTIONS.MODALITIES if name in caption.lower())
    is_visible = case.finding == VISIBLE[noun] and (not side or case.side == side[1])
    return (
        case.modality in CAPTIONS.MODALITIES[modality]
        and case.plane in caption.lower()
        and case.organ in caption.lower()
        and is_visible == (re.search(r"\bno\b", caption) is None)
    )


@pytest.mark.parametrize("tests", IMAGE_TESTS, ids=" and ".join)
def test_each_foil_is_the_caption_of_another_image_whose_foil_is_this_caption(tests):
    """So any choice that does not see the image is right in exactly half of them."""
    pairs = Counter(foils(tests))
    assert pairs == Counter((foil, caption) for caption, foil in pairs.elements())
    assert pairs.total() >= 0.6 * len(MEASURED)


@pytest.mark.parametrize(
    ("stream", "grammar"), [(1, CAPTIONS.MEASURED), (2, CAPTIONS.CHOOSING)], ids=["test", "validation"]
)
def test_captions_are_true_and_their_foils_are_not(stream, grammar):
    for number, (statement, caption) in enumerate(CAPTIONS.measured_captions(grammar)):
        case = CAPTIONS.true_case(statement, np.random.default_rng((stream, number)))
        assert holds(caption, case)
        for tests in IMAGE_TESTS:
            for test in tests:
                assert (foil := foil_rules(0)[test](caption)) is None or not holds(foil, case)


def frames(grammar):
    return {
        clause.format(study=description, finding="{finding}")
        for clause, description in product(grammar.clauses, grammar.descriptions)
    }


def test_each_split_has_frames_of_its_own_of_the_words_that_are_trained_on():
    rng = np.random.default_rng(0)
    trained = [CAPTIONS.write_caption(CAPTIONS.draw_statement(rng), rng, CAPTIONS.TRAINING) for _ in range(3000)]
    others = [
        caption for grammar in (CAPTIONS.MEASURED, CAPTIONS.CHOOSING)
        for _, caption in CAPTIONS.measured_captions(grammar)
    ]  # fmt: skip
    words, expected = (set(re.findall(r"[\w'-]+", " ".join(texts).lower())) for texts in (trained, others))
    assert expected <= words
    for one, other in combinations((CAPTIONS.TRAINING, CAPTIONS.MEASURED, CAPTIONS.CHOOSING), 2):
        assert not frames(one) & frames(other)
        assert not {*one.descriptions} & {*other.descriptions}
        assert not {*one.clauses} & {*other.clauses}


def test_what_is_stated_does_not_depend_on_the_rest_of_a_training_caption():
    """Within 4 standard errors, of the plane and of whether there is a side."""
    rng = np.random.default_rng(0)
    drawn = [CAPTIONS.draw_statement(rng) for _ in range(4000)]
    for key in (lambda s: s.plane, lambda s: s.side, lambda s: s.modality, lambda s: s.finding):
        for value in {key(s) for s in drawn}:
            stated = [s.is_stated for s in drawn if key(s) == value]
            assert abs(np.mean(stated) - CAPTIONS.STATED_SHARE) < 4 * 0.5 / np.sqrt(len(stated))
