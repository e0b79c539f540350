"""How large and how readable the source is, in numbers: `python benchmarks/structure.py [CHECKOUT] [--json]`.

A row per number; give two checkouts to see them side by side. Command-line flags are counted from each checkout's own
`--help` where its package can be imported.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

BANNED = {"said", "told", "found", "of", "kept", "about", "asked", "there", "seen", "looks"}
SHORT_MODULE_LINES = 60
CONFIG_TYPES = {"Recipe", "TrainConfig", "ResolvedTrainConfig"}
QUERY_TYPES = {"Query", "Answers", "SearchOptions"}


def parse_modules(source: Path) -> dict[str, ast.Module]:
    """Every module of the package that is not empty, by its dotted name."""
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(source.rglob("*.py"))}
    names = {path: ".".join(path.relative_to(source.parent).with_suffix("").parts) for path in trees}
    return {names[path].removesuffix(".__init__"): tree for path, tree in trees.items() if tree.body}


def imported_modules(tree: ast.Module, modules: dict[str, ast.Module]) -> set[str]:
    """Modules of the package that `tree` imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in modules else node.module for name in inner}
    return names & modules.keys()


def identifiers(tree: ast.Module) -> Iterator[str]:
    """Every identifier that the code gives or uses: names, attributes, parameters, keywords, definitions."""
    for node in ast.walk(tree):
        for field in ("id", "attr", "arg", "name"):
            if isinstance(value := getattr(node, field, None), str) and not isinstance(node, ast.alias):
                yield value


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function, methods and inner ones too."""
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def public_names(tree: ast.Module) -> int:
    """Functions and classes of a module without a leading underscore."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return sum(isinstance(node, kinds) and not node.name.startswith("_") for node in tree.body)


def count_flags(checkout: Path) -> int | None:
    """Options over all commands, help itself left out; None where the command line does not start."""
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src"), "COLUMNS": "200", "NO_COLOR": "1"}
    module = "medclip.cli.main" if (checkout / "src/medclip/cli").is_dir() else "medclip.cli"

    def count(command: list[str]) -> int:
        program = f"import sys; from {module} import main; sys.argv[0] = 'medclip'; main()"
        words = [sys.executable, "-c", program, *command, "--help"]
        done = subprocess.run(words, capture_output=True, text=True, env=environment, cwd=checkout)
        if done.returncode:
            raise RuntimeError(done.stderr)
        usage = done.stdout.split("\n\n")[0]
        inner = re.search(r"\{([\w,-]+)\}\s*$", " ".join(usage.split()))  # as 0.1 lists its commands
        listed = re.findall(r"(?m)^  ([a-z-]+) +\S", done.stdout) if "COMMAND" in usage else []
        if names := inner[1].split(",") if inner else listed:
            return sum(count([*command, name]) for name in names)
        options = set(re.findall(r"(?m)^[│ ]*(?:-\w, )?(--[a-z][\w-]*)", done.stdout))
        return len(options - {"--help"})

    try:
        return count([])
    except RuntimeError:
        return None


def measure(checkout: Path) -> dict[str, float | None]:
    """The numbers of one checkout, in the order of the table."""
    source = checkout / "src" / "medclip"
    modules = parse_modules(source)
    lines = {name: len(_path(source, name).read_text(encoding="utf-8").splitlines()) for name in modules}
    imports = {name: imported_modules(tree, modules) for name, tree in modules.items()}
    importers = {name: sum(name in others for others in imports.values()) for name in modules}
    words = [word for tree in modules.values() for word in identifiers(tree)]
    lengths = [node.end_lineno - node.lineno + 1 for tree in modules.values() for node in functions(tree)]
    uses = {name: set(identifiers(tree)) for name, tree in modules.items()}
    tests = (checkout / "tests").rglob("*.py")
    return {
        "modules": len(modules),
        "median lines of a module": statistics.median(lines.values()),
        "modules under 60 lines": sum(count < SHORT_MODULE_LINES for count in lines.values()),
        "modules under 60 lines with one importer": sum(
            lines[name] < SHORT_MODULE_LINES and importers[name] == 1 for name in modules
        ),
        "banned identifiers": sum(word.lstrip("_") in BANNED for word in words),
        "public functions and classes": sum(map(public_names, modules.values())),
        "command-line flags": count_flags(checkout),
        "longest function, lines": max(lengths),
        "functions over 40 lines": sum(length > 40 for length in lengths),
        "files that name the training settings' type": sum(bool(names & CONFIG_TYPES) for names in uses.values()),
        "files that name a query's types": sum(bool(names & QUERY_TYPES) for names in uses.values()),
        "lines of src": sum(lines.values()),
        "lines of tests": sum(len(path.read_text(encoding="utf-8").splitlines()) for path in tests),
    }


def _path(source: Path, name: str) -> Path:
    path = source.parent.joinpath(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("checkouts", type=Path, nargs="*", default=[Path.cwd()])
    ask.add_argument("--json", action="store_true")
    given = ask.parse_args()
    columns = [measure(checkout.resolve()) for checkout in given.checkouts]
    if given.json:
        print(json.dumps(columns))
        return
    print("| | " + " | ".join(map(str, given.checkouts)) + " |\n|---|" + "---|" * len(columns))
    for name in columns[0]:
        print(f"| {name} | " + " | ".join("–" if (n := one[name]) is None else f"{n:,}" for one in columns) + " |")


if __name__ == "__main__":
    main()
