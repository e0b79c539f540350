"""Request and response models of the HTTP API, with their limits."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

MAX_K, MAX_QUERIES, MAX_TEXTS, MAX_LABELS, MAX_IMAGES = 100, 16, 32, 64, 8
MAX_TEXT_LENGTH = 1000  # characters: no text tower here reads more than about 500

Text = Annotated[str, StringConstraints(min_length=1, max_length=MAX_TEXT_LENGTH)]
FilterItem = Annotated[str, StringConstraints(min_length=1, max_length=200)]
FilterValues = Annotated[list[FilterItem], Field(min_length=1, max_length=MAX_TEXTS)]
K = Annotated[int, Field(ge=1, le=MAX_K, description="Number of hits.")]
ImageID = Annotated[str, StringConstraints(min_length=1, max_length=MAX_TEXT_LENGTH)]
ImageHash = Annotated[
    str | None, Field(max_length=64, description="The `sha256` of a hit: of images with one id, which is meant.")
]
GroupBy = Annotated[Literal["article"] | None, Field(description="Only the best image of each article.")]


class SearchQuery(BaseModel):
    """Texts to look for, all together, and texts to avoid."""

    model_config = ConfigDict(extra="forbid")  # a misspelled field is an error, not a default

    texts: Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS)]
    negative_texts: Annotated[list[Text], Field(max_length=MAX_TEXTS)] = []


class SearchRequest(BaseModel):
    """Queries, each answered on its own, and options for all of them."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"queries": [{"texts": ["pleural effusion"]}], "k": 5}]}
    )

    queries: Annotated[list[SearchQuery], Field(min_length=1, max_length=MAX_QUERIES)]
    k: K = 10
    filter: Annotated[
        dict[FilterItem, FilterValues],
        Field(max_length=MAX_TEXTS, description="A key of /facets, or article, source, added: any of its values."),
    ] = {}
    group_by: GroupBy = None


class EmbedRequest(BaseModel):
    """Texts to embed."""

    model_config = ConfigDict(extra="forbid")

    texts: Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS)]


class Hit(BaseModel):
    """An image of the index. `score` is the cosine with the query, in [-1, 1]."""

    id: str
    sha256: str
    """Of the image as it came. Datasets that number their images may have one id for several: then it tells which."""
    score: float
    caption: str
    article: str
    license: str
    attribution: str
    labels: dict[str, str]
    source: str
    added: str
    duplicates: list[str]
    """Ids of near-duplicate images that rank lower and are left out."""
    thumbnail: str
    """Path of the image, from the root of this service."""


class SearchResult(BaseModel):
    """The hits of one query, best first, and how far to believe them."""

    hits: list[Hit]
    probabilities: Annotated[
        list[float] | None,
        Field(
            description="For each hit, that the right image is it or one above it, if the index holds that. "
            "null: see `note`."
        ),
    ]
    no_match: Annotated[
        bool | None,
        Field(
            description="Whether the index seems to hold nothing that the text describes. So it says of at most "
            "`validation.false_no_match_rate` (GET /) of texts as long whose image is there. null: see `note`."
        ),
    ]
    note: Annotated[
        str,
        Field(description="What both mean, or why they are null; and whether a text is longer than the model reads."),
    ]


class SearchResponse(BaseModel):
    """One result for each query, in order."""

    results: list[SearchResult]


class LabelScore(BaseModel):
    """Probability of a label among those given."""

    label: str
    probability: float


class ClassifyResponse(BaseModel):
    """Probabilities of the labels in the order given, which sum to 1. `best` is the most probable label."""

    best: str
    scores: list[LabelScore]


class EmbedResponse(BaseModel):
    """Unit vectors in the order of the inputs, and the SHA-256 of the model that made them."""

    embeddings: list[list[float]]
    embedding_dim: int
    model_sha256: str


class FacetsResponse(BaseModel):
    """Number of images with each value of each key that /search can filter by."""

    num_images: int
    facets: dict[str, dict[str, int]]


class Withheld(BaseModel):
    """Texts about an organ whose images were all left out."""

    min_words: int
    """Fewest words of these texts; those of the next entry have more."""
    num_queries: int
    no_match_rate: float
    """Share of them that had no match."""


class Validation(BaseModel):
    """How good the model is on its own validation split, and what its probabilities were calibrated on."""

    recall_at_10: float
    """Share of the captions whose image is among the first 10."""
    low: float
    """Of the 95 % interval."""
    high: float
    chance: float
    num_images: int
    num_captions: int
    near_chance: bool
    false_no_match_rate: float
    withheld: list[Withheld]
    """By length of the text; empty: not measured."""


class ServiceInfo(BaseModel):
    """What this service is and what it holds."""

    name: str
    version: str
    notice: str
    num_images: int
    synthetic: bool
    model_sha256: str
    validation: Validation | None
    """null where the model has no calibration."""
    openapi: str


class StatusResponse(BaseModel):
    """`ok`."""

    status: str


class ErrorResponse(BaseModel):
    """What was wrong, in one sentence."""

    error: str
