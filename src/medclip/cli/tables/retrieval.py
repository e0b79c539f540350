"""Tables of retrieval, of its robustness and of what captions mean to a model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from medclip.cli.tables.parts import interval, provenance, what


def retrieval_tables(results: dict[str, Any]) -> Iterator[RenderableType]:
    """Both directions with intervals, beside the pool and chance; below, other pools and measures, and worst groups."""
    title = f"{what(results)}, pool of {results['pool']}"
    table = Table("measure", "text→image", "image→text", "chance", title=title)
    for name in results["text_to_image"]:
        _add_ways(table, name, results, name, results["chance"])
    table.add_section()
    apart, distinct = results["article_disjoint"], results["duplicate_aware"]
    _add_ways(table, "R@10, own article out", apart, "R@10", apart["chance"])
    _add_ways(table, "R@10, repeats as one", distinct, "R@10", distinct["text_to_image"]["chance"])
    if fixed := results.get("fixed_pool"):
        said = f"R@10, {fixed['draws']} pools of {fixed['pool']}"
        _add_ways(table, said, fixed, "R@10", fixed["chance"])
    if graded := results.get("concepts"):
        for name in ("nDCG@10", "mAP"):
            _add_ways(table, f"{name} by concepts", graded, name, graded["text_to_image"]["chance"])
    for kind, found in results["by_group"].items():
        group = found["groups"][found["worst"]]
        said = f"R@10, lowest {kind} of {len(found['groups'])}: {found['worst']} ({group['n']})"
        table.add_row(
            Text(said), *(interval(group[f"{way} / R@10"], True) for way in ("text_to_image", "image_to_text"))
        )
    yield table
    if graded:
        yield f"by concepts: {graded['queries']} of {results['pool']} pairs have any."
    yield from provenance(results)


def _add_ways(table: Table, title: str, figures: dict[str, Any], name: str, chance: dict[str, float]) -> None:
    """A row of one figure both ways."""
    share = not name.endswith("rank")
    ways = (interval(figures[way][name], share) for way in ("text_to_image", "image_to_text"))
    table.add_row(title, *ways, f"{chance[name]:.1%}" if share else f"{chance[name]:.1f}")


def compositionality_tables(results: dict[str, Any]) -> Iterator[RenderableType]:
    """Each choice between a caption and a changed one, and what could not be asked."""
    table = Table("a caption changed in", "told from the true one", "chance", "captions", "ties", title=what(results))
    for name, found in results["tests"].items():
        chosen = interval(found["accuracy"], True)
        table.add_row(name, chosen, f"{results['chance']:.0%}", str(found["captions"]), str(found["ties"]))
    yield table
    for name, reason in results["left_out"].items():
        yield f"left out: {name}, {reason}"
    yield from provenance(results)


def robustness_tables(results: dict[str, Any]) -> Iterator[RenderableType]:
    """A row a corruption: what each severity takes from R@10, and the worst of all."""
    title = f"{what(results)}, pool of {results['pool']}: points of R@10 (both ways) gained or lost"
    table = Table("pictures", "mild", "medium", "strong", "cosine", title=title)
    table.add_row("clean: R@10", interval(results["clean"]["R@10"], True), "", "", _cosine(results["clean"]))
    for name, about in results["corruptions"].items():
        each = about["severities"]
        settings = about["settings"].format(", ".join(f"{one['setting']:g}" for one in each))
        points = ({end: 100 * value for end, value in one["change"].items()} for one in each)
        cells = ("{value:+.1f}\n({low:+.1f} to {high:+.1f})".format(**one) for one in points)
        table.add_row(f"{name}\n{settings}", *cells, _cosine(each[-1]))
    yield table
    yield f"most is lost to: {results['worst']} (mean of the three); cosine: of true pairs, at the strongest"
    yield from provenance(results)


def _cosine(measured: dict[str, Any]) -> str:
    return f"{measured['cosine']['value']:.2f}"
