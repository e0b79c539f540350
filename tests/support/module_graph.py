"""What imports what in the package, from its source; and the graph of docs/architecture.md.

cd tests && python -m support.module_graph
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "medclip"
PARTS = (
    "cli", "api", "app", "serve", "search", "training", "evaluation", "dual_encoder", "saliency", "zero_shot", "encode",
    "model", "data", "metrics", "match_calibration", "prompts",
)  # fmt: skip
"""The packages and modules of the graph; errors, atomic_io and their like, which all import, are left out."""


def module_name(path: Path) -> str:
    return ".".join(("medclip", *path.relative_to(SOURCE).with_suffix("").parts))


MODULES = {module_name(path): path for path in sorted(SOURCE.rglob("*.py"))}


def find_imports(nodes: Iterable[ast.AST], module: str) -> Iterator[str]:
    """Every module of the package that `module`, of these nodes, imports, wherever in it, relative imports resolved."""
    for node in nodes:
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = module.split(".")[: -node.level] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            inside = [f"{origin}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES or f"{name}.__init__" in MODULES else origin for name in inside]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] == "medclip")


def draw_graph() -> str:
    """Mermaid's flowchart of PARTS, an arrow for each import that no longer way of arrows says already."""
    arrows: dict[str, set[str]] = {part: set() for part in PARTS}
    for module, path in MODULES.items():
        part = module.split(".")[1]
        if part in arrows:
            nodes = ast.walk(ast.parse(path.read_text("utf-8")))
            targets = {name.split(".")[1] for name in find_imports(nodes, module) if "." in name}
            arrows[part] |= targets & arrows.keys() - {part}

    def reaches(start: str, end: str) -> bool:
        return end in arrows[start] or any(reaches(middle, end) for middle in arrows[start])

    lines = [
        f"    {part} --> {target}"
        for part in PARTS
        for target in PARTS
        if target in arrows[part] and not any(reaches(middle, target) for middle in arrows[part] - {target})
    ]
    return "\n".join(["flowchart TD", *lines, ""])


if __name__ == "__main__":
    print(draw_graph(), end="")
