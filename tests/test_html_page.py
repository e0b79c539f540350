"""The frame of pages: escaped, readable in light and dark, with figures that take its colors."""

import re
from pathlib import Path

import pytest
from markupsafe import Markup

import medclip
from medclip import html_page
from medclip.evaluation.result_tables import Table
from support.browser import open_chromium
from support.pages import Page

CSS = (Path(medclip.__file__).parent / "templates" / "page.css").read_text(encoding="utf-8")


def luminance(color):
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first, second):
    """Of WCAG 2, 1 to 21."""
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_texts_and_lines_can_be_read(scheme):
    blocks = re.findall(r":root \{(.*?)\}", CSS, flags=re.DOTALL)
    colors = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", blocks[scheme]))
    for text, grounds in {
        "ink": ("ground", "panel", "bar", "warn"),
        "faint": ("ground", "panel", "bar"),
        "link": ("ground", "panel"),
        "series-2": ("ground",),  # "worse"
        "series-3": ("ground",),  # "better"
    }.items():
        assert all(contrast(colors[text], colors[ground]) >= 4.5 for ground in grounds), text
    for line in ("series-1", "series-2", "series-3", "series-4", "warn-line"):
        assert contrast(colors[line], colors["ground"]) >= 3, line


def test_a_page_holds_no_control_characters():
    """Of ids, licenses and captions: ESC moves a terminal's cursor, U+202E turns the rest of a cell around."""
    text = "a\0\x07\x1b[2J\x9b\u202ed\u2028\u2066<b>"
    page = html_page.render("summary.html", tables=[Table("", [text], [[text]])], notes=[text])
    assert not re.search("[\0-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066]", page)
    assert page.count(r"a\u0000\u0007\u001b[2J\u009b\u202ed\u2028\u2066&lt;b&gt;") >= 3


def lines(figure):
    axes = figure.subplots()
    axes.plot([1, 2], [3, 4], "o-", color=html_page.SERIES[1], label="one")
    axes.legend()


def test_figures_take_the_colors_of_the_page_and_are_named():
    svg = html_page.figure(lines, 'loss <of> "both"')
    assert isinstance(svg, Markup)
    assert "var(--series-2)" in svg
    assert "currentColor" in svg
    assert html_page.INK not in svg
    assert 'aria-label="loss &lt;of&gt; &#34;both&#34;"' in svg
    assert Page(svg).unnamed == []
    assert svg == html_page.figure(lines, 'loss <of> "both"')  # no time, no chance


def test_a_name_in_a_figure_is_no_formula():
    svg = html_page.figure(lambda figure: figure.subplots().set_yticks([0], ["cost $\\x$ & 陰影"]), "")
    assert "cost $\\x$ &amp; 陰影" in svg


def test_two_figures_share_no_names():
    def others(figure):
        figure.subplots().hist([1, 2, 2], color=html_page.SERIES[0])

    first, second = Page(html_page.figure(lines, "lines")), Page(html_page.figure(others, "bars"))
    assert first.ids
    assert not set(first.ids) & set(second.ids)
    assert {name[1:] for name in first.fetched} <= set(first.ids)


def test_numbers_for_people():
    assert [html_page.number(n) for n in (None, 0, 3.0, 3.14159, 1234567, 123.4)] == [
        "–",
        "0",
        "3",
        "3.1",
        "1,234,567",
        "123",
    ]
    assert [html_page.share(*n) for n in ((1, 2), (1, 5000), (0, 5), (0, 0))] == [
        "50.0\u00a0%",
        "<0.1\u00a0%",
        "0.0\u00a0%",
        "–",
    ]
    assert [html_page.anchor(t) for t in ("What they show", "¿?", "Échelle 2")] == [
        "what-they-show",
        "part",
        "échelle-2",
    ]


def test_shares_list_the_most_frequent_first_and_what_is_unknown_last():
    rows = html_page.shares([{"a": 1, "b": 6, "": 3}, {"a": 4, "c": 1}], [10, 5], 2)
    assert rows == [("b", [(6, 75.0), (0, 0.0)]), ("a", [(1, 12.5), (4, 100.0)]), ("", [(3, 37.5), (0, 0.0)])]
    assert html_page.shares([{}], [0], 5) == []


@pytest.mark.slow
def test_a_wide_table_is_whole_on_paper():
    names = [f"a_model_with_a_rather_long_name_{i}" for i in range(4)]
    table = Table("A table", ["", *names], [["accuracy", *["83.3 % (79.1–87.0)"] * 4]])
    page = html_page.render("summary.html", tables=[table], notes=[])
    with open_chromium() as browser:
        paper = browser.new_page(viewport={"width": 718, "height": 1000})  # A4 within Chromium's margins
        paper.emulate_media(media="print")
        paper.set_content(f"<style>{CSS}</style>{page}")
        width, table_width = paper.evaluate(
            "[document.documentElement.clientWidth, document.querySelector('table').offsetWidth]"
        )
        assert table_width <= width == 718
