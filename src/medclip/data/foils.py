"""Captions changed in one thing, so that they no longer fit their image: what a model has to tell from the true one.

Each rule gives the changed caption, or None where a caption does not say what the rule changes. Case is kept, and so is
every word that is not tested, but for "a" and "an".
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from functools import cache, partial

import numpy as np

Foil = Callable[[str], str | None]

# Words that change places, from left to right and from right to left; of two rows that begin alike the first counts.
SIDES = (("left", "right"),)
ORGANS = (
    ("brain", "lung"), ("brain", "lungs"), ("head", "chest"), ("skull", "thorax"), ("cerebral", "pulmonary"),
    ("intracerebral", "intrapulmonary"), ("intracranial", "intrathoracic"),
)  # fmt: skip
MODALITIES = (
    ("CT", "MRI"), ("CT", "MR"), ("computed tomography", "magnetic resonance imaging"),
    ("computed tomographic", "magnetic resonance"), ("computerized tomography", "magnetic resonance imaging"),
    ("x-ray", "ultrasound"), ("radiograph", "sonogram"), ("radiographs", "sonograms"),
    ("radiography", "sonography"), ("radiography", "ultrasonography"), ("radiographic", "sonographic"),
)  # fmt: skip
WEIGHTINGS = tuple((f"T1{how}", f"T2{how}") for how in ("-weighted", " weighted", "W", "WI", " MRI", " MR", " image"))
PLANES = (
    ("axial", "coronal"), ("transverse", "coronal"), ("axial", "sagittal"),
    *((f"{front} {what}", f"lateral {what}") for front in ("frontal", "anteroposterior", "AP")
      for what in ("view", "projection", "radiograph", "x-ray", "plain", "film", "chest")),
)  # fmt: skip
SIZES = (
    ("small", "large"), ("smaller", "larger"), ("tiny", "huge"), ("thin", "thick"), ("thinning", "thickening"),
    ("narrow", "wide"), ("narrowing", "widening"), ("decreased", "increased"),
)  # fmt: skip
POSITIONS = (
    ("upper", "lower"), ("superior", "inferior"), ("anterior", "posterior"), ("proximal", "distal"),
    ("central", "peripheral"), ("ascending", "descending"), ("internal", "external"), ("unilateral", "bilateral"),
)  # fmt: skip

# Captions that a table must not touch: the head of a bone, words that betray another modality without an image,
# arrows of some size, and a view from back to front.
_NO_ORGAN = r"\b\w+(?:al|ar|ic) heads?\b|\bheads? of\b"
_OF_ONE_MODALITY = r"\b(?:T[12]\w*|weighted|FLAIR|STIR|DWI|diffusion|gadolinium|Doppler|echo\w*|PET|FDG|contrast)\b"
_SIZE_OF_ARROW = r"\b(?:small|large|thin|thick)(?: \w+)? arrow"
_VIEW = r"\w-(?:anterior|posterior|superior|inferior)"

_FINDINGS = (
    "abnormality|abscess|adenopathy|aneurysm|ascites|atelectasis|calcifications?|calcul(?:us|i)|cavity|collection|collapse|"
    "compression|consolidation|cysts?|deposit|dilat(?:at)?ion|dissection|displacement|edema|oedema|effusions?|embolism|"
    "emphysema|enhancement|enlargement|extravasation|fistula|fluid|fractures?|gas|haematoma|hematoma|haemorrhage|"
    "hemorrhage|hernia|hydronephrosis|infarct(?:ion)?|infiltrates?|leak|lesions?|lymphadenopathy|mass|masses|"
    "metastas[ie]s|narrowing|necrosis|nodules?|obstruction|occlusion|opacity|opacities|perforation|pneumonia|"
    "pneumothorax|polyp|pseudoaneurysm|rupture|stenosis|stones?|swelling|tear|thickening|thrombosis|thrombus|tumou?rs?"
)
_SHOWS = r"show(?:s|ed|ing)?|demonstrat(?:es?|ed|ing)|reveal(?:s|ed|ing)?|display(?:s|ed|ing)?|depict(?:s|ed|ing)?"
# Up to four words that belong to the finding: no verb, preposition or article stands among them.
_ADJECTIVES = (
    rf"(?:(?!(?:{_SHOWS}|an?|the|no|of|on|in|at|to|by|for|from|with|without|and|or|is|was|are|were|has|which|that|"
    r"there|after|before|patient|case|evidence|image|scan|CT|MRI)\b)[\w-]+,? ){0,4}?"
)
_FINDING = rf"{_ADJECTIVES}(?:crescent of fluid|(?:{_FINDINGS})\b)"
_STATED = re.compile(rf"(?<!\bin )(?<!\bof )\ban? (?={_FINDING})", re.IGNORECASE)
_STATED_BARE = re.compile(rf"\b(?:{_SHOWS}|with) (?={_FINDING})", re.IGNORECASE)
_EXCLUDED = re.compile(
    r"\bno (?:(?:definite |clear )?(?:evidence|signs?) of )?(?=\w)(?!longer|more|other|further|case|contrast)"
    r"|(?<!and )(?<!or )\bwithout (?!(?:\w+ )?contrast)(?:any |evidence of |signs? of )?",
    re.IGNORECASE,
)
_NORMAL = {
    "a normal": "an abnormal",
    "an unremarkable": "an abnormal",
    "normal": "abnormal",
    "unremarkable": "abnormal",
}
_NORMAL_WORDS = re.compile(rf"\b(?:{'|'.join(_NORMAL)})\b", re.IGNORECASE)

# Words that stay where they are when the order is changed: what holds a sentence together.
_FUNCTION = re.compile(
    r"an?|the|and|n?or|but|of|[io]n|at|to|by|for|from|with(?:out|in)?|into|onto|over|under|between|through|during|after|"
    r"before|as|is|are|was|were|be|been|ha[sd]|have|its?|th(?:is|at|ese|ose|ere|an|en)|which|who|whose|can|could|may|not?|"
    r"both|all|each|so",
    re.IGNORECASE,
)
_WORD = re.compile(r"(?<![\w-])[^\W\d_](?:[\w'’-]*\w)?")
_LEAST_WORDS = 4  # with fewer, an order of words can still be true
_VOWEL_SOUND = re.compile(r"[aeiou]|mri?\b|x-ray", re.IGNORECASE)


def swap_left_right(caption: str) -> str | None:
    """The caption with left and right exchanged; None where it names no side, or both."""
    return swap_terms(caption, SIDES)


def swap_terms(caption: str, pairs: tuple[tuple[str, str], ...], unless: str = "") -> str | None:
    """The caption with every word of `pairs` exchanged for its partner.

    None where it has none of them or matches the pattern `unless`, and where the exchange leads to a word that was
    there before or twice to the same: "axial and coronal" would become "coronal and axial", which is as true.
    """
    pattern, partner = _words(pairs)
    said = {found.group("word").lower() for found in pattern.finditer(caption)}
    if not said or len({partner[word].lower() for word in said} - said) < len(said):
        return None
    if unless and re.search(unless, caption, re.IGNORECASE):
        return None

    def other(found: re.Match[str]) -> str:
        word, article = found.group("word"), found.group("article") or ""
        new = _cased(partner[word.lower()], word, not article and _begins(caption, found.start("word")))
        return (_agreeing(article, new) if article else "") + new

    return pattern.sub(other, caption)


def negate_finding(caption: str) -> str | None:
    """The caption with the first finding that it states said to be absent: "a mass" becomes "no mass"."""
    if _EXCLUDED.search(caption):
        return None
    if found := _STATED.search(caption):
        return _spliced(caption, found.start(), found.end(), "no ")
    if found := _STATED_BARE.search(caption):
        return _spliced(caption, found.end(), found.end(), "no ")
    return None


def affirm_finding(caption: str) -> str | None:
    """The caption with the first finding that it excludes said to be present: "no mass" becomes "mass".

    "without" becomes "with", and what is normal abnormal, if the caption says nothing else is absent.
    """
    if found := _EXCLUDED.search(caption):
        new = "with " if found.group().lower().startswith("without") else ""
        return _spliced(caption, found.start(), found.end(), new)
    if found := _NORMAL_WORDS.search(caption):
        new = _cased(_NORMAL[found.group().lower()], found.group(), _begins(caption, found.start()))
        return _spliced(caption, found.start(), found.end(), new)
    return None


def shuffle_words(caption: str, seed: int) -> str | None:
    """The caption with its content words in another order, drawn from `seed` and the caption (Yuksekgonul et al. 2023).

    Function words, numbers and punctuation stay where they are. None where fewer than four different words could move.
    """
    places = [found for found in _WORD.finditer(caption) if not _FUNCTION.fullmatch(found.group())]
    words = [found.group() for found in places]
    if len({word.lower() for word in words}) < _LEAST_WORDS:
        return None
    begins = [_begins(caption, found.start()) for found in places]
    plain = [w[0].lower() + w[1:] if b and w[1:].islower() else w for w, b in zip(words, begins, strict=True)]
    rng = np.random.default_rng((seed, zlib.crc32(caption.encode())))
    order = rng.permutation(len(words))
    while [plain[i].lower() for i in order] == [word.lower() for word in words]:
        order = rng.permutation(len(words))
    parts, end = [], 0
    for place, begin, i in zip(places, begins, order, strict=True):
        capital = begin and place.group()[0].isupper()
        parts += caption[end : place.start()], plain[i][0].upper() + plain[i][1:] if capital else plain[i]
        end = place.end()
    return "".join(parts) + caption[end:]


def foil_rules(seed: int) -> dict[str, Foil]:
    """The rules by the name of the test that they make: an image's choice between its caption and the changed one."""
    return {
        "left or right": swap_left_right,
        "brain or lung": partial(swap_terms, pairs=ORGANS, unless=_NO_ORGAN),
        "finding present": negate_finding,
        "finding absent": affirm_finding,
        "modality": partial(swap_terms, pairs=MODALITIES, unless=_OF_ONE_MODALITY),
        "MRI weighting": partial(swap_terms, pairs=WEIGHTINGS),
        "plane": partial(swap_terms, pairs=PLANES),
        "size": partial(swap_terms, pairs=SIZES, unless=_SIZE_OF_ARROW),
        "place": partial(swap_terms, pairs=POSITIONS, unless=_VIEW),
        "word order": partial(shuffle_words, seed=seed),
    }


@cache
def _words(pairs: tuple[tuple[str, str], ...]) -> tuple[re.Pattern[str], dict[str, str]]:
    """A pattern of whole words, "a" or "an" before them, and the partner of each by its lower case."""
    partner: dict[str, str] = {}
    for one, other in pairs:
        partner.setdefault(one.lower(), other)
        partner.setdefault(other.lower(), one)
    ways = "|".join(re.escape(word) for word in sorted(partner, key=len, reverse=True))
    flags = re.IGNORECASE | re.ASCII  # without ASCII a dotless i would be an i, and not found again
    return re.compile(rf"(?:\b(?P<article>an? ))?\b(?P<word>{ways})\b", flags), partner


def _begins(caption: str, place: int) -> bool:
    """Whether a sentence begins there."""
    before = caption[:place].rstrip("“\"'([ ")
    return not before or before[-1] in ".!?:"


def _cased(new: str, old: str, begins: bool) -> str:
    """`new` in the case of the word it replaces; abbreviations are upper case unless that one was all lower."""
    if len(old) == len(new):
        return "".join(n.upper() if o.isupper() else n.lower() for o, n in zip(old, new, strict=True))
    if old.islower():
        return new.lower()
    if old.isupper():
        return new.upper()
    return new[0].upper() + new[1:] if begins or old.istitle() else new


def _agreeing(article: str, word: str) -> str:
    """ "a " or "an " as the sound of a word wants it, in the case of `article`."""
    new = "an " if _VOWEL_SOUND.match(word) else "a "
    return new.capitalize() if article[0].isupper() else new


def _spliced(caption: str, start: int, end: int, new: str) -> str:
    """The caption with `new` in place of a part; a capital that was lost with the part comes back."""
    rest = new + caption[end:]
    capital = _begins(caption, start) and caption[start : start + 1].isupper()
    return caption[:start] + (rest[:1].upper() + rest[1:] if capital else rest)
