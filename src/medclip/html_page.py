"""The frame of every page medclip writes: one HTML file that needs no network, with figures and images inside."""

from __future__ import annotations

import base64
import io
import re
import zlib
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from medclip import NOT_CLINICAL, __version__

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SERIES = ("#0101a1", "#0101a2", "#0101a3", "#0101a4")
"""Colors to draw with: the page shows them in its own, one set for light and one for dark."""
INK = "#010101"
_STYLE = {
    "svg.fonttype": "none",  # text stays text: searchable, and in the page's own face
    "svg.hashsalt": "medclip",
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "savefig.transparent": True,
    **{f"{part}.color": INK for part in ("text", "xtick", "ytick")},
    **{f"axes.{part}color": INK for part in ("edge", "label", "title")},
}


def render(template: str, **values: Any) -> str:
    """A page of `templates/` as HTML. Every value is escaped unless it is Markup; an unknown name is an error."""
    return _environment().get_template(template).render(values)


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("medclip"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals |= {"NOT_CLINICAL": NOT_CLINICAL, "version": __version__}
    made.filters |= {"share": share, "number": number, "anchor": anchor}
    return made


def share(part: float, whole: float) -> str:
    """A part of a whole in percent, for people: what is there is never 0.0 %."""
    if not whole:
        return "–"
    return "<0.1\u00a0%" if 0 < part / whole < 0.001 else f"{100 * part / whole:.1f}\u00a0%"


def number(value: float | None) -> str:
    """A number for people: thousands apart, as many decimals as say something."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.1f}"


def anchor(title: str) -> str:
    """What a heading is linked by."""
    return re.sub(r"\W+", "-", title.lower()).strip("-") or "part"


def figure(draw: Callable[[Figure], None], alt: str, size: tuple[float, float] = (9, 3.2)) -> Markup:
    """What `draw` draws on an empty figure of `size` inches, as an SVG that takes the page's colors.

    `alt` says in words what is to be seen. Series are to be drawn in SERIES; all else has its color already.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE), io.StringIO() as out:
        drawn = Figure(figsize=size, layout="constrained")
        draw(drawn)
        drawn.savefig(out, format="svg", metadata={"Date": None})
        text = out.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    for place, color in enumerate(SERIES, start=1):
        text = text.replace(color, f"var(--series-{place})")
    text = text.replace(INK, "currentColor")
    prefix = f"f{zlib.crc32(text.encode()):x}-"  # names inside one figure must not meet those of another on the page
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}", text)
    return Markup(text.replace("<svg", Markup('<svg role="img" aria-label="{}"').format(alt), 1))


def thumbnail(image: Image.Image, side: int = 240) -> str:
    """An image as a data: address, small enough to lie in a page by the dozen."""
    small = image.copy()
    small.thumbnail((side, side))
    out = io.BytesIO()
    small.save(out, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode()}"


def shares(counts: Sequence[dict[str, int]], wholes: Sequence[int], most: int) -> list[tuple[str, list[tuple]]]:
    """Rows of a table of shares: each value with (count, share of its column in percent of the largest).

    The `most` values that are most frequent over all columns come first to last; "" stands at the end if there is any.
    """
    values = sorted({v for of in counts for v in of if v}, key=lambda v: (-sum(of.get(v, 0) for of in counts), v))
    values = values[:most] + ([""] if any(of.get("") for of in counts) else [])
    parts = [[of.get(v, 0) / whole if whole else 0 for of, whole in zip(counts, wholes, strict=True)] for v in values]
    largest = max((part for row in parts for part in row), default=0) or 1
    return [
        (v, [(of.get(v, 0), round(100 * part / largest, 1)) for of, part in zip(counts, row, strict=True)])
        for v, row in zip(values, parts, strict=True)
    ]
