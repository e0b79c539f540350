"""What a page is to those who do not see it well: names of what is on it, contrast of its texts (WCAG 2.2)."""

from __future__ import annotations

import re
from itertools import pairwise

from playwright.sync_api import Locator, Page


def assert_named(page: Page) -> None:
    """Every image and every control of the page has a name for those who listen, and headings skip no level."""
    snapshot = page.locator("body").aria_snapshot()
    roles = "img|button|textbox|slider|switch|checkbox|combobox|tab|radio|link"
    unnamed = [line for line in snapshot.splitlines() if re.fullmatch(rf"\s*- ({roles})(:.*| \[.*)?", line)]
    assert unnamed == []
    levels = page.locator(":is(h1, h2, h3, h4, h5, h6):visible").evaluate_all("all => all.map(h => +h.tagName[1])")
    assert all(below - above <= 1 for above, below in pairwise(levels)), levels


def contrast(text: Locator) -> float:
    """The ratio of a text's color to what lies behind it, by WCAG 2.2; opacity counts."""
    colors = text.evaluate("""text => {
        const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
        let [opacity, behind] = [1, null];
        for (let e = text; e && !behind; e = e.parentElement) {
            const style = getComputedStyle(e);
            opacity *= style.opacity;
            if ((numbers(style.backgroundColor)[3] ?? 1) === 1) behind = numbers(style.backgroundColor);
        }
        const front = numbers(getComputedStyle(text).color);
        return [0, 1, 2].map((i) => [front[i] * opacity + behind[i] * (1 - opacity), behind[i]]);
    }""")

    def luminance(channels: list[float]) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted(luminance([c / 255 for c in channels]) for channels in zip(*colors, strict=True))
    return (light + 0.05) / (dark + 0.05)
