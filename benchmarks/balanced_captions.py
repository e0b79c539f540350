"""Captions of phantoms of which no word tells whether they are true, and phantoms that they are true of.

A caption is drawn before its image: modality, plane, finding, side, and whether the finding is stated or excluded are
independent. "No mass on the left" is true of a mass on the right, "no mass" of a normal image. All that can be said is
measured once, so that a foil is as often true, of another image: words alone tell nothing (Goyal et al. 2017, of
questions on images).

A sentence is a description of the image in a clause, in one of hundreds of frames; those that are measured are none of
those that are trained on, nor of those that choose the weights, though of the same words. Findings are bare ("showing
mass", "showing no mass"): a foil made from "no mass" has no article, so that no true caption may have one.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from medclip.data.phantoms.cases import WORDINGS, Case, draw_case
from medclip.data.schema import Pair

MODALITIES = {  # each is exchanged for one other, in training and in the test
    "computed tomography": ("CT",), "magnetic resonance imaging": ("T1 MRI", "T2 MRI"),
    "x-ray": ("radiograph",), "ultrasound": ("ultrasound",),
}  # fmt: skip
MEASURED_PLANES = ("axial", "coronal")  # the test makes no foil "sagittal": words would tell that it is true
PLANES = (*MEASURED_PLANES, "sagittal")  # of a sagittal image the side is unknown
ORGANS = {"chest": "chest"}
FINDINGS = ("mass", "cyst", "fluid collection", "calcification")  # X-rays do not show blood
SIDES = ("left", "right")
# In training: of half, "left" alone and "no" alone would go with nothing in the images. Half of what is measured is.
STATED_SHARE = 0.75
VIEWS = ("plane", "view", "section")


class Grammar(NamedTuple):
    """The frames that captions are drawn from."""

    descriptions: tuple[str, ...]
    clauses: tuple[str, ...]
    sided: tuple[str, ...]
    stated: tuple[str, ...]
    excluded: tuple[str, ...]


_VERBS = ("showing", "demonstrating", "revealing", "depicting")
_OPENINGS = ("", "synthetic ", "example: ", "here, ", "an image: ", "this case: ")
TRAINING = Grammar(
    descriptions=(
        "{plane} {modality} of the {organ}", "{plane} {organ} {modality}", "{organ}, {plane} {modality}",
        "{modality} of the {organ} in the {plane} {view}", "{plane} {view} of the {organ} by {modality}",
        "{modality} through the {organ} in {plane} {view}", "the {organ} on {plane} {modality}",
        "{plane} {modality} image of the {organ}", "{plane} {view}, {modality} of the {organ}",
        "the {organ} in {plane} {view} on {modality}",
    ),
    clauses=(
        *(f"{opening}{{study}} {verb} {{finding}}." for opening in _OPENINGS for verb in _VERBS),
        *(f"{opening}{{study}} with {{finding}}." for opening in _OPENINGS),
        *(f"{{study}}, {verb} {{finding}}." for verb in _VERBS),
        *(f"case {verb} {{finding}}: {{study}}." for verb in (*_VERBS, "with")),
        *(f"image {verb} {{finding}} on {{study}}." for verb in (*_VERBS, "with")),
        *(f"{{study}} in this synthetic case, {verb} {{finding}}." for verb in _VERBS),
        *(f"{{study}}; this image {verb}s {{finding}}." for verb in ("show", "demonstrate", "reveal", "depict")),
        *(f"on {{study}}, the image {verb}s {{finding}}." for verb in ("show", "demonstrate", "reveal", "depict")),
    ),
    sided=("{noun} on the {side}", "{side}-sided {noun}", "{noun} on the patient's {side} side"),
    stated=("{noun}", "evidence of {noun}", "signs of {noun}"),
    excluded=("no {noun}", "no evidence of {noun}", "no sign of {noun}"),
)  # fmt: skip
MEASURED = Grammar(
    descriptions=(
        "{plane} {modality} through the {organ}", "{organ} {modality}, {plane} {view}",
        "{modality} image of the {organ} in {plane} {view}",
    ),
    clauses=(
        "this image, {study}, shows {finding}.", "synthetic case with {finding} on {study}.",
        "example of {study}, revealing {finding}.", "{study}, an image demonstrating {finding}.",
    ),
    sided=("{noun} on the {side} side",),
    stated=("{noun}",),
    excluded=("no {noun}",),
)  # fmt: skip
CHOOSING = MEASURED._replace(
    descriptions=(
        "{organ} in {plane} {view}, {modality}", "{modality}, {plane} {view} of the {organ}",
        "{plane} {organ} image by {modality}",
    ),
    clauses=(
        "{study} reveals {finding} in this image.", "this case, {study}, demonstrates {finding}.",
        "synthetic image: {study} depicting {finding}.", "in this example, {finding} on {study}.",
    ),
    sided=("{side}-sided {noun}",),
)  # fmt: skip


class Statement(NamedTuple):
    """What a caption says."""

    modality: str
    plane: str
    organ: str
    finding: str
    side: str
    """"": the caption names none."""
    is_stated: bool
    """Whether the finding is stated; otherwise it is excluded, there."""


def draw_statement(rng: np.random.Generator, stated_share: float = STATED_SHARE) -> Statement:
    """One for training; every part independent of the others, but for sagittal images, which have no side."""
    modality, plane, organ, finding = (_pick(rng, x) for x in ([*MODALITIES], PLANES, [*ORGANS], FINDINGS))
    side = _pick(rng, ("", *SIDES)) if plane in MEASURED_PLANES else ""
    return Statement(modality, plane, organ, finding, side, bool(rng.random() < stated_share))


def measured_statements() -> Iterator[Statement]:
    """Every one there is in the measured planes: the foil of each, but of its order, is another one."""
    parts = itertools.product(MODALITIES, MEASURED_PLANES, ORGANS, FINDINGS, ("", *SIDES), (True, False))
    return itertools.starmap(Statement, parts)


def write_caption(statement: Statement, rng: np.random.Generator, grammar: Grammar) -> str:
    """A sentence that says it; the draws depend on the finding and on whether there is a side, on nothing else."""
    noun, sided = _pick(rng, WORDINGS[statement.finding]), _pick(rng, grammar.sided)
    stated, excluded = _pick(rng, grammar.stated), _pick(rng, grammar.excluded)
    description, view, clause = (_pick(rng, x) for x in (grammar.descriptions, VIEWS, grammar.clauses))
    noun = sided.format(noun=noun, side=statement.side) if statement.side else noun
    finding = (stated if statement.is_stated else excluded).format(noun=noun)
    organ = ORGANS[statement.organ]
    study = description.format(modality=statement.modality, plane=statement.plane, organ=organ, view=view)
    text = clause.format(study=study, finding=finding)
    return text[0].upper() + text[1:]


def true_case(statement: Statement, rng: np.random.Generator) -> Case:
    """A phantom that it is true of; of a finding excluded on one side, one that has it on the other."""
    finding, side = statement.finding, statement.side
    if not side and not statement.is_stated:
        finding = "normal"
    elif not side and statement.plane in MEASURED_PLANES:
        side = _pick(rng, SIDES)
    elif side and not statement.is_stated:
        side = SIDES[1 - SIDES.index(side)]
    return Case(_pick(rng, MODALITIES[statement.modality]), statement.organ, statement.plane, finding, side)


def measured_captions(grammar: Grammar = MEASURED) -> Iterator[tuple[Statement, str]]:
    """Each measured statement and its caption; those that differ in one foil share all other words."""
    for statement in measured_statements():
        shared = [*ORGANS].index(statement.organ), FINDINGS.index(statement.finding), len(statement.side) > 0
        yield statement, write_caption(statement, np.random.default_rng(shared), grammar)


def pairs(count: int, stated_share: float = STATED_SHARE) -> Iterator[Pair]:
    """`count` for training; each measured statement for validation and for test, each in frames of its own."""
    for number in range(count):
        rng = np.random.default_rng((0, number))
        statement = draw_statement(rng, stated_share)
        yield _pair(f"TRAIN_{number:06d}", "train", statement, write_caption(statement, rng, TRAINING), rng)
    for stream, split, grammar in ((1, "test", MEASURED), (2, "validation", CHOOSING)):
        for number, (statement, caption) in enumerate(measured_captions(grammar)):
            rng = np.random.default_rng((stream, number))
            yield _pair(f"{split.upper()}_{number:06d}", split, statement, caption, rng)


def _pair(name: str, split: str, statement: Statement, caption: str, rng: np.random.Generator) -> Pair:
    case, file = true_case(statement, rng), io.BytesIO()
    gray = draw_case(case, np.random.SeedSequence(int(rng.integers(2**32))))
    Image.fromarray(gray).save(file, "PNG", compress_level=1)
    return Pair(
        id=name, image=file.getvalue(), caption=caption, split=split, article=name, license="CC0-1.0",
        labels=dataclasses.asdict(case), source="phantoms (synthetic)",
    )  # fmt: skip


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]
