"""What goes over the wire: questions with their limits, and answers."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

MAX_K, MAX_QUERIES, MAX_TEXTS, MAX_LABELS, MAX_IMAGES = 100, 16, 32, 64, 8
LONGEST = 1000  # characters of a text: no tower here reads more than about 500

Text = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST)]
Value = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Filter = Annotated[list[Value], Field(min_length=1, max_length=MAX_TEXTS)]
K = Annotated[int, Field(ge=1, le=MAX_K, description="How many hits.")]
ID = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST)]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid")  # a misspelled field is an error, not a default


class Question(_Asked):
    """What is looked for: all of the texts together, and none of `without`."""

    texts: Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS)]
    without: Annotated[list[Text], Field(max_length=MAX_TEXTS)] = []


class Search(_Asked):
    """Questions, each answered for itself, and which answers are wanted."""

    queries: Annotated[list[Question], Field(min_length=1, max_length=MAX_QUERIES)]
    k: K = 10
    where: Annotated[
        dict[Value, Filter],
        Field(max_length=MAX_TEXTS, description="Key of /facets, or article, source, added, to any of its values."),
    ] = {}
    one_per_article: Annotated[bool, Field(description="The best image of an article only.")] = False
    ensemble: Annotated[bool, Field(description="Say texts in several ways and look for their mean.")] = False

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"queries": [{"texts": ["pleural effusion"]}], "k": 5}]}
    )


class Texts(_Asked):
    """Texts to embed."""

    texts: Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS)]


class Hit(BaseModel):
    """An image of the index. `score` is the cosine with the query, in [-1, 1]."""

    id: str
    score: float
    caption: str
    article: str
    license: str
    attribution: str
    labels: dict[str, str]
    source: str
    added: str
    copies: list[str]
    """Ids of images further down that look the same and are left out."""
    thumbnail: str
    """Where its image is, from the root of this service."""


class Hits(BaseModel):
    """The answer to one question, best first."""

    hits: list[Hit]


class SearchResponse(BaseModel):
    """One answer for each question, in their order."""

    answers: list[Hits]


class Probability(BaseModel):
    """Of a label, among those given."""

    label: str
    probability: float


class Classes(BaseModel):
    """Probabilities of the labels in the order given; they sum to 1. `best` is the most probable."""

    best: str
    labels: list[Probability]


class Vectors(BaseModel):
    """Unit vectors in the order of what was given, and the model that made them, by the hash of its weights."""

    vectors: list[list[float]]
    dimensions: int
    model_sha256: str


class Facets(BaseModel):
    """How many images have each value of each key that /search can filter by."""

    pictures: int
    facets: dict[str, dict[str, int]]


class About(BaseModel):
    """What this service is and holds."""

    name: str
    version: str
    notice: str
    pictures: int
    synthetic: bool
    model_sha256: str
    openapi: str


class State(BaseModel):
    """`ok`, or why not."""

    status: str


class Problem(BaseModel):
    """What was wrong, in one sentence."""

    error: str
