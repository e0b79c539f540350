"""Foils: captions with one change, so that they no longer describe their image (Shekhar et al. 2017; VALSE, 2022).

Each rule returns the changed caption, or None where it does not apply. Case and all words that are not tested are
preserved, except "a" and "an".
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence
from functools import cache, partial

import numpy as np

Foil = Callable[[str], str | None]

# Words exchanged in both directions; of two rows with the same first word the first one counts.
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
WEIGHTINGS = tuple(
    (f"T1{suffix}", f"T2{suffix}") for suffix in ("-weighted", " weighted", "W", "WI", " MRI", " MR", " image")
)
FRONTAL_NOUNS = ("view", "projection", "radiograph", "x-ray", "plain", "film", "chest")
PLANES = (
    ("axial", "coronal"), ("transverse", "coronal"), ("axial", "sagittal"),
    *((f"{frontal} {noun}", f"lateral {noun}") for frontal in ("frontal", "anteroposterior", "AP")
      for noun in FRONTAL_NOUNS),
)  # fmt: skip
SIZES = (
    ("small", "large"), ("smaller", "larger"), ("tiny", "huge"), ("thin", "thick"), ("thinning", "thickening"),
    ("narrow", "wide"), ("narrowing", "widening"), ("decreased", "increased"),
)  # fmt: skip
POSITIONS = (
    ("upper", "lower"), ("superior", "inferior"), ("anterior", "posterior"), ("proximal", "distal"),
    ("central", "peripheral"), ("ascending", "descending"), ("internal", "external"), ("unilateral", "bilateral"),
)  # fmt: skip

# Captions that a table does not apply to: the head of a bone, words that reveal the modality without an image, sizes
# of arrows, and views from back to front.
_BONE_HEAD = r"\b\w+(?:al|ar|ic) heads?\b|\bheads? of\b"
MODALITY_CLUE = r"\b(?:T[12]\w*|weighted|FLAIR|STIR|DWI|diffusion|gadolinium|Doppler|echo\w*|PET|FDG|contrast)\b"
_ARROW_SIZE = r"\b(?:small|large|thin|thick)(?: \w+)? arrow"
_VIEW_DIRECTION = r"\w-(?:anterior|posterior|superior|inferior)"

_FINDINGS = (
    "abnormality|abscess|adenopathy|aneurysm|ascites|atelectasis|calcifications?|calcul(?:us|i)|cavity|collection|collapse|"
    "compression|consolidation|cysts?|deposit|dilat(?:at)?ion|dissection|displacement|edema|oedema|effusions?|embolism|"
    "emphysema|enhancement|enlargement|extravasation|fistula|fluid|fractures?|gas|haematoma|hematoma|haemorrhage|"
    "hemorrhage|hernia|hydronephrosis|infarct(?:ion)?|infiltrates?|leak|lesions?|lymphadenopathy|mass|masses|"
    "metastas[ie]s|narrowing|necrosis|nodules?|obstruction|occlusion|opacity|opacities|perforation|pneumonia|"
    "pneumothorax|polyp|pseudoaneurysm|rupture|stenosis|stones?|swelling|tear|thickening|thrombosis|thrombus|tumou?rs?"
)
_SHOWS = r"show(?:s|ed|ing)?|demonstrat(?:es?|ed|ing)|reveal(?:s|ed|ing)?|display(?:s|ed|ing)?|depict(?:s|ed|ing)?"
# Up to four words that belong to the finding: no verb, preposition or article among them.
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
_NORMAL_WORDS = re.compile(r"(?:\b(?P<article>an? ))?\b(?P<term>normal|unremarkable)\b", re.IGNORECASE)

# Words that stay in place when the order is changed.
_FUNCTION_WORD = re.compile(
    r"an?|the|and|n?or|but|of|[io]n|at|to|by|for|from|with(?:out|in)?|into|onto|over|under|between|through|during|after|"
    r"before|as|is|are|was|were|be|been|ha[sd]|have|its?|th(?:is|at|ese|ose|ere|an|en)|which|who|whose|can|could|may|not?|"
    r"both|all|each|so",
    re.IGNORECASE,
)
_WORD = re.compile(r"(?<![\w-])[^\W\d_](?:[\w'’-]*\w)?")
_MIN_WORDS = 4  # with fewer, another order can still be true
_MIN_MOVED = 3  # exchanges of two words are for training
_MAX_ABBREVIATION = 3  # letters: CT, MR and MRI are upper case in any sentence
_VOWEL_SOUND = re.compile(r"[aeiou]|mri?\b|x-ray", re.IGNORECASE)


def swap_left_right(caption: str) -> str | None:
    """The caption with left and right exchanged; None where it names no side, or both."""
    return swap_terms(caption, SIDES)


def swap_terms(caption: str, pairs: tuple[tuple[str, str], ...], unless: str = "") -> str | None:
    """The caption with every term of `pairs` exchanged for its partner.

    None where it holds none of them, matches the pattern `unless`, or where the exchange leads to a term that was
    already there or twice to the same one: "axial and coronal" would become "coronal and axial", which is just as true.
    """
    pattern, partners = _compile_pairs(pairs)
    terms = {match["term"].lower() for match in pattern.finditer(caption)}
    if not terms or len({partners[term].lower() for term in terms} - terms) < len(terms):
        return None
    if unless and re.search(unless, caption, re.IGNORECASE):
        return None

    return pattern.sub(lambda match: _new_term(caption, match, partners[match["term"].lower()]), caption)


def negate_finding(caption: str, negation: str = "no ", keep_article: bool = False) -> str | None:
    """The caption with its first stated finding negated: "a mass" becomes "no mass"; None if it negates anything."""
    if _EXCLUDED.search(caption):
        return None
    if match := _STATED.search(caption):
        article = match.group().lower() if keep_article else ""
        return _splice(caption, match.start(), match.end(), negation + article)
    if match := _STATED_BARE.search(caption):
        return _splice(caption, match.end(), match.end(), negation)
    return None


def affirm_finding(caption: str, affirmation: str = "", abnormal: str = "abnormal") -> str | None:
    """The caption with its first negated finding affirmed: "no mass" becomes "mass", "without" becomes "with".

    A caption that negates nothing has its first "normal" made "abnormal".
    """
    if match := _EXCLUDED.search(caption):
        new = "with " if match.group().lower().startswith("without") else ""
        return _splice(caption, match.start(), match.end(), new + affirmation)
    if match := _NORMAL_WORDS.search(caption):
        return caption[: match.start()] + _new_term(caption, match, abnormal) + caption[match.end() :]
    return None


def shuffle_words(caption: str, seed: int) -> str | None:
    """The caption with its content words in another order, drawn from `seed` and the caption (Yuksekgonul et al. 2023).

    Function words, numbers and punctuation stay in place, and at least three words do not. None where fewer than four
    different words could move.
    """
    matches, words = _content_words(caption)
    if len(set(words)) < _MIN_WORDS:
        return None
    rng = _caption_rng(caption, seed)
    order = rng.permutation(len(words))
    while sum(words[i] != word for i, word in zip(order, words, strict=True)) < _MIN_MOVED:
        order = rng.permutation(len(words))
    return _reorder(caption, matches, order)


def exchange_two_words(caption: str, seed: int) -> str | None:
    """The caption with two different content words exchanged; otherwise as `shuffle_words`."""
    matches, words = _content_words(caption)
    if len(set(words)) < _MIN_WORDS:
        return None
    rng = _caption_rng(caption, seed)
    first = int(rng.integers(len(words)))
    second = int(rng.choice([i for i, word in enumerate(words) if word != words[first]]))
    order = np.arange(len(words))
    order[[first, second]] = second, first
    return _reorder(caption, matches, order)


def foil_rules(seed: int) -> dict[str, Foil]:
    """The rules by the name of their test: choosing between a caption and its foil, given the image."""
    return {
        "left or right": swap_left_right,
        "brain or lung": partial(swap_terms, pairs=ORGANS, unless=_BONE_HEAD),
        "finding present": negate_finding,
        "finding absent": affirm_finding,
        "modality": partial(swap_terms, pairs=MODALITIES, unless=MODALITY_CLUE),
        "MRI weighting": partial(swap_terms, pairs=WEIGHTINGS),
        "plane": partial(swap_terms, pairs=PLANES),
        "size": partial(swap_terms, pairs=SIZES, unless=_ARROW_SIZE),
        "place": partial(swap_terms, pairs=POSITIONS, unless=_VIEW_DIRECTION),
        "word order": partial(shuffle_words, seed=seed),
    }


@cache
def _compile_pairs(pairs: tuple[tuple[str, str], ...]) -> tuple[re.Pattern[str], dict[str, str]]:
    """A pattern of whole terms with "a" or "an" before them, and the partner of each by its lower case."""
    partners: dict[str, str] = {}
    for first, second in pairs:
        partners.setdefault(first.lower(), second)
        partners.setdefault(second.lower(), first)
    terms = "|".join(re.escape(term) for term in sorted(partners, key=len, reverse=True))
    flags = re.IGNORECASE | re.ASCII  # without ASCII a dotless i would match i, and have no partner
    return re.compile(rf"(?:\b(?P<article>an? ))?\b(?P<term>{terms})\b", flags), partners


def _new_term(caption: str, match: re.Match[str], new: str) -> str:
    """`new` in the case of the matched term, after its article, if any, in the form that goes with it."""
    term, article = match["term"], match["article"] or ""
    new = _match_case(new, term, not article and _starts_sentence(caption, match.start("term")))
    return (_choose_article(article, new) if article else "") + new


def _content_words(caption: str) -> tuple[list[re.Match[str]], list[str]]:
    """The words that may change places, and their lower case."""
    matches = [match for match in _WORD.finditer(caption) if not _FUNCTION_WORD.fullmatch(match.group())]
    return matches, [match.group().lower() for match in matches]


def _caption_rng(caption: str, seed: int) -> np.random.Generator:
    return np.random.default_rng((seed, zlib.crc32(caption.encode())))


def _reorder(caption: str, matches: Sequence[re.Match[str]], order: np.ndarray) -> str:
    """The caption with match `order[i]` in the place of match i; capitals of sentences stay where they are."""
    words = [match.group() for match in matches]
    starts = [_starts_sentence(caption, match.start()) for match in matches]
    plain = [w[0].lower() + w[1:] if start and w[1:].islower() else w for w, start in zip(words, starts, strict=True)]
    pieces, end = [], 0
    for match, start, i in zip(matches, starts, order, strict=True):
        capital = start and match.group()[0].isupper()
        pieces += caption[end : match.start()], plain[i][0].upper() + plain[i][1:] if capital else plain[i]
        end = match.end()
    return "".join(pieces) + caption[end:]


def _starts_sentence(caption: str, position: int) -> bool:
    before = caption[:position].rstrip("“\"'([ ")
    return not before or before[-1] in ".!?:"


def _match_case(new: str, old: str, starts_sentence: bool) -> str:
    """`new` in the case of the term it replaces; abbreviations are upper case unless that one was all lower."""
    if len(old) == len(new):
        return "".join(n.upper() if o.isupper() else n.lower() for o, n in zip(old, new, strict=True))
    if old.islower():
        return new.lower()
    if old.isupper() and len(old) > _MAX_ABBREVIATION:
        return new.upper()
    return new[0].upper() + new[1:] if starts_sentence or old.istitle() else new


def _choose_article(article: str, word: str) -> str:
    """ "a " or "an " by the sound of `word`, in the case of `article`."""
    new = "an " if _VOWEL_SOUND.match(word) else "a "
    return new.capitalize() if article[0].isupper() else new


def _splice(caption: str, start: int, end: int, new: str) -> str:
    """The caption with `new` in place of a part; a capital lost with the part is restored."""
    rest = new + caption[end:]
    capital = _starts_sentence(caption, start) and caption[start : start + 1].isupper()
    return caption[:start] + (rest[:1].upper() + rest[1:] if capital else rest)
