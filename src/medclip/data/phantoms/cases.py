"""Phantoms: synthetic radiology images with composed captions, for training without a download.

Every image is drawn; none shows a patient. As the truth of each is known, they also test whether a model retrieves the
right modality, organ, plane, finding and side. Sides follow the radiological convention: the patient's left is on the
image's right. Swapping the words left and right gives the caption of the mirrored case.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, PngImagePlugin

from medclip.data.phantoms.renderer import draw, finding_mask
from medclip.data.schema import Pair

# What is painted for each organ and plane, in the notation that renderer.py explains.
ANATOMY = {
    "head axial": "fat 0 0 .74 .92; bone 0 0 .70 .87; brain 0 0 .62 .79; fluid* .12 -.2 .06 .2 15; fluid* "
    ".15 .25 .05 .17 -15; lesion .39 0 .02 .25",
    "head coronal": "muscle 0 .8 .38 .4; fat 0 -.15 .74 .78; bone 0 -.15 .70 .74; brain 0 -.2 .62 .62; "
    "fluid* .11 -.25 .05 .16 15; air* .22 .38 .15 .12; air 0 .45 .06 .16; lesion .40 -.2 .02 .15",
    "head sagittal": "muscle .3 .75 .3 .4; fat -.05 -.15 .9 .76; bone -.05 -.15 .86 .72; brain 0 -.2 .74 "
    ".6; air -.68 .32 .16 .12; fat -.5 .6 .28 .14; fluid 0 -.15 .22 .06; liver .42 .28 .22 .16; marrow "
    "v3/.19 .3 .72 .1 .08; lesion 0 -.35 .4 .08",
    "neck axial": "fat 0 0 .68 .62; muscle 0 0 .64 .58; air 0 -.25 .11 .13; bone 0 .12 .2 .15; marrow 0 .12 "
    ".15 .1; bone 0 .4 .05 .16; bone* .16 .27 .12 .04 30; blood* .27 -.1 .08 .08; lesion .42 .06 .01 .12",
    "neck coronal": "fat* .5 1 .5 .4; fat 0 0 .58 1.2; muscle 0 0 .54 1.2; bone 0 -.8 .5 .13; air 0 .15 .1 "
    ".75; blood* .25 .2 .05 .7; lesion .40 .05 .01 .25",
    "neck sagittal": "fat -.05 .1 .5 1.1 8; muscle -.05 .1 .46 1.1 8; fat -.5 -.85 .4 .2; bone -.5 -.8 .32 "
    ".08; air -.28 .2 .08 .7; fluid .26 0 .05 1; marrow v7/.22 .1 .05 .12 .09; lesion -.02 .1 .2 .3",
    "chest axial": "fat 0 0 .97 .68; muscle 0 0 .92 .63; lung* .47 -.03 .37 .5; heart .12 -.2 .27 .23; bone "
    "0 .42 .17 .15; marrow 0 .42 .12 .1; bone* .87 0 .025 .25; bone* .6 .52 .2 .025 -30; bone 0 -.6 .1 .03; "
    "lesion .5 .08 .05 .15",
    "chest coronal": "fat 0 .15 .9 1.1; muscle 0 .15 .86 1.1; lung* .42 -.08 .3 .66 4; liver -.36 .68 .46 "
    ".24; heart .14 .28 .28 .28; marrow v9/.22 0 0 .08 .09; bone* .4 -.78 .32 .03 -12; lesion .47 -.2 .03 "
    ".25",
    "chest sagittal": "fat 0 .05 .68 1.05; muscle 0 .05 .64 1.05; lung -.05 -.1 .46 .7; liver -.05 .72 .5 "
    ".22; heart -.22 .28 .24 .24; marrow v8/.24 .5 0 .1 .1; bone -.58 -.1 .03 .4; lesion 0 -.2 .25 .25",
    "heart axial": "muscle 0 0 1.3 1.05; lung* .85 -.05 .42 .85; heart .08 -.05 .62 .46 28; blood .26 .06 "
    ".26 .14 28; blood -.14 -.2 .22 .18 28; blood .1 .5 .1 .1; marrow 0 .85 .2 .18; lesion .5 .05 .03 .12",
    "heart coronal": "muscle 0 0 1.3 1.3; lung* .8 -.3 .46 .85; liver -.3 .95 .95 .34; heart .1 .15 .62 .42 "
    "35; blood .22 .22 .34 .2 35; blood -.02 -.55 .13 .42; blood -.3 -.2 .1 .3; lesion .5 .05 .03 .12",
    "heart sagittal": "muscle 0 0 .92 1.3; lung -.05 -.1 .72 .95; liver -.1 .9 .75 .24; heart -.22 .22 .44 "
    ".4 -40; blood -.22 .24 .26 .18 -40; blood .1 -.5 .12 .34 25; marrow v6/.31 .78 0 .13 .13; lesion 0 0 .3 "
    ".2",
    "abdomen axial": "fat 0 0 .96 .7; muscle 0 0 .88 .62; fat 0 -.02 .82 .55; liver -.42 -.1 .4 .38 -20; "
    "liver .62 .12 .16 .26 20; air .28 -.32 .2 .1; heart* .38 .25 .13 .16 20; blood .06 .2 .07 .07; bone 0 "
    ".42 .17 .14; marrow 0 .42 .13 .1; lesion .46 .02 .03 .1",
    "abdomen coronal": "fat 0 0 .78 1.2; muscle 0 0 .7 1.2; fat 0 .05 .62 1.1; lung* .38 -.95 .3 .25; liver "
    "-.3 -.42 .36 .3 -20; liver .5 -.42 .14 .24; heart* .34 .1 .13 .26 10; bone* .52 .85 .26 .16 40; marrow "
    "v7/.24 0 .1 .1 .1; lesion .42 .2 .02 .2",
    "abdomen sagittal": "fat -.05 0 .72 1.2; muscle -.05 0 .64 1.2; fat -.15 .1 .48 1; liver -.2 -.5 .4 .3; "
    "air -.35 .3 .16 .1; blood .15 .1 .05 .8; marrow v6/.29 .42 .05 .15 .12; lesion -.15 .1 .15 .25",
    "pelvis axial": "fat 0 0 .98 .64; muscle 0 0 .9 .56; bone* .62 -.02 .2 .2; marrow* .62 -.02 .15 .15; "
    "fat 0 0 .36 .44; urine 0 -.18 .26 .2; heart 0 .15 .17 .1; bone 0 .46 .22 .07; lesion .48 .1 .03 .1",
    "pelvis coronal": "fat 0 0 .96 1.2; muscle 0 0 .9 1.2; bone* .56 -.38 .12 .44 25; marrow* .56 -.38 .07 "
    ".38 25; bone* .55 .35 .18 .18; marrow* .55 .35 .14 .14; bone* .68 .85 .1 .35; marrow 0 -.6 .16 .36; "
    "urine 0 .25 .26 .2; lesion .47 0 .03 .1",
    "pelvis sagittal": "fat 0 0 .84 1.2; muscle 0 0 .76 1.2; fat -.1 0 .6 .9; urine -.25 .3 .28 .24; heart "
    ".05 .0 .14 .24 -30; bone -.45 .68 .14 .16; marrow v3/.34 .35 -.6 .17 .14; marrow .56 .12 .12 .34 -15; "
    "lesion -.15 -.2 .15 .15",
    "knee axial": "fat* .5 0 .44 .48; muscle* .5 .05 .38 .4; bone* .5 .05 .32 .26; marrow* .5 .05 .28 .22; "
    "bone* .5 -.34 .16 .08; lesion .52 .08 .03 .1",
    "knee coronal": "fat* .5 0 .38 1.2; muscle* .5 0 .33 1.2; bone* .5 -.9 .17 .5; bone* .5 -.27 .3 .22; "
    "marrow* .5 -.27 .26 .18; bone* .5 .26 .3 .2; marrow* .5 .26 .26 .16; bone* .5 .95 .15 .6; marrow* .5 "
    ".95 .11 .55; marrow* .5 -.9 .12 .45; lesion .5 -.05 .03 .2",
    "knee sagittal": "fat 0 0 .52 1.2; muscle 0 0 .46 1.2; bone .08 -.9 .2 .5; bone .05 -.28 .34 .27; "
    "marrow .05 -.28 .29 .22; bone .05 .3 .32 .2; marrow .05 .3 .27 .16; bone .08 .95 .16 .55; bone -.4 -.2 "
    ".09 .22; marrow .08 -.9 .15 .45; marrow .08 .95 .11 .5; lesion .05 0 .1 .25",
    "hand axial": "fat* .5 0 .45 .26; muscle* .5 0 .41 .22; marrow h4/.17* .54 -.05 .07 .08; marrow* .16 "
    ".15 .08 .08; blood* .5 .14 .2 .03; lesion .52 .03 .04 .05",
    "hand coronal": "fat* .5 .75 .22 .5; fat* .5 .25 .4 .38; fat h4/.19* .54 -.4 .085 .5; fat* .13 .05 .09 "
    ".36 -30; muscle* .5 .28 .35 .32; marrow h4/.19* .54 .1 .05 .22; marrow h4/.19* .54 -.33 .045 .17; "
    "marrow h4/.19* .54 -.68 .04 .13; marrow* .14 .05 .04 .26 -30; marrow* .5 .5 .26 .1; marrow* .42 .9 .08 "
    ".28; marrow* .6 .9 .06 .28; lesion .5 .25 .03 .08",
    "hand sagittal": "fat 0 .65 .26 .6; fat .02 .1 .22 .4; fat .06 -.5 .13 .48 -6; fat -.25 .0 .1 .34 -30; "
    "marrow 0 .85 .12 .36; marrow v2/.17 0 .42 .12 .07; marrow .02 .1 .08 .24; marrow .05 -.34 .06 .17; "
    "marrow .08 -.74 .05 .14; marrow -.25 0 .05 .24 -30; lesion .03 .25 .04 .15",
}

RADIOGRAPH_LAYOUTS = {"frontal": "coronal", "lateral": "sagittal"}  # projections of the sliced layouts
SPLITS = ("train", "validation")
NUM_VALIDATION = 300
FINDINGS = ("normal", "mass", "cyst", "fluid collection", "calcification", "haemorrhage")
MODALITIES = {  # the planes and findings of each: X-rays barely tell blood from muscle, PET sees uptake alone
    "CT": (("axial", "coronal"), FINDINGS),
    "T1 MRI": (("axial", "sagittal"), FINDINGS),
    "T2 MRI": (("axial", "coronal"), FINDINGS),
    "ultrasound": (("axial", "sagittal"), FINDINGS),
    "radiograph": (("frontal", "lateral"), FINDINGS[:5]),
    "PET": (("axial", "coronal"), FINDINGS[:3]),
}
ORGANS = tuple(dict.fromkeys(name.split()[0] for name in ANATOMY))

WORDINGS = {
    "CT": ("CT", "CT scan", "computed tomography", "CT image"),
    "T1 MRI": ("T1-weighted MRI", "T1 MRI", "T1-weighted MR image", "T1-weighted magnetic resonance image"),
    "T2 MRI": ("T2-weighted MRI", "T2 MRI", "T2-weighted MR image", "T2-weighted magnetic resonance image"),
    "ultrasound": ("ultrasound", "ultrasound scan", "sonogram", "ultrasonography"),
    "radiograph": ("radiograph", "x-ray", "plain film", "plain radiograph"),
    "PET": ("PET", "PET scan", "positron emission tomography", "FDG PET image"),
    "head": ("head", "brain", "head and skull"),
    "neck": ("neck", "cervical region"),
    "chest": ("chest", "thorax"),
    "heart": ("heart", "cardiac region"),
    "abdomen": ("abdomen", "upper abdomen"),
    "pelvis": ("pelvis", "pelvic region"),
    "knee": ("knees", "knee joints"),
    "hand": ("hands", "hands and wrists"),
    "axial": ("axial", "transverse"),
    "mass": ("mass", "tumour", "solid mass", "solid tumour"),
    "cyst": ("cyst", "cystic lesion", "simple cyst"),
    "fluid collection": ("fluid collection", "effusion", "crescent of fluid"),
    "calcification": ("calcification", "calcified lesion", "calcific deposit", "calcified nodule"),
    "haemorrhage": ("haemorrhage", "hemorrhage", "haematoma", "focal haemorrhage"),
    **{word: (word,) for word in ("coronal", "sagittal", "frontal", "lateral")},
}
# Captions exclude findings by name and call images abnormal: only the image tells that "no mass" is wrong.
NORMAL_FORMS = (
    "no focal abnormality", "an unremarkable appearance", "no focal lesion", "a normal appearance",
    "no {noun}", "no {noun}", "no evidence of {a_noun}", "no sign of {a_noun}",
)  # fmt: skip
SIDED_FORMS = (
    "a {side}-sided {noun}", "{a_noun} on the {side}", "{a_noun} on the patient's {side}",
    "an abnormal appearance with {a_noun} on the {side}",
)  # fmt: skip
FORMS = ("{a_noun}", "{a_noun}", "{a_noun}", "an abnormal appearance with {a_noun}")
ORIGINS = ("synthetic", "simulated", "phantom")
TEMPLATES = (
    "{a_origin} {plane} {modality} of the {organ} showing {finding}.",
    "{a_plane} {modality} of the {organ} demonstrates {finding} in this {origin} case.",
    "{origin} {organ}, {plane} {modality}: there is {finding}.",
    "{finding} on {a_origin} {modality} of the {organ} in the {plane} {view}.",
    "{origin} {modality} of the {organ} ({plane} {view}) with {finding}.",
    "This {origin} {modality} through the {organ}, {plane} {view}, shows {finding}.",
    "{modality} of the {organ} in {a_plane} {view}, {origin} image, revealing {finding}.",
    "{plane} {view} of the {organ} on {a_origin} {modality}, with {finding}.",
    "Finding: {finding}. Examination: {origin} {plane} {modality} of the {organ}.",
    "{organ} imaged by {origin} {modality} in {a_plane} {view}; {finding} can be seen.",
)


@dataclass(frozen=True, slots=True)
class Case:
    """What one phantom shows; `side` is the patient's, and empty where the image has none."""

    modality: str
    organ: str
    plane: str
    finding: str
    side: str = ""


def _all_cases() -> Iterator[Case]:
    for modality, (planes, findings) in MODALITIES.items():
        for organ, plane, finding in product(ORGANS, planes, findings):
            has_side = finding != "normal" and plane not in ("sagittal", "lateral")
            for side in ("left", "right") if has_side else ("",):
                yield Case(modality, organ, plane, finding, side)


CASES = tuple(_all_cases())


def phantoms(count: int, num_validation: int = NUM_VALIDATION, seed: int = 0) -> Iterator[Pair]:
    """`count` training phantoms, then `num_validation` ones that all show different cases.

    Raises ValueError where there are fewer cases.
    """
    if num_validation > len(CASES):
        raise ValueError(f"There are only {len(CASES)} different cases, too few to validate on {num_validation}.")
    for split, number in (("train", count), ("validation", num_validation)):
        for index in range(number):
            yield phantom(index, seed, split)


def phantom(index: int, seed: int = 0, split: str = "train") -> Pair:
    """One phantom by its number, the same alone and among others."""
    drawing, wording, _ = _streams(index, seed, split)
    case = _case(index, seed, split)
    name = f"PHANTOM_{split[0].upper()}{index:06d}"
    return Pair(
        id=name,
        image=_encode_png(draw_case(case, drawing)),
        caption=write_caption(case, np.random.default_rng(wording)),
        split=split,
        article=name,
        license="CC0-1.0",
        labels=asdict(case),
        source="phantoms (synthetic)",
    )


def phantom_mask(index: int, seed: int = 0, split: str = "train") -> Bool[np.ndarray, "128 128"]:
    """Pixels of a phantom's finding; all False in a normal one."""
    case = _case(index, seed, split)
    return finding_mask(_layout(case), case.finding, case.side, _streams(index, seed, split)[0])


def draw_case(case: Case, seed: np.random.SeedSequence) -> UInt8[np.ndarray, "128 128"]:
    """The gray image of `case`; with the same seed, cases that differ in finding or side share their body."""
    return draw(_layout(case), case.modality, case.finding, case.side, seed)


def write_caption(case: Case, rng: np.random.Generator, templates: Sequence[str] = TEMPLATES) -> str:
    """A sentence or two that state every attribute; the draws do not depend on the side."""
    plane, modality, organ = (_pick(rng, WORDINGS[a]) for a in (case.plane, case.modality, case.organ))
    origin = _pick(rng, ORIGINS)
    views = ("view", "projection") if case.modality == "radiograph" else ("plane", "view", "section")
    text = _pick(rng, templates).format(
        **{"plane": plane, "modality": modality, "organ": organ, "origin": origin},
        **{"a_plane": _with_article(plane), "a_origin": _with_article(origin)},
        **{"view": _pick(rng, views), "finding": _finding(case, rng)},
    )
    return text[0].upper() + text[1:]


def _finding(case: Case, rng: np.random.Generator) -> str:
    is_normal = case.finding == "normal"
    noun = _pick(rng, WORDINGS[_pick(rng, FINDINGS[1:]) if is_normal else case.finding])
    forms = NORMAL_FORMS if is_normal else SIDED_FORMS if case.side else FORMS
    return _pick(rng, forms).format(side=case.side, noun=noun, a_noun=_with_article(noun))


def _with_article(phrase: str) -> str:
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def _layout(case: Case) -> str:
    return ANATOMY[f"{case.organ} {RADIOGRAPH_LAYOUTS.get(case.plane, case.plane)}"]


def _case(index: int, seed: int, split: str) -> Case:
    """What a phantom shows: any case in training; in validation a seeded permutation of all, so that none repeats."""
    if split == "train":
        return CASES[int(np.random.default_rng(_streams(index, seed, split)[2]).integers(len(CASES)))]
    return CASES[_validation_order(seed)[index]]


def _streams(index: int, seed: int, split: str) -> tuple[np.random.SeedSequence, ...]:
    """Separate random streams for the drawing, the wording and the choice of the case."""
    key = (SPLITS.index(split), index)
    return tuple(np.random.SeedSequence(seed, spawn_key=(*key, stream)) for stream in range(3))


def _validation_order(seed: int) -> np.ndarray:
    stream = np.random.SeedSequence(seed, spawn_key=(len(SPLITS),))
    return np.random.default_rng(stream).permutation(len(CASES))


def _encode_png(gray: np.ndarray) -> bytes:
    notice = PngImagePlugin.PngInfo()
    notice.add_text("Comment", "synthetic phantom, not a patient")
    file = io.BytesIO()
    # Noise hardly compresses: zlib's run-length strategy (3) gives the default's size faster.
    Image.fromarray(gray).save(file, "PNG", pnginfo=notice, compress_level=1, compress_type=3)
    return file.getvalue()
