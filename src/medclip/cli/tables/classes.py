"""Tables of the measures of classes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from medclip.cli.tables.parts import provenance

_REGRESSION = "logistic_regression"


def zero_shot_tables(results: dict[str, Any]) -> Iterator[RenderableType]:
    """Classes told apart by prompts, beside random weights and chance; calibration; every class."""
    yield from _figures(results, {"prompts": (results, results["random_weights"])})
    yield from _classes(results["classes"], results.get("confusion"))
    if about := results.get("calibration"):
        said = [f"{name} {_figure(about[name]['ece'])}" for name in ("raw", "scaled") if about[name]]
        yield f"calibration error ({about['bins']} bins): {', '.join(said)}"
        if heat := about["temperature"]:
            yield f"temperature {heat['median']:.3g}, fitted {about['fitted']}"
    yield from provenance(results)


def probe_tables(results: dict[str, Any]) -> Iterator[RenderableType]:
    """Both classifiers on frozen features and few images a class, beside random weights and chance; every class."""
    twin = results["random_weights"]
    rows = {name.replace("_", " "): (results[name], twin and twin[name]) for name in (_REGRESSION, "nearest_neighbors")}
    rows |= {
        f"{shots} a class, {results['draws']} draws": (of, twin and twin["few_shot"][shots])
        for shots, of in results["few_shot"].items()
    }
    yield from _figures(results, rows)
    yield from _classes(results[_REGRESSION]["classes"], results[_REGRESSION]["confusion"])
    yield from provenance(results)


def _figures(results: dict[str, Any], rows: dict[str, Any]) -> Iterator[RenderableType]:
    """The figures of each row's model and of its twin with random weights."""
    chance = {"accuracy": results.get("chance"), "balanced_accuracy": results.get("chance"), "auroc": 0.5}
    what = f"{results['data']}, {results['split']}, {results['label']}: {results['pictures']} images"
    table = Table("by", "measure", "model", "random weights", "chance", "majority", title=what)
    for by, (model, twin) in rows.items():
        for name in (figure for figure in ("accuracy", "balanced_accuracy", "macro_f1", "auroc") if figure in model):
            even = f"{chance[name]:.1%}" if chance.get(name) else "–"
            most = f"{results['majority']['accuracy']:.1%}" if name in results.get("majority", {}) else "–"
            table.add_row(by, _named(name), _figure(model[name]), _figure(twin and twin[name]), even, most)
    yield table
    if results["left_out"]:
        yield f"left out: {', '.join(f'{why} {n}' for why, n in results['left_out'].items())}"


def _classes(classes: dict[str, Any], confusion: list[list[int]] | None) -> Iterator[RenderableType]:
    """A row for every class; its number heads the column of the images that were called so."""
    figures = [name for name in ("prevalence", "auroc", "f1") if name in next(iter(classes.values()))]
    called = [str(c + 1) for c in range(len(confusion or ()))]
    title = "how many images of the class in the row were called 1, 2, …" if confusion else None
    table = Table("", "class", "pictures", *map(_named, figures), *called, title=title)
    for c, (name, about) in enumerate(classes.items()):
        values = [f"{about[of]:.1%}" if of == "prevalence" else _figure(about[of]) for of in figures]
        counts = [str(n or "·") for n in confusion[c]] if confusion else []
        table.add_row(str(c + 1), Text(name), str(about["pictures"]), *values, *counts)
    yield table


def _named(figure: str) -> str:
    return {"auroc": "AUROC", "f1": "F1", "macro_f1": "macro-F1"}.get(figure, figure.replace("_", " "))


def _figure(measured: dict[str, float] | None) -> str:
    return "{value:.1%} ({low:.1%}–{high:.1%})".format(**measured) if measured else "–"
