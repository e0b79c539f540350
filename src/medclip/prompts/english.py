"""English for prompts: names of classes as noun phrases, and templates filled with them.

Word lists and endings, so not all of English: a name in the file of prompts is taken as it is written there.
"""

from __future__ import annotations

import re

PLACEHOLDER = "{}"
_ARTICLE = re.compile(r"^(?:(?:an?|the)\s+|an(?=other\s))", re.IGNORECASE)
_NEGATION = re.compile(r"^(?:no|without|absence of)\s+", re.IGNORECASE)
_PREPOSITION = re.compile(r"\s(?:above|at|below|due|for|from|in|near|of|on|other|than|to|with|within|without)\s")
_THERE_IS = re.compile(r"\bthere (is|was)(?= (?:no )?$)", re.IGNORECASE)
_DETERMINERS = {"a", "an", "another", "any", "no", "some", "the", "this"}
_VOWELS = set("aeiouy")
_VERBS = {"is": "are", "was": "were", "has": "have"}
_ABBREVIATIONS = {
    *("adc", "ap", "ards", "avm", "copd", "covid", "ct", "cta", "dsa", "dvt", "dwi", "et", "flair", "ild", "mra"),
    *("mri", "mr", "oct", "pa", "pet", "picc", "pe", "spect", "tavi"),
}
_SINGULAR_IN_S = {
    *("ascites", "atlas", "bias", "biceps", "caries", "diabetes", "gas", "herpes", "hydrops", "lens", "pancreas"),
    *("psoas", "rickets", "series", "triceps"),
}
_PLURALS = {
    *("bacteria", "bronchi", "calculi", "diverticula", "emboli", "feet", "foci", "hila", "lungs", "septa", "teeth"),
    "thrombi",
}
_COUNTABLE = {
    *("abdomen", "cardiomediastinum", "dissection", "finding", "fistula", "hernia", "malformation", "metastasis"),
    *("obstruction", "pelvis", "perforation", "ring", "tibia"),
}
_UNCOUNTABLE = {
    *("air", "anatomy", "blood", "cancer", "debris", "disease", "fat", "fluid", "hypertension", "imaging"),
    *("invasion", "loss", "material", "medicine", "metal", "muscle", "parenchyma", "pressure", "pus", "skin"),
    *("tissue", "torsion", "trauma", "ultrasound", "cartilage", "hemorrhage"),
    *("oblique", "left", "right", "healthy", "unchanged"),  # adjectives
    *_SINGULAR_IN_S - {"lens", "pancreas"},
}
_UNCOUNTABLE_ENDINGS = (
    *("asis", "cement", "ectasis", "ema", "embolism", "emia", "gement", "graphy", "ia", "ing", "itis", "logy"),
    *("megaly", "ness", "osis", "pathy", "peritoneum", "mediastinum", "scopy", "tion", "trophy", "vement"),
    *("al", "ant", "ary", "ic", "ign", "ive", "ous", "verse"),  # adjectives
)


def phrase_of(label: str) -> str:
    """The noun phrase of a class by its label, however that is written, with an article where it needs one.

    "Lung_Nodule", "LungNodule", "LUNG NODULE": a lung nodule; "Nodule/Mass": a nodule or mass; "No Finding": no
    finding. All is lower case but for known abbreviations and what has digits or no vowels (CT, T1, NSCLC). A word of
    another alphabet, or with an accent, is no English one: it has no article and is no abbreviation.
    """
    spaced = re.sub(r"(?<=[a-z]{2})(?=[A-Z])", " ", label.replace("_", " "))
    words = re.sub(r"\s*/\s*", " or ", spaced).lower().split()  # casefold would spell ß as ss
    return with_article(" ".join("-".join(map(_abbreviation, word.split("-"))) for word in words))


def _abbreviation(part: str) -> str:
    """A part of a word, in capitals where it is an abbreviation."""
    spelled = len(part) > 1 and part.isascii() and part.isalnum() and not (set(part) & _VOWELS and part.isalpha())
    return part.upper() if part in _ABBREVIATIONS or spelled else part


def positive_of(phrase: str) -> str | None:
    """What a negative phrase denies ("no finding": a finding); None for another phrase."""
    return with_article(_NEGATION.sub("", phrase)) if _NEGATION.match(phrase) else None


def with_article(phrase: str) -> str:
    """The phrase with a or an, where its last noun is a singular that takes one and no determiner stands first."""
    first = phrase.partition(" ")[0]
    if first.lower() in _DETERMINERS or _NEGATION.match(phrase) or _is_plural(phrase) or not _is_countable(phrase):
        return phrase
    if first == "other":
        return f"an{phrase}"
    return f"{'an' if _starts_with_vowel(first.partition('-')[0]) else 'a'} {phrase}"


def without_article(phrase: str) -> str:
    """The phrase without a, an or the before it."""
    return _ARTICLE.sub("", phrase)


def fill(template: str, phrase: str) -> str:
    """The template with the phrase in place of {}, its article and its verb as the place asks for.

    No article after "no" or "the", before a noun ("{} image") and alone; "is" becomes "are" beside a plural.
    """
    before, after = template.split(PLACEHOLDER)
    previous, follows = (before.lower().split() or [""])[-1], (after.lower().split() or [""])[0]
    is_subject = follows in _VERBS
    bare = without_article(phrase)
    if _is_plural(bare):
        before = _THERE_IS.sub(lambda verb: f"{verb[0][: -len(verb[1])]}{_VERBS[verb[1].lower()]}", before)
        after = re.sub(r"^ (is|was|has)\b", lambda verb: f" {_VERBS[verb[1]]}", after)
    attributive = follows.isalpha() and not is_subject and not _PREPOSITION.match(f" {follows} ")
    takes_article = is_subject if not previous else previous not in _DETERMINERS and previous[-1] not in ",;:"
    return before + (phrase if takes_article and not attributive else bare) + after


def _head(phrase: str) -> str:
    """The last noun before any preposition: "fluid" of "fluid in the abdomen"."""
    return (_PREPOSITION.split(phrase)[0].split() or [""])[-1]


def _is_plural(phrase: str) -> bool:
    head = _head(phrase).lower()
    if head in _PLURALS or head.endswith("ae"):
        return True
    return head.endswith("s") and head not in _SINGULAR_IN_S and not head.endswith(("ss", "us", "is"))


def _is_countable(phrase: str) -> bool:
    head = _head(phrase)
    word = head.lower().rpartition("-")[2]
    if word in _COUNTABLE:
        return True
    return (
        word.isascii()
        and word.isalpha()
        and not (head.isupper() or word in _UNCOUNTABLE or word.endswith(_UNCOUNTABLE_ENDINGS))
    )


def _starts_with_vowel(word: str) -> bool:
    """Whether a word sounds as if it starts with a vowel; an abbreviation, and the x of x-ray, are spelled."""
    if word.isupper() or len(word) == 1:
        return word[0].lower() in "aefhilmnorsx"
    return word[0].lower() in "aeiou" and not re.match(r"eu|uni|use|usu|ure|uter", word.lower())
