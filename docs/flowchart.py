"""Mermaid's flowchart as an SVG: the site fetches nothing, so it has no Mermaid. GitHub draws the same lines itself."""

from __future__ import annotations

import re
from itertools import pairwise

WIDTH, ROW, BOX, HALF = 120, 84, 112, 15
"""Of a column and a row; of a box, and half its height."""

Edge = tuple[str, str]


def to_svg(flowchart: str) -> str:
    """The graph of lines `a --> b`, each node below all that lead to it, in the colors of the text around it."""
    edges = re.findall(r"(\w+) --> (\w+)", flowchart)
    nodes = list(dict.fromkeys(name for edge in edges for name in edge))
    depth = {node: _depth(node, edges) for node in nodes}
    paths = [_path(edge, depth) for edge in edges]
    rows = _order(paths, depth)
    size = max(map(len, rows))
    place = {
        point: (WIDTH * size * (i + 0.5) / len(row), ROW * (y + 0.5))
        for y, row in enumerate(rows)
        for i, point in enumerate(row)
    }
    lines = [_curve([place[point] for point in path]) for path in paths]
    boxes = [_box(node, *place[node]) for node in nodes]
    label = ", ".join(f"{a} imports {b}" for a, b in edges)
    head = f'<div style="overflow-x: auto">\n<svg style="min-width: {WIDTH * size * 3 // 4}px" role="img" '
    head += f'aria-label="{label}" viewBox="0 0 {WIDTH * size} {ROW * len(rows)}">'
    arrow = '<marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    arrow += '<path d="M0,0L8,4L0,8Z" fill="currentColor"/></marker>'
    return "\n".join([head, f"<defs>{arrow}</defs>", *lines, *boxes, "</svg>", "</div>"])


def _depth(node: str, edges: list[Edge]) -> int:
    return max((1 + _depth(start, edges) for start, end in edges if end == node), default=0)


def _path(edge: Edge, depth: dict[str, int]) -> list[str]:
    """The ends of an edge, and between them a point in each row that it crosses."""
    start, end = edge
    return [start, *(f"{start} {end} {y}" for y in range(depth[start] + 1, depth[end])), end]


def _order(paths: list[list[str]], depth: dict[str, int]) -> list[list[str]]:
    """The nodes and points of each row, placed where their neighbors are in the mean (Sugiyama et al. 1981)."""
    rows: list[list[str]] = [[] for _ in range(max(depth.values()) + 1)]
    for path in paths:
        for y, point in enumerate(path, depth[path[0]]):
            if point not in rows[y]:
                rows[y].append(point)
    links = [pair for path in paths for pair in pairwise(path)]
    for sweep in range(8):
        place = {point: (i + 0.5) / len(row) for row in rows for i, point in enumerate(row)}
        for row in rows if sweep % 2 else rows[::-1]:
            near = {p: [place[a if b == p else b] for a, b in links if p in (a, b)] for p in row}
            row.sort(key=lambda point, near=near: sum(near[point]) / len(near[point]))
            place |= {point: (i + 0.5) / len(row) for i, point in enumerate(row)}
    return rows


def _curve(points: list[tuple[float, float]]) -> str:
    (x, y), *others = points
    path = f"M{x:.0f},{y + HALF:.0f}"
    y += HALF
    for number, (next_x, center) in enumerate(others, 1):
        next_y = center - HALF - 2 if number == len(others) else center
        middle = (y + next_y) / 2
        path += f"C{x:.0f},{middle:.0f} {next_x:.0f},{middle:.0f} {next_x:.0f},{next_y:.0f}"
        x, y = next_x, next_y
    return f'<path d="{path}" fill="none" stroke="currentColor" stroke-opacity="0.5" marker-end="url(#arrow)"/>'


def _box(name: str, x: float, y: float) -> str:
    corner = f'x="{x - BOX / 2:.0f}" y="{y - HALF:.0f}" width="{BOX}" height="{2 * HALF}" rx="5"'
    text = f'<text x="{x:.0f}" y="{y + 4:.0f}" text-anchor="middle" font-size="12" fill="currentColor">{name}</text>'
    return f'<rect {corner} fill="none" stroke="currentColor"/>{text}'
