"""What commands about an index print: the hits of a search, the lists of a map."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.table import Column, Table

if TYPE_CHECKING:
    from medclip.match_calibration import Calibration
    from medclip.search.map import EmbeddingMap
    from medclip.search.match import SearchResult
    from medclip.search.reader import IndexReader

NUM_LISTED = 10  # of each list of `medclip map`


def hits_json(result: SearchResult, query: str) -> Iterator[dict[str, Any]]:
    """The fields of each hit, best first, with its query where there are several ("": the only one)."""
    for hit, probability in result.hits_with_probability():
        fields = {name: getattr(hit, name) for name in ("id", "score", "caption", "article", "license", "labels")}
        fields |= {"score": round(hit.score, 6), "added": hit.added, "duplicates": hit.duplicates}
        fields |= {"probability_so_far": None if probability is None else round(probability, 4)}
        fields |= {"no_match": result.no_match, "note": result.note}
        yield {"query": query, **fields} if query else fields


def result_tables(
    answers: Sequence[tuple[str, SearchResult]], calibration: Calibration | str
) -> Iterator[RenderableType]:
    """Hits of each query, best first, as wide as the terminal, and below them how far to believe them."""
    from medclip.search.match import describe_model

    for title, result in answers:
        yield _hits_table(result, title)
        yield result.note
    if not isinstance(calibration, str):
        yield describe_model(calibration)


def _hits_table(result: SearchResult, title: str) -> Table:
    """The caption has the width, since it is what is read; a probability or article that no hit has, no column."""
    from medclip.search.match import to_percent

    hits = result.hits
    columns = [(Column("score"), [f"{hit.score:.3f}" for hit in hits])]
    if result.probabilities:
        columns.append((Column("right so far"), [*map(to_percent, result.probabilities)]))
    columns.append((Column("caption", ratio=1, min_width=20), [hit.caption for hit in hits]))
    columns.append((_id_column("id"), [hit.id for hit in hits]))
    if any(hit.article != hit.id for hit in hits):
        columns.append((_id_column("article"), [hit.article for hit in hits]))
    table = Table(*(column for column, _ in columns), title=title or None, expand=True)
    for row in zip(*(cells for _, cells in columns), strict=True):
        table.add_row(*row)
    return table


def _id_column(name: str) -> Column:
    return Column(name, max_width=22, overflow="fold")


def map_lists(reader: IndexReader, points: EmbeddingMap) -> dict[str, list[dict[str, Any]]]:
    """What to look at first, by list: the worst of each."""

    def id(point: int) -> str:
        return reader.id(int(points.rows[point]))

    scores, captions = points.neighbors.outlier_scores, points.captions
    lists: dict[str, list[dict[str, Any]]] = {
        "outliers": [
            {"id": id(i), "score": round(float(scores[i]), 4)} for i in points.neighbors.farthest[:NUM_LISTED]
        ],
        "near_duplicates": [
            {"id": id(first), "duplicates": [id(other) for other in others]}
            for first, others in islice(points.duplicates.items(), NUM_LISTED)
        ],
    }
    if captions is not None:
        lists["confused"] = [
            {
                "id": id(i),
                "rank": int(captions.ranks[i]),
                "cosine": round(float(captions.cosines[i]), 4),
                "other": id(int(captions.others[i])),
                "other_cosine": round(float(captions.other_cosines[i]), 4),
            }
            for i in captions.most_confused[:NUM_LISTED]
        ]
    return lists


def map_tables(reader: IndexReader, points: EmbeddingMap, out: Path) -> Iterator[RenderableType]:
    """The lists of a map, and how many of the images it has."""
    titles = {
        "outliers": "farthest from their neighbors (mean cosine distance)",
        "near_duplicates": "near duplicates",
        "confused": "images that another's caption fits better",
    }
    for name, rows in map_lists(reader, points).items():
        if rows:
            table = Table(*(key.replace("_", " ") for key in rows[0]), title=titles[name])
            for row in rows:
                table.add_row(*(", ".join(value) if isinstance(value, list) else str(value) for value in row.values()))
            yield table
    yield f"{len(points.rows):,} of {len(reader):,} images in {out}"
