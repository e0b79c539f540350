"""The drawings of an evaluation's page and of a comparison's."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from medclip import html_page
from medclip.evaluate.metric import Figure as Said
from medclip.evaluate.metric import Group, form, form_interval, is_share, words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from medclip.evaluate.compare import Against

NOTHING: Said = {"value": None, "low": None, "high": None}


def recalls(ways: Mapping[str, Group]) -> Markup:
    """Bars of recall at k of each way with their intervals, and what chance would give."""
    names = [name for name in next(iter(ways.values())).figures if name.startswith("R@")]
    width = 0.8 / len(ways)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for place, (way, group) in enumerate(ways.items()):
            at = np.arange(len(names)) + (place - (len(ways) - 1) / 2) * width
            values, reach = _percent([group.figures[name] for name in names])
            axes.bar(at, values, 0.92 * width, color=html_page.SERIES[place % 4], label=words(way))
            axes.errorbar(at, values, reach, fmt="none", ecolor=html_page.INK, capsize=4, lw=1.2)
            chance = [np.nan if (one := group.chance(name)) is None else 100 * one for name in names]
            axes.hlines(
                chance, at - width / 2, at + width / 2, html_page.INK, ls=":", label=None if place else "chance"
            )
        axes.set_xticks(range(len(names)), names)
        axes.set(ylabel="% found", ylim=(0, None))
        axes.legend()

    said = "; ".join(
        f"{words(way)} " + ", ".join(f"{name} {form(name, group.figures[name]['value'])}" for name in names)
        for way, group in ways.items()
    )
    return html_page.figure(draw, f"Recall with 95 % intervals: {said}.", (7, 3))


def dots(name: str, series: Mapping[str, Mapping[str, Said]], chance: float | None) -> Markup:
    """A figure of several things: a dot each with its interval, in a color for each series, and chance as a line."""
    rows = list(next(iter(series.values())))
    many = len(series) > 1

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for number, (title, of) in enumerate(series.items()):
            values, reach = _percent([of.get(row, NOTHING) for row in rows], _by(name))
            at = np.arange(len(rows))[::-1] + ((len(series) - 1) / 2 - number) * 0.8 / len(series)
            color = html_page.SERIES[number % 4]
            axes.errorbar(values, at, xerr=reach, fmt="o", color=color, capsize=3, label=words(title) if many else None)
        _rows(axes, [words(row) for row in rows])
        if chance is not None:
            axes.axvline(_by(name) * chance, ls=":", c=html_page.INK, lw=1, label="chance")
        axes.set(xlabel=_axis(name))
        if many or chance is not None:
            axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=len(series) + 1)

    said = "; ".join(
        f"{words(title)}: "
        + ", ".join(f"{words(row)} {form(name, of[row]['value'])} ({form_interval(name, of[row])})" for row in of)
        for title, of in series.items()
    )
    tall = 1.2 + len(rows) * (0.2 + 0.14 * len(series))
    return html_page.figure(draw, f"{words(name)} with 95 % intervals. {said}.", (8, tall))


def reliability(curves: Mapping[str, Sequence[Mapping[str, float]]]) -> Markup:
    """How often a model is right for how sure it is; on the dotted line it is as often right as it says.

    A dot is a bin, the larger the more images it holds.
    """

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot([0, 100], [0, 100], ls=":", c=html_page.INK, lw=1, label="as sure as right")
        for place, (name, bins) in enumerate(curves.items()):
            said, right = (100 * np.array([one[part] for one in bins], float) for part in ("confidence", "accuracy"))
            often = np.array([one.get("pictures", 1) for one in bins], float)
            color = html_page.SERIES[place % 4]
            axes.plot(said, right, color=color, lw=1, label=words(name))
            axes.scatter(said, right, 300 * often / often.sum() + 4, color=color)
        axes.set(xlabel="how sure, %", ylabel="how often right, %", xlim=(0, 100), ylim=(0, 100), aspect="equal")
        axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5))

    return html_page.figure(
        draw, f"Reliability of {', '.join(map(words, curves))}: how often right for how sure.", (6.4, 4)
    )


def lines(name: str, series: Mapping[str, Mapping[float, Said]], over: str, chance: float | None) -> Markup:
    """A figure over a number (of shots, say), a line with its intervals for each series."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for place, (title, of) in enumerate(series.items()):
            _line(axes, name, of, html_page.SERIES[place % 4], words(title))
        every = sorted({x for of in series.values() for x in of})
        if every[0] > 0 and every[-1] / every[0] >= 10:
            axes.set_xscale("log")
        axes.set_xticks(every, [f"{x:g}" for x in every])
        axes.minorticks_off()
        if chance is not None:
            axes.axhline(_by(name) * chance, ls=":", c=html_page.INK, lw=1, label="chance")
        axes.set(xlabel=words(over), ylabel=_axis(name))
        if len(series) > 1 or chance is not None:
            axes.legend()

    return html_page.figure(draw, f"{words(name)} over {words(over)}. {_told(name, series)}", (7, 3))


def small_multiples(name: str, panels: Mapping[str, Mapping[float, Said]], over: str) -> Markup:
    """As `lines`, a panel for each series, all to the same scales."""
    columns = min(4, len(panels))
    rows = -(-len(panels) // columns)

    def draw(figure: Figure) -> None:
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for axes in grid.flat[len(panels) :]:
            axes.set_axis_off()
        for axes, (title, of) in zip(grid.flat, panels.items(), strict=False):
            _line(axes, name, of, html_page.SERIES[0])
            axes.set_title(words(title), fontsize=11)
            axes.set_xticks(sorted(of), [f"{x:g}" for x in sorted(of)])
        axes.set_ylim(0, None)  # of all, once all are drawn
        figure.supxlabel(words(over), fontsize=11, color=html_page.INK)
        figure.supylabel(_axis(name), fontsize=11, color=html_page.INK)

    return html_page.figure(draw, f"{words(name)} over {words(over)}. {_told(name, panels)}", (9, 0.8 + 1.8 * rows))


def differences(rows: Mapping[str, Sequence[Against]], names: Sequence[str]) -> Markup:
    """Differences of shares from a baseline, of each evaluation in `names`; a filled dot is beyond noise."""
    height = 0.8 / len(names)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.axvline(0, c=html_page.INK, lw=1)
        for number, name in enumerate(names):
            color, of = html_page.SERIES[number % 4], [against[number] for against in rows.values()]
            values = [dataclasses.asdict(one.found) | {"value": one.found.difference} for one in of]
            moved, reach = _percent(values)
            at = np.arange(len(rows))[::-1] + ((len(names) - 1) / 2 - number) * height
            axes.errorbar(moved, at, xerr=reach, fmt="none", ecolor=color, capsize=3)
            fill = [color if one.verdict != "within noise" else "none" for one in of]
            axes.scatter(moved, at, edgecolors=color, facecolors=fill, zorder=3)
            axes.plot([], [], "o", color=color, label=name)
        _rows(axes, [words(row) for row in rows])
        axes.set(xlabel="points of a hundred")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=len(names))

    said = "; ".join(
        f"{words(row)} "
        + ", ".join(
            f"{name} {100 * one.found.difference:+.1f} ({one.verdict})"
            for name, one in zip(names, against, strict=True)
        )
        for row, against in rows.items()
    )
    tall = 1.2 + len(rows) * (0.2 + 0.16 * len(names))
    return html_page.figure(draw, f"Differences from the baseline in points, with 95 % intervals: {said}.", (8, tall))


def _line(axes: Axes, name: str, of: Mapping[float, Said], color: str, title: str | None = None) -> None:
    at = sorted(of)
    values, reach = _percent([of[x] for x in at], _by(name))
    axes.errorbar(at, values, reach, fmt="o-", color=color, capsize=3, ms=4, label=title)


def _rows(axes: Axes, names: Sequence[str]) -> None:
    """Names of rows at the left, the first at the top."""
    axes.set_yticks(np.arange(len(names))[::-1], names)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.grid(axis="x", alpha=0.2)


def _told(name: str, series: Mapping[str, Mapping[float, Said]]) -> str:
    said = (
        f"{words(title)}: " + ", ".join(f"{form(name, of[x]['value'])} at {x:g}" for x in sorted(of))
        for title, of in series.items()
    )
    return f"{'; '.join(said)}."


def _axis(name: str) -> str:
    return f"{words(name)}, %" if is_share(name) else words(name)


def _by(name: str) -> float:
    return 100 if is_share(name) else 1


def _percent(figures: Sequence[Said], by: float = 100) -> tuple[np.ndarray, np.ndarray]:
    """Values (n,) and how far their intervals reach below and above (2, n); NaN where there is none."""
    value, low, high = (
        by * np.array([np.nan if one[part] is None else one[part] for one in figures], float)
        for part in ("value", "low", "high")
    )
    # An interval need not hold its value: resampling moves errors that are never below zero upwards.
    return value, np.maximum(0, np.stack([value - low, high - value]))
