"""Runs an example as a notebook does, and writes it with what it shows: as a page, and as a notebook file.

Examples are in jupytext's percent format, which JupyterLab, VS Code and PyCharm open as notebooks. Their cells run in
this process: a kernel would import JAX and compile anew for each of them.
"""

import ast
import base64
import contextlib
import io
import json
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib
from PIL import Image

EXAMPLES = Path(__file__).parents[1] / "examples"
NOTEBOOKS = [path for path in sorted(EXAMPLES.glob("*.py")) if path.read_text(encoding="utf-8").startswith("# %%")]
FORMAT = {"nbformat": 4, "nbformat_minor": 5}
PYTHON = {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}}
THUMBNAIL = (240, 240)


@dataclass
class Cell:
    """A cell, and its outputs in the form of nbformat."""

    is_markdown: bool
    source: str
    outputs: list[dict[str, Any]] = field(default_factory=list)


def read_cells(path: Path) -> list[Cell]:
    """The cells of a source in percent format. Raises ValueError where it holds anything before its first one."""
    before, *parts = re.split(r"^# %%(.*)\n", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    if before:
        raise ValueError(f"{path} does not start with a cell")
    cells = []
    for kind, text in zip(parts[::2], parts[1::2], strict=True):
        is_markdown = kind.strip() == "[markdown]"
        text = re.sub(r"^# ?", "", text, flags=re.MULTILINE) if is_markdown else text
        cells.append(Cell(is_markdown, text.strip()))
    return cells


def run(path: Path, folder: Path) -> list[Cell]:
    """The cells of an example with what they show when they run in `folder`. Raises what a cell raises."""
    matplotlib.use("Agg")
    cells, names = read_cells(path), {"__name__": "__main__"}
    sys.path.insert(0, str(path.parent))
    try:
        with contextlib.chdir(folder):
            for cell in cells:
                if not cell.is_markdown:
                    cell.outputs = run_cell(cell.source, path.name, names)
    finally:
        sys.path.remove(str(path.parent))
    return cells


def run_cell(source: str, name: str, names: dict[str, Any]) -> list[dict[str, Any]]:
    """What a cell prints, the value it ends with and the figures it draws."""
    import matplotlib.pyplot as plt

    tree, value = ast.parse(source), None
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(tree, name, "exec"), names)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), name, "eval"), names)
    outputs: list[dict[str, Any]] = []
    if text := printed.getvalue():
        outputs.append({"output_type": "stream", "name": "stdout", "text": text})
    figures = [plt.figure(number) for number in plt.get_fignums()]
    if value is not None and not figures:  # the last call of a drawing has a value that says nothing
        data = {"text/plain": repr(value)}
        data |= {"text/html": value._repr_html_()} if hasattr(value, "_repr_html_") else {}
        outputs.append({"output_type": "display_data", "data": data, "metadata": {}})
    for figure in figures:
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=100, bbox_inches="tight")
        plt.close(figure)
        data = {"image/png": base64.b64encode(file.getvalue()).decode()}
        outputs.append({"output_type": "display_data", "data": data, "metadata": {}})
    return outputs


def write_notebook(cells: list[Cell], out: Path) -> None:
    """Write cells as a notebook file."""
    documents = []
    for number, cell in enumerate(cells):
        document = {"id": f"cell-{number}", "metadata": {}, "source": cell.source}
        code = {"cell_type": "code", "execution_count": None, "outputs": cell.outputs}
        documents.append(document | ({"cell_type": "markdown"} if cell.is_markdown else code))
    out.write_text(json.dumps(FORMAT | {"metadata": PYTHON, "cells": documents}, indent=1), encoding="utf-8")


def write_page(cells: list[Cell], out: Path, note: str = "") -> None:
    """Write cells as a page, its images beside it; `note` stands below the title."""
    title, _, first = cells[0].source.partition("\n")
    beside = any("import toy" in cell.source for cell in cells if not cell.is_markdown)
    remark = " Save it into `examples/` of a checkout: it imports the `toy.py` that lies there." if beside else ""
    blocks = [title, f"[This page as a notebook]({out.stem}.ipynb).{remark} {note}".strip(), first.strip()]
    for cell in cells[1:]:
        blocks.append(cell.source if cell.is_markdown else f"```python\n{cell.source}\n```")
        blocks += [_show(output, out, len(blocks)) for output in cell.outputs]
    out.write_text("\n\n".join(blocks) + "\n", encoding="utf-8")


def _show(output: dict[str, Any], page: Path, number: int) -> str:
    """An output as Markdown; an image becomes a file, and the first one of a page its thumbnail too."""
    data = output.get("data", {"text/plain": output.get("text")})
    if png := data.get("image/png"):
        file = page.with_name(f"{page.stem}-{number}.png")
        file.write_bytes(base64.b64decode(png))
        if not (thumbnail := page.with_name(f"{page.stem}-small.png")).exists():
            with Image.open(file) as image:
                image.thumbnail(THUMBNAIL)
                image.save(thumbnail)
        return f"![what the cell above draws]({file.name})"
    if table := data.get("text/html"):
        table = table.replace(' border="1" class="dataframe"', "")  # the site draws tables without a class as its own
        lines = [line.strip() for line in table.splitlines() if line.strip()]  # an empty one would end the block
        return "\n".join(['<div style="overflow-x: auto">', *lines, "</div>"])
    return f"```text\n{data['text/plain'].strip()}\n```"
