"""The charts of an evaluation's page and of a comparison's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from medclip import html_page
from medclip.evaluation.compare import Row
from medclip.evaluation.results import ReliabilityCurve
from medclip.evaluation.significance import Verdict
from medclip.named_metrics import Metric, format_interval, format_value, to_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


MAX_NAME = 40  # letters
LEGEND_ROW = 0.25  # inches


def recalls(directions: Mapping[str, Mapping[str, Metric]]) -> Markup:
    """Bars of recall at each k for each direction with intervals, and chance."""
    ks = list(next(iter(directions.values())))
    width = 0.8 / len(directions)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for number, (label, by_k) in enumerate(directions.items()):
            metrics = list(by_k.values())
            at = np.arange(len(ks)) + (number - (len(directions) - 1) / 2) * width
            values, errors = _percent(metrics)
            axes.bar(at, values, 0.92 * width, color=html_page.SERIES[number % 4], label=label)
            axes.errorbar(at, values, errors, fmt="none", ecolor=html_page.INK, capsize=4, lw=1.2)
            chance = [np.nan if metric.chance is None else 100 * metric.chance for metric in metrics]
            label = "" if number else "chance"
            axes.hlines(chance, at - width / 2, at + width / 2, html_page.INK, ls=":", label=label)
        axes.set_xticks(range(len(ks)), ks)
        axes.set(ylabel="recall, %", ylim=(0, None))
        axes.legend()

    return html_page.figure(draw, f"Recall with 95 % intervals. {_describe(directions)}", (7, 3))


def dots(title: str, series: Mapping[str, Mapping[str, Metric]]) -> Markup:
    """A metric of several things: a dot with its interval for each, a color for each series, and chance as a line."""
    rows = list(next(iter(series.values())))
    chance = _shared_chance(series)
    many = len(series) > 1

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for number, (label, metrics) in enumerate(series.items()):
            values, errors = _percent([metrics[row] for row in rows])
            at = np.arange(len(rows))[::-1] + ((len(series) - 1) / 2 - number) * 0.8 / len(series)
            color = html_page.SERIES[number % 4]
            axes.errorbar(
                values, at, xerr=errors, fmt="o", color=color, capsize=3, label=_shorten(label) if many else None
            )
        _rows(axes, rows)
        if chance is not None:
            axes.axvline(chance, ls=":", c=html_page.INK, lw=1, label="chance")
        axes.set(xlabel=f"{title}, %")
        if many or chance is not None:
            _legend_above(figure, names)

    names = [*(series if many else ()), *(() if chance is None else ("chance",))]
    height = 1 + len(rows) * (0.2 + 0.14 * len(series)) + LEGEND_ROW * _legend_rows(names)
    return html_page.figure(draw, f"{title} with 95 % intervals. {_describe(series)}", (8, height))


def reliability(curves: Sequence[ReliabilityCurve]) -> Markup:
    """Accuracy over confidence; on the dotted line both are the same. A dot is a bin, the larger the more images."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot([0, 100], [0, 100], ls=":", c=html_page.INK, lw=1, label="confidence = accuracy")
        for number, curve in enumerate(curves):
            confidence = [100 * group.confidence for group in curve.bins]
            accuracy = [100 * group.accuracy for group in curve.bins]
            counts = np.array([group.num_images for group in curve.bins], float)
            color = html_page.SERIES[number % 4]
            axes.plot(confidence, accuracy, color=color, lw=1, label=to_words(curve.name))
            axes.scatter(confidence, accuracy, 300 * counts / counts.sum() + 4, color=color)
        axes.set(xlabel="confidence, %", ylabel="accuracy, %", xlim=(0, 100), ylim=(0, 100), aspect="equal")
        axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5))

    names = ", ".join(to_words(curve.name) for curve in curves)
    return html_page.figure(draw, f"Reliability of {names}: accuracy over confidence.", (6.4, 4))


def lines(title: str, series: Mapping[str, Mapping[float, Metric]], over: str) -> Markup:
    """A metric over a number (of shots, say), a line with its intervals for each series."""
    chance = _shared_chance(series)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for number, (label, metrics) in enumerate(series.items()):
            _line(axes, metrics, html_page.SERIES[number % 4], label)
        numbers = sorted({x for metrics in series.values() for x in metrics})
        if numbers[0] > 0 and numbers[-1] / numbers[0] >= 10:
            axes.set_xscale("log")
        axes.set_xticks(numbers, [f"{x:g}" for x in numbers])
        axes.minorticks_off()
        if chance is not None:
            axes.axhline(chance, ls=":", c=html_page.INK, lw=1, label="chance")
        axes.set(xlabel=over, ylabel=f"{title}, %")
        axes.legend()

    return html_page.figure(draw, f"{title} over {over}. {_describe(series)}", (7, 3))


def small_multiples(title: str, panels: Mapping[str, Mapping[float, Metric]], over: str) -> Markup:
    """As `lines`, a panel for each series, all to the same scales."""
    columns = min(4, len(panels))
    rows = -(-len(panels) // columns)

    def draw(figure: Figure) -> None:
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for axes in grid.flat[len(panels) :]:
            axes.set_axis_off()
        for axes, (label, metrics) in zip(grid.flat, panels.items(), strict=False):
            _line(axes, metrics, html_page.SERIES[0])
            axes.set_title(label, fontsize=11)
            axes.set_xticks(sorted(metrics), [f"{x:g}" for x in sorted(metrics)])
        grid[0, 0].set_ylim(0, None)  # of all, once all are drawn
        figure.supxlabel(over, fontsize=11, color=html_page.INK)
        figure.supylabel(f"{title}, %", fontsize=11, color=html_page.INK)

    return html_page.figure(draw, f"{title} over {over}. {_describe(panels)}", (9, 0.8 + 1.8 * rows))


def differences(rows: Sequence[Row], names: Sequence[str]) -> Markup:
    """Differences of shares from the baseline, of each evaluation in `names`; a filled dot is beyond noise."""
    height = 0.8 / len(names)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.axvline(0, c=html_page.INK, lw=1)
        for number, name in enumerate(names):
            color, contrasts = html_page.SERIES[number % 4], [row.contrasts[number] for row in rows]
            ends = [(c.difference.difference, c.difference.low, c.difference.high) for c in contrasts]
            moved, errors = _error_bars(100 * np.array(ends, float))
            at = np.arange(len(rows))[::-1] + ((len(names) - 1) / 2 - number) * height
            axes.errorbar(moved, at, xerr=errors, fmt="none", ecolor=color, capsize=3)
            fill = ["none" if c.verdict == Verdict.WITHIN_NOISE else color for c in contrasts]
            axes.scatter(moved, at, edgecolors=color, facecolors=fill, zorder=3)
            axes.plot([], [], "o", color=color, label=_shorten(name))
        _rows(axes, [to_words(row.name) for row in rows])
        axes.set(xlabel="points of a hundred")
        _legend_above(figure, names)

    text = "; ".join(
        f"{to_words(row.name)}, {name}: {100 * contrast.difference.difference:+.1f} ({contrast.verdict})"
        for row in rows
        for name, contrast in zip(names, row.contrasts, strict=True)
    )
    tall = 1 + len(rows) * (0.2 + 0.16 * len(names)) + LEGEND_ROW * _legend_rows(names)
    return html_page.figure(draw, f"Differences from the baseline in points, with 95 % intervals. {text}.", (8, tall))


def _line(axes: Axes, metrics: Mapping[float, Metric], color: str, label: str | None = None) -> None:
    at = sorted(metrics)
    values, errors = _percent([metrics[x] for x in at])
    axes.errorbar(at, values, errors, fmt="o-", color=color, capsize=3, ms=4, label=label)


def _rows(axes: Axes, names: Sequence[str]) -> None:
    """Names of rows at the left, the first at the top."""
    axes.set_yticks(np.arange(len(names))[::-1], [_shorten(name) for name in names])
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.grid(axis="x", alpha=0.2)


def _shorten(name: str) -> str:
    """A name that leaves room for the chart; tables have it whole."""
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…"


def _legend_columns(names: Sequence[str]) -> int:
    """How many names of a legend fit side by side into 8 inches: a letter takes 0.09, a mark half an inch."""
    return max(1, min(len(names), int(7.6 / (0.5 + 0.09 * max(len(_shorten(name)) for name in names)))))


def _legend_rows(names: Sequence[str]) -> int:
    return -(-len(names) // _legend_columns(names)) if names else 0


def _legend_above(figure: Figure, names: Sequence[str]) -> None:
    """A legend over the whole width; one that is wider pushes the axes out of the chart."""
    figure.legend(loc="outside upper center", ncols=_legend_columns(names))


def _describe(series: Mapping[str, Mapping[Any, Metric]]) -> str:
    """The numbers of a chart for people who cannot see it."""
    values = (
        f"{label}, {x if isinstance(x, str) else f'{x:g}'}: {format_value(m, m.value)}"
        f"{f' ({interval})' if (interval := format_interval(m)) else ''}"
        for label, metrics in series.items()
        for x, m in metrics.items()
    )
    return f"{'; '.join(values)}."


def _shared_chance(series: Mapping[str, Mapping[Any, Metric]]) -> float | None:
    """The chance of all metrics in percent, where it is one."""
    chances = {metric.chance for metrics in series.values() for metric in metrics.values()}
    chance = chances.pop() if len(chances) == 1 else None
    return None if chance is None else 100 * chance


def _percent(metrics: Sequence[Metric]) -> tuple[np.ndarray, np.ndarray]:
    """As `_error_bars`, in percent; NaN where a metric is not defined."""
    ends = [[np.nan if end is None else end for end in (m.value, m.low, m.high)] for m in metrics]
    return _error_bars(100 * np.array(ends, float))


def _error_bars(ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of value, low and high (n, 3): the values (n,) and how far their intervals reach below and above (2, n)."""
    value, low, high = ends.T
    # An interval need not hold its value: resampling moves errors that are never below zero upwards.
    return value, np.maximum(0, np.stack([value - low, high - value]))
