"""English for prompts: names of classes as noun phrases, and templates filled with them.

Word lists and endings, so not all of English: a name in the file of prompts is taken as it is written there.
"""

from __future__ import annotations

import re

PLACEHOLDER = "{}"
_ARTICLE = re.compile(r"(?:^|(?<= or ))(?:(?:an?|the)\s+|an(?=other\b))", re.IGNORECASE)
_NEGATION = re.compile(r"^(?:no(?: evidence of| signs? of)?|without|absence of|negative for|free of)\s+", re.IGNORECASE)
_PREPOSITIONS = (
    *("above", "after", "around", "at", "behind", "below", "beside", "between", "by", "due", "for", "from", "in"),
    *("involving", "near", "of", "on", "other", "over", "than", "through", "to", "under", "via", "with", "within"),
    "without",
)
_PREPOSITION = re.compile(rf"\s(?:{'|'.join(_PREPOSITIONS)})\s")
_ASIDE = re.compile(r"\s*(?:\(.*|,.*)$")  # "(right)", ", left"
_THERE_IS = re.compile(r"\bthere (is|was)(?= (?:no )?$)", re.IGNORECASE)
_DETERMINERS = {"a", "an", "another", "any", "no", "some", "the", "this"}
_VOWELS = set("aeiouy")
_CONSONANT_SOUND = re.compile(r"eu|u(?:biq|rach|r[aeio]|s[eu]|ter|tri|v[eu])|uni(?!dent|m[pm]|n)|one\b|once")
_VOWEL_SOUND = re.compile(r"hour|hono|hones|8|1[18]$")
_VERBS = {"is": "are", "was": "were", "has": "have"}
_ABBREVIATIONS = {
    *("aaa", "acl", "adc", "ap", "ards", "asd", "avm", "avn", "copd", "covid", "ct", "cta", "dsa", "dvt", "dwi", "et"),
    *("ett", "flair", "ggo", "hcc", "hiv", "ich", "icd", "ild", "ipf", "iud", "ivc", "ivh", "mra", "mri", "mr", "nsip"),
    *("oct", "pa", "pe", "pet", "picc", "sah", "sars", "sbo", "spect", "tavi", "uip", "uti"),
}
_UNIT = re.compile(r"\d*(?:cm|kg|mg|ml|mm|nd|rd|st|th|vs)")
_SPOKEN_ABBREVIATIONS = {"flair", "sars", "spect"}
"""Words, where others are spelled."""
_SINGULAR_IN_S = {
    *("ards", "ascites", "atlas", "bias", "biceps", "caries", "diabetes", "gas", "herpes", "hydrops", "lens", "ms"),
    *("pancreas", "psoas", "rickets", "sars", "series", "triceps"),
}
_PLURALS = {
    *("alveoli", "atria", "bacteria", "bronchi", "calculi", "diverticula", "emboli", "feet", "foci", "fungi", "hila"),
    *("lungs", "septa", "teeth", "thrombi"),
}
_COUNTABLE = {
    *("aaa", "asd", "avm", "ett", "icd", "iud", "ngt", "picc", "vsd"),
    *("abdomen", "analysis", "anastomosis", "bed", "bleed", "cable", "canal", "capillary", "cardiomediastinum"),
    *("collection", "crystal", "difference", "dissection", "excrescence", "exostosis", "finding", "fistula", "hernia"),
    *("implant", "infant", "interval", "laceration", "malformation", "mandible", "mechanism", "metastasis"),
    *("obstruction", "opening", "organism", "ovary", "pelvis", "perforation", "pseudarthrosis", "quadrant", "reaction"),
    *("recurrence", "remnant", "replacement", "ring", "section", "seed", "sequence", "sign", "synostosis", "table"),
    *("thing", "tibia", "transplant", "variant", "wing"),
}
_ADJECTIVES = {
    *("healthy", "left", "lower", "major", "middle", "mild", "minor", "moderate", "oblique", "right", "severe"),
    "upper",
}
_ADJECTIVE_ENDINGS = ("able", "al", "ant", "ary", "ed", "ful", "ible", "ic", "ign", "ive", "ous", "verse")
_UNCOUNTABLE = {
    *("air", "anatomy", "asthma", "barium", "bifida", "blood", "blur", "calcium", "cancer", "carcinomatosa"),
    *("carinatum", "cartilage", "debris", "diffusion", "disease", "distress", "excavatum", "failure", "fat", "fluid"),
    *("gangrene", "gout", "hardware", "hemorrhage", "heterogeneity", "hypertension", "imaging", "influenza"),
    *("insufficiency", "invasion", "inversus", "jaundice", "laxity", "loss", "lupus", "marrow", "material", "matter"),
    *("meconium", "medicine", "metal", "mucus", "muscle", "myeloma", "noise", "none", "obesity", "overload", "pain"),
    *("parenchyma", "paucity", "perfusion", "pressure", "pus", "reflux", "sepsis", "silicone", "skin", "sludge"),
    *("stool", "surgery", "tissue", "torsion", "tortuosity", "trauma", "ultrasound"),
    *_SINGULAR_IN_S - {"lens", "pancreas"},
}
_UNCOUNTABLE_ENDINGS = (
    *("arity", "asis", "cement", "cephalus", "cephaly", "ectasis", "ema", "emia", "ence", "gement", "genesis"),
    *("graphy", "ia", "ility", "ing", "ism", "itis", "logy", "lysis", "megaly", "ness", "osis", "pathy", "peritoneum"),
    *("mediastinum", "scopy", "tion", "trophy", "vement"),
)


def phrase_of(label: str) -> str:
    """The noun phrase of a class by its label, however that is written, with an article where it needs one.

    "Lung_Nodule", "LungNodule", "LUNG NODULE": a lung nodule; "Nodule/Mass": a nodule or mass; "No Finding": no
    finding. All is lower case but for known abbreviations and what has digits or no vowels (CT, T1, NSCLC). A word of
    another alphabet, or with an accent, is no English one: it has no article and is no abbreviation.
    """
    spaced = re.sub(r"(?<=[a-z]{2})(?=[A-Z])|(?<=[A-Za-z]{2})\.(?=[A-Za-z]{2})", " ", label.replace("_", " "))
    words = " ".join(re.sub(r"\s*/\s*", " or ", spaced).lower().split())  # casefold would spell ß as ss
    return with_article(re.sub(r"\w+", lambda part: _abbreviation(part[0]), words))


def _abbreviation(part: str) -> str:
    """A part of a word, in capitals where it is an abbreviation; the s of several stays small."""
    if _UNIT.fullmatch(part):
        return part
    if len(part) > 3 and part.endswith("s") and part[:-1] in _ABBREVIATIONS:
        return f"{part[:-1].upper()}s"
    spelled = len(part) > 1 and part.isascii() and part.isalnum() and not (set(part) & _VOWELS and part.isalpha())
    return part.upper() if part in _ABBREVIATIONS or spelled else part


def positive_of(phrase: str) -> str | None:
    """What a negative phrase denies ("no finding": a finding); None for another phrase."""
    return with_article(_NEGATION.sub("", phrase)) if _NEGATION.match(phrase) else None


def with_article(phrase: str) -> str:
    """The phrase with a or an, where its last noun is a singular that takes one and no determiner stands first.

    Of nouns joined by "or" that are not all of one kind each has its own: pneumonia or a nodule.
    """
    first, nouns = phrase.partition(" ")[0], phrase.split(" or ")
    if first.lower() in _DETERMINERS or _NEGATION.match(phrase):
        return phrase
    if len({(_is_plural(noun), _is_countable(noun)) for noun in nouns}) > 1 and not any(map(_is_adjective, nouns)):
        return " or ".join(map(with_article, nouns))
    if _is_plural(phrase) or not _is_countable(phrase):
        return phrase
    if first == "other":
        return f"an{phrase}"
    return f"{'an' if _starts_with_vowel(first.partition('-')[0]) else 'a'} {phrase}"


def without_article(phrase: str) -> str:
    """The phrase without a, an or the before it, and before what "or" joins to it."""
    return _ARTICLE.sub("", phrase)


def fill(template: str, phrase: str) -> str:
    """The template with the phrase in place of {}, its article and its verb as the place asks for.

    No article after "no" or "the", before a noun ("{} image") and alone; "is" becomes "are" beside a plural.
    """
    before, after = template.split(PLACEHOLDER)
    previous, follows = (before.lower().split() or [""])[-1], (after.lower().split() or [""])[0]
    is_subject = follows in _VERBS
    bare = without_article(phrase)
    nouns = bare.split(" or ")
    if _is_plural(nouns[0]) or (_is_plural(nouns[-1]) and _is_adjective(nouns[0])):
        before = _THERE_IS.sub(lambda verb: f"{verb[0][: -len(verb[1])]}{_VERBS[verb[1].lower()]}", before)
    if _is_plural(nouns[-1]):
        after = re.sub(r"^ (is|was|has)\b", lambda verb: f" {_VERBS[verb[1]]}", after)
    attributive = follows.isalpha() and not is_subject and not _PREPOSITION.match(f" {follows} ")
    takes_article = is_subject if not previous else previous not in _DETERMINERS and previous[-1] not in ",;:"
    return before + (phrase if takes_article and not attributive else bare) + after


def _head(phrase: str) -> str:
    """The last noun before any preposition, comma or parenthesis: "fluid" of "fluid in the abdomen (right)"."""
    return (_PREPOSITION.split(_ASIDE.sub("", phrase))[0].split() or [""])[-1]


def _is_plural(phrase: str) -> bool:
    head = _head(phrase).lower()
    if head in _PLURALS or head.endswith("ae"):
        return True
    return head.endswith("s") and head not in _SINGULAR_IN_S and not head.endswith(("ss", "us", "is"))


def _is_adjective(phrase: str) -> bool:
    """Whether the last word is no noun, as of "pleural or pericardial effusion" before the or."""
    word = _last_part(phrase)
    return word not in _COUNTABLE and (word in _ADJECTIVES or word.endswith(_ADJECTIVE_ENDINGS))


def _is_countable(phrase: str) -> bool:
    head, word = _head(phrase), _last_part(phrase)
    if word in _COUNTABLE:
        return True
    is_word = word.isascii() and word.isalpha() and not head.isupper()
    return is_word and not (word in _UNCOUNTABLE or word.endswith(_UNCOUNTABLE_ENDINGS) or _is_adjective(phrase))


def _last_part(phrase: str) -> str:
    return _head(phrase).lower().rpartition("-")[2]


def _starts_with_vowel(word: str) -> bool:
    """Whether a word sounds as if it starts with a vowel; an abbreviation, and the x of x-ray, are spelled."""
    lower = word.lower()
    if lower not in _SPOKEN_ABBREVIATIONS and (word.isupper() or (word.isalpha() and len(word) == 1)):
        return lower[0] in "aefhilmnorsx"
    return bool(_VOWEL_SOUND.match(lower)) or (lower[0] in "aeiou" and not _CONSONANT_SOUND.match(lower))
