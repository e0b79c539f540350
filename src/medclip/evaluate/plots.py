"""The drawings of an evaluation's page and of a comparison's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from medclip import page
from medclip.evaluate.figures import Figure as Said
from medclip.evaluate.figures import Group, form, form_interval, is_share, words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def recalls(ways: Mapping[str, Group]) -> Markup:
    """Bars of recall at k of each way with their intervals, and what chance would give."""
    names = [name for name in next(iter(ways.values())).figures if name.startswith("R@")]
    width = 0.8 / len(ways)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for place, (way, group) in enumerate(ways.items()):
            at = np.arange(len(names)) + (place - (len(ways) - 1) / 2) * width
            values, reach = _percent([group.figures[name] for name in names])
            axes.bar(at, values, 0.92 * width, color=page.SERIES[place % 4], label=words(way))
            axes.errorbar(at, values, reach, fmt="none", ecolor=page.INK, capsize=4, lw=1.2)
            chance = [np.nan if (one := group.chance(name)) is None else 100 * one for name in names]
            axes.hlines(chance, at - width / 2, at + width / 2, page.INK, ls=":", label=None if place else "chance")
        axes.set_xticks(range(len(names)), names)
        axes.set(ylabel="% found", ylim=(0, None))
        axes.legend()

    said = "; ".join(
        f"{words(way)} " + ", ".join(f"{name} {form(name, group.figures[name]['value'])}" for name in names)
        for way, group in ways.items()
    )
    return page.figure(draw, f"Recall with 95 % intervals: {said}.", (7, 3))


def dots(name: str, rows: Mapping[str, Said], chance: float | None) -> Markup:
    """One figure of several things: a dot each with its interval, and chance as a line."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        values, reach = _percent(list(rows.values()), 100 if is_share(name) else 1)
        _whiskers(axes, list(map(words, rows)), values, reach, page.SERIES[0])
        if chance is not None:
            axes.axvline(100 * chance if is_share(name) else chance, ls=":", c=page.INK, lw=1, label="chance")
            axes.legend()
        axes.set(xlabel=f"{words(name)}{', %' if is_share(name) else ''}")

    said = "; ".join(f"{words(row)} {form(name, of['value'])} ({form_interval(name, of)})" for row, of in rows.items())
    return page.figure(draw, f"{words(name)} with 95 % intervals: {said}.", (8, 0.9 + 0.33 * len(rows)))


def reliability(curves: Mapping[str, Sequence[Mapping[str, float]]]) -> Markup:
    """How often a model is right for how sure it is, by bins; on the line it is as often right as it says."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot([0, 100], [0, 100], ls=":", c=page.INK, lw=1, label="as sure as right")
        for place, (name, bins) in enumerate(curves.items()):
            said, right = (100 * np.array([one[part] for one in bins], float) for part in ("confidence", "accuracy"))
            axes.plot(said, right, "o-", color=page.SERIES[place % 4], label=words(name), ms=5)
        axes.set(xlabel="how sure, %", ylabel="how often right, %", xlim=(0, 100), ylim=(0, 100), aspect="equal")
        axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5))

    return page.figure(draw, f"Reliability of {', '.join(map(words, curves))}: how often right for how sure.", (6.4, 4))


def lines(name: str, series: Mapping[str, Mapping[float, Said]], over: str, chance: float | None) -> Markup:
    """A figure over a number (shots, severity, pool), a line with its interval for each series."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for place, (title, of) in enumerate(series.items()):
            at = np.array(sorted(of))
            values, reach = _percent([of[x] for x in at], 100 if is_share(name) else 1)
            axes.errorbar(at, values, reach, fmt="o-", color=page.SERIES[place % 4], capsize=3, label=words(title))
        every = sorted({x for of in series.values() for x in of})
        if every[0] > 0 and every[-1] / every[0] >= 10:
            axes.set_xscale("log")
        axes.set_xticks(every, [f"{x:g}" for x in every])
        axes.minorticks_off()
        if chance is not None:
            axes.axhline(100 * chance if is_share(name) else chance, ls=":", c=page.INK, lw=1, label="chance")
        axes.set(xlabel=words(over), ylabel=f"{words(name)}{', %' if is_share(name) else ''}")
        if len(series) > 1 or chance is not None:
            axes.legend()

    said = "; ".join(
        f"{words(title)} " + ", ".join(f"{form(name, of[x]['value'])} at {x:g}" for x in sorted(of))
        for title, of in series.items()
    )
    return page.figure(draw, f"{words(name)} over {words(over)}: {said}.", (7, 3))


def small_multiples(name: str, panels: Mapping[str, Mapping[str, Mapping[float, Said]]], over: str) -> Markup:
    """As `lines`, a panel for each of many things, all with the same scales."""
    columns = min(4, len(panels))
    rows = -(-len(panels) // columns)

    def draw(figure: Figure) -> None:
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for axes in grid.flat[len(panels) :]:
            axes.set_axis_off()
        for axes, (title, series) in zip(grid.flat, panels.items(), strict=False):
            for place, (way, of) in enumerate(series.items()):
                at = np.array(sorted(of))
                values, reach = _percent([of[x] for x in at], 100 if is_share(name) else 1)
                axes.errorbar(
                    at, values, reach, fmt="o-", color=page.SERIES[place % 4], capsize=2, ms=4, label=words(way)
                )
            axes.set_title(words(title), fontsize=11)
            axes.set_ylim(0, None)
        figure.supxlabel(words(over), fontsize=11, color=page.INK)
        figure.supylabel(f"{words(name)}{', %' if is_share(name) else ''}", fontsize=11, color=page.INK)
        if len(next(iter(panels.values()))) > 1:
            grid.flat[0].legend(fontsize=9)

    said = "; ".join(
        f"{words(title)} {words(way)} " + ", ".join(f"{form(name, of[x]['value'])} at {x:g}" for x in sorted(of))
        for title, series in panels.items()
        for way, of in series.items()
    )
    return page.figure(draw, f"{words(name)} over {words(over)}: {said}.", (9, 0.6 + 1.9 * rows))


def differences(rows: Mapping[str, Sequence[tuple[float, float, float, str]]], names: Sequence[str]) -> Markup:
    """Differences from a baseline in points: (value, low, high, verdict) of each evaluation in `names` for each figure.

    A filled dot is beyond noise.
    """
    height = 0.8 / len(names)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.axvline(0, c=page.INK, lw=1)
        places = np.arange(len(rows))[::-1]
        for number, name in enumerate(names):
            colour = page.SERIES[number % 4]
            value, low, high = np.array([of[number][:3] for of in rows.values()]).T
            at = places + ((len(names) - 1) / 2 - number) * height
            reach = np.maximum(0, [value - low, high - value])
            axes.errorbar(value, at, xerr=reach, fmt="none", ecolor=colour, capsize=3)
            beyond = np.array([of[number][3] != "within noise" for of in rows.values()])
            axes.scatter(value[beyond], at[beyond], color=colour, zorder=3, label=name if beyond.any() else None)
            axes.scatter(value[~beyond], at[~beyond], edgecolors=colour, facecolors="none", zorder=3,
                         label=None if beyond.any() else name)  # fmt: skip
        axes.set_yticks(places, [words(row) for row in rows])
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.grid(axis="x", alpha=0.2)
        axes.set(xlabel="points of a hundred")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=len(names))

    said = "; ".join(
        f"{words(row)} " + ", ".join(f"{name} {of[0]:+.1f} ({of[3]})" for name, of in zip(names, found, strict=True))
        for row, found in rows.items()
    )
    tall = 1.2 + len(rows) * (0.2 + 0.16 * len(names))
    return page.figure(draw, f"Differences from the baseline in points, with 95 % intervals: {said}.", (8, tall))


def _whiskers(axes: Axes, names: Sequence[str], values: np.ndarray, reach: np.ndarray, colour: str) -> None:
    """A dot with its interval for each name, the first at the top."""
    places = np.arange(len(names))[::-1]
    axes.errorbar(values, places, xerr=reach, fmt="o", color=colour, capsize=3)
    axes.set_yticks(places, names)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.grid(axis="x", alpha=0.2)


def _percent(figures: Sequence[Said], by: float = 100) -> tuple[np.ndarray, np.ndarray]:
    """Values (n,) and how far their intervals reach below and above (2, n); NaN where there is none."""
    value, low, high = (
        by * np.array([np.nan if one[part] is None else one[part] for one in figures], float)
        for part in ("value", "low", "high")
    )
    # An interval need not hold its value: resampling moves errors that are never below zero upwards.
    return value, np.maximum(0, np.stack([value - low, high - value]))
