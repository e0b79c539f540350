"""Imports point one way; files stay short and are named for what they hold."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "medclip"
MAX_LINES = 300
VAGUE = {"util", "utils", "helper", "helpers", "manager", "base", "common", "misc"}
GROUND = ("medclip.errors", "medclip.files", "medclip.progress", "medclip.backend")

# Which parts of the package a part may import; a prefix stands for all below it. `medclip` itself holds two constants.
ALLOWED = {
    "medclip.__init__": ("medclip.model.hub",),
    "medclip.errors": (),
    "medclip.files": ("medclip.errors",),
    "medclip.progress": (),
    "medclip.backend": (),
    "medclip.page": (),
    "medclip.data": (*GROUND, "medclip.page", "medclip.data"),
    "medclip.model": (*GROUND, "medclip.model"),
    "medclip.encoder": (*GROUND, "medclip.data.images", "medclip.model"),
    "medclip.relevance": (*GROUND, "medclip.data.images", "medclip.model", "medclip.encoder"),
    "medclip.engines": (*GROUND, "medclip.data.images", "medclip.model", "medclip.encoder"),
    "medclip.classify": (*GROUND, "medclip.model", "medclip.encoder", "medclip.evaluate"),
    "medclip.evaluate": (*GROUND, "medclip.page", "medclip.data", "medclip.model", "medclip.encoder",
                         "medclip.evaluate"),
    "medclip.train": (*GROUND, "medclip.data", "medclip.model", "medclip.encoder", "medclip.evaluate.metrics",
                      "medclip.train"),
    "medclip.search": (*GROUND, "medclip.data", "medclip.model", "medclip.encoder", "medclip.engines",
                       "medclip.evaluate.prompts", "medclip.search"),
    "medclip.serve": (*GROUND, "medclip.data.images", "medclip.data.refused", "medclip.model", "medclip.encoder",
                      "medclip.classify", "medclip.search", "medclip.serve"),
    "medclip.app": (*GROUND, "medclip.data.images", "medclip.data.refused", "medclip.model", "medclip.encoder",
                    "medclip.relevance", "medclip.classify", "medclip.evaluate.pairing", "medclip.evaluate.report",
                    "medclip.search", "medclip.app"),
    "medclip.info": (*GROUND, "medclip.data.shards", "medclip.model", "medclip.search.contents", "medclip.train"),
    "medclip.tables": (*GROUND, "medclip.search.index", "medclip.info", "medclip.data.pairs", "medclip.data.survey",
                       "medclip.evaluate.compare", "medclip.evaluate.figures", "medclip.tables"),
    "medclip.configuration_hybrid_clip": (),
    "medclip.modeling_hybrid_clip": ("medclip.configuration_hybrid_clip", "medclip.model"),
    "medclip.export": (*GROUND, "medclip.model"),
    "medclip.quickstart": ("medclip",),
    "medclip.commands": ("medclip",),
    "medclip.cli": ("medclip.commands", *GROUND),
}  # fmt: skip


def module_name(path):
    return ".".join(("medclip", *path.relative_to(SOURCE).with_suffix("").parts))


MODULES = {module_name(path): path for path in sorted(SOURCE.rglob("*.py"))}


def imported(source, module):
    """Every module of the package that `source` imports, wherever in the file, relative imports resolved."""
    for node in ast.walk(ast.parse(source)):
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


def below(name, part):
    return name == part or name.startswith(f"{part}.")


def wrong_arrows(source, module):
    """Imports of `source`, as the module of that name, that the map does not allow."""
    parts = [part for part in ALLOWED if below(module, part)]
    assert parts, f"{module} has no place in the map of this test"
    allowed = ALLOWED[max(parts, key=len)]
    return [name for name in imported(source, module) if name != "medclip" and not any(below(name, p) for p in allowed)]


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_one_way(module):
    assert wrong_arrows(MODULES[module].read_text(encoding="utf-8"), module) == []


@pytest.mark.parametrize(
    ("module", "source", "wrong"),
    [
        ("medclip.data.x", "import medclip.model.hub", ["medclip.model.hub"]),
        ("medclip.data.x", "from medclip.model import hub", ["medclip.model.hub"]),
        ("medclip.data.x", "from medclip import model", ["medclip.model"]),
        ("medclip.data.x", "from ..model.hub import load", ["medclip.model.hub"]),
        ("medclip.data.x", "def f():\n    from medclip.encoder import embed_texts", ["medclip.encoder"]),
        ("medclip.model.x", "from medclip.data.images import fit", ["medclip.data.images"]),
        ("medclip.train.x", "from medclip.evaluate.retrieval import y", ["medclip.evaluate.retrieval"]),
        ("medclip.errors", "from medclip.files import sha256", ["medclip.files"]),
        ("medclip.serve.x", "from medclip.data.shards import Split", ["medclip.data.shards"]),
        ("medclip.search.x", "from medclip.cli import main", ["medclip.cli"]),
        ("medclip.data.x", "import jax, medclip\nfrom medclip import __version__\nfrom . import pairs", []),
        ("medclip.train.x", "from medclip.evaluate.metrics import ranks", []),
        ("medclip.encoder", "from medclip.data import images", []),
    ],
)
def test_a_wrong_arrow_is_seen(module, source, wrong):
    assert wrong_arrows(source, module) == wrong


def test_a_module_without_a_place_is_seen():
    with pytest.raises(AssertionError, match="has no place"):
        wrong_arrows("", "medclip.somewhere")


@pytest.mark.parametrize("module", MODULES)
def test_files_are_short_and_say_what_they_hold(module):
    path = MODULES[module]
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES
    assert not VAGUE & {path.stem, path.parent.name}
