"""HTML pages: templates, figures and images in one file that needs no network."""

from __future__ import annotations

import base64
import io
import re
import warnings
import zlib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from medclip import NOT_CLINICAL, __version__
from medclip.atomic_io import write_text
from medclip.errors import UserError
from medclip.figure_style import default_style
from medclip.folder_locks import LOCK_WAIT_S, lock_folder
from medclip.plain_text import printable
from medclip.recorded_files import CHECKSUMS_FILE, write_recorded

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SERIES = ("#0101a1", "#0101a2", "#0101a3", "#0101a4")
"""Colors to draw with: the page shows them in its own, one set for light and one for dark."""
INK = "#010101"
_STYLE: dict[Any, Any] = {  # its keys are literals of matplotlib's stubs, some of them made here
    "svg.fonttype": "none",  # text stays text: searchable, and in the page's own face
    "svg.hashsalt": "medclip",
    "text.parse_math": False,  # a class may be called $x$
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "savefig.transparent": True,
    **{f"{part}.color": INK for part in ("text", "xtick", "ytick")},
    **{f"axes.{part}color": INK for part in ("edge", "label", "title")},
}


def render(template: str, **values: Any) -> str:
    """Render a template of `templates/`, without control characters: a page is also read on a terminal.

    Values are escaped unless they are Markup; an unknown name is an error.
    """
    return printable(_environment().get_template(template).render(values))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("medclip"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"NOT_CLINICAL": NOT_CLINICAL, "version": __version__}
    environment.filters |= {"share": share, "number": number, "anchor": anchor}
    return environment


def share(part: float, whole: float) -> str:
    """A part of a whole in percent, for people; a part above 0 is never shown as 0.0 %."""
    if not whole:
        return "–"
    return "<0.1\u00a0%" if 0 < part / whole < 0.001 else f"{100 * part / whole:.1f}\u00a0%"


def number(value: float | None) -> str:
    """A number for people: thousands separated, one decimal below 100."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.1f}"


def anchor(title: str) -> str:
    """The id of a heading."""
    return re.sub(r"\W+", "-", title.lower()).strip("-") or "part"


def figure(draw: Callable[[Figure], None], alt: str, size: tuple[float, float] = (9, 3.2)) -> Markup:
    """An SVG of what `draw` draws on an empty figure of `size` inches; it takes the page's colors.

    `alt` is the alternative text. Draw series in the colors of SERIES; everything else has its color already.
    """
    import matplotlib
    from matplotlib.figure import Figure

    warnings.filterwarnings("ignore", "Glyph .* missing from font")  # it is for widths alone: text stays text
    with default_style(), matplotlib.rc_context(_STYLE), io.StringIO() as out:
        empty_figure = Figure(figsize=size, layout="constrained")
        draw(empty_figure)
        empty_figure.savefig(out, format="svg", metadata={"Date": None})
        svg = out.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    for i, color in enumerate(SERIES, start=1):
        svg = svg.replace(color, f"var(--series-{i})")
    svg = svg.replace(INK, "currentColor")
    prefix = f"f{zlib.crc32(svg.encode()):x}-"  # names inside one figure must not meet those of another on the page
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}", svg)
    return Markup(svg.replace("<svg", Markup('<svg role="img" aria-label="{}"').format(alt), 1))


def thumbnail(image: Image.Image, side: int = 240) -> str:
    """An image as a data: URL, small enough for dozens in a page."""
    small = image.copy()
    small.thumbnail((side, side))
    out = io.BytesIO()
    small.save(out, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode()}"


def shares(
    counts: Sequence[dict[str, int]], totals: Sequence[int], max_values: int
) -> list[tuple[str, list[tuple[int, float]]]]:
    """Rows of a table of shares: each value with, for each column, its count and the length of its bar in percent.

    The longest bar stands for the largest share of a column's total. The `max_values` most frequent values come in
    descending order; "" comes last, if it occurs.
    """
    values = sorted({v for c in counts for v in c if v}, key=lambda v: (-sum(c.get(v, 0) for c in counts), v))
    values = values[:max_values] + ([""] if any(c.get("") for c in counts) else [])
    parts = [[c.get(v, 0) / total if total else 0 for c, total in zip(counts, totals, strict=True)] for v in values]
    largest = max((part for row in parts for part in row), default=0) or 1
    return [
        (v, [(c.get(v, 0), round(100 * part / largest, 1)) for c, part in zip(counts, row, strict=True)])
        for v, row in zip(values, parts, strict=True)
    ]


def check_page_name(path: Path) -> None:
    """UserError where --out is no .html: a page takes the place of a file that is there, be it a manifest."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--out {path} is not a .html.")


def write_page(path: Path, text: str) -> None:
    """Write a page into a folder that another process may be writing into for a moment; see `lock_folder`.

    In a folder that `medclip verify` knows it is recorded, see `write_recorded`.
    """
    with lock_folder(path.parent, wait_s=LOCK_WAIT_S):
        is_recorded = any((path.parent / name).exists() for name in (CHECKSUMS_FILE, "dataset.json"))
        (write_recorded if is_recorded else write_text)(path, text)
