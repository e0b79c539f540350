"""Imports point one way; a module is one idea, neither a drawer of ten nor a scrap of thirty lines."""

import ast
import functools
from pathlib import Path
from typing import NamedTuple

import pytest

from support.module_graph import find_imports

SOURCE = Path(__file__).parents[1] / "src" / "medclip"
MAX_LINES = 400
MAX_FUNCTION_LINES = 60
SHORT_MODULE_LINES = 60
# Short modules that one other imports and that stay, each for a lifetime or a dependency of its own.
SHORT_MODULES: dict[str, str] = {
    "medclip.configuration_hybrid_clip": "an import path that the founding project published",
}
VAGUE = {"util", "utils", "helper", "helpers", "manager", "common", "misc"}
GROUND = (
    "medclip.errors",
    "medclip.plain_text",
    "medclip.bounded_files",
    "medclip.atomic_io",
    "medclip.folder_kinds",
    "medclip.folder_locks",
    "medclip.recorded_files",
    "medclip.progress",
    "medclip.jax_setup",
    "medclip.require",
    "medclip.hosts",
    "medclip.user_folders",
    "medclip.stop_signals",
    "medclip.versions",
    "medclip.warning_filters",
    "medclip.figure_style",
)

# Which parts of the package a part may import; a prefix stands for all below it. `medclip` itself holds two constants.
ALLOWED = {
    "medclip.__init__": ("medclip",),
    "medclip.api": ("medclip",),
    "medclip.dual_encoder": (*GROUND, "medclip.data.images", "medclip.data.pixel_arrays", "medclip.model",
                             "medclip.encode", "medclip.zero_shot"),
    "medclip.errors": (),
    "medclip.plain_text": (),
    "medclip.folder_kinds": (),
    "medclip.bounded_files": ("medclip.errors",),
    "medclip.atomic_io": ("medclip.errors", "medclip.plain_text", "medclip.bounded_files", "medclip.folder_kinds"),
    "medclip.folder_locks": ("medclip.errors", "medclip.bounded_files", "medclip.atomic_io", "medclip.folder_kinds"),
    "medclip.recorded_files": ("medclip.errors", "medclip.atomic_io"),
    "medclip.progress": ("medclip.plain_text",),
    "medclip.hosts": ("medclip.errors",),
    "medclip.require": ("medclip.errors",),
    "medclip.jax_setup": ("medclip.errors", "medclip.folder_locks", "medclip.user_folders"),
    "medclip.stop_signals": (),
    "medclip.user_folders": (),
    "medclip.versions": (),
    "medclip.warning_filters": (),
    "medclip.figure_style": (),
    "medclip.html_page": (
        "medclip.errors",
        "medclip.figure_style",
        "medclip.plain_text",
        "medclip.atomic_io",
        "medclip.folder_locks",
        "medclip.recorded_files",
    ),
    "medclip.random_pools": (),
    "medclip.no_match": ("medclip.random_pools",),
    "medclip.match_calibration": (*GROUND, "medclip.no_match", "medclip.random_pools"),
    "medclip.dot_products": GROUND,
    "medclip.resamples": (),
    "medclip.metrics": (*GROUND, "medclip.dot_products", "medclip.resamples"),
    "medclip.named_metrics": ("medclip.metrics",),
    "medclip.card_evaluations": (*GROUND, "medclip.named_metrics"),
    "medclip.prompts": (*GROUND, "medclip.prompts"),
    "medclip.data": (*GROUND, "medclip.html_page", "medclip.data"),
    "medclip.model": (*GROUND, "medclip.model"),
    "medclip.encode": (*GROUND, "medclip.data", "medclip.model", "medclip.encode"),
    "medclip.saliency": (*GROUND, "medclip.data.decode_workers", "medclip.data.images", "medclip.data.pixel_arrays",
                         "medclip.model", "medclip.encode"),
    "medclip.zero_shot": (*GROUND, "medclip.prompts", "medclip.model", "medclip.encode"),
    "medclip.training": (*GROUND, "medclip.data", "medclip.model", "medclip.encode", "medclip.metrics",
                         "medclip.named_metrics", "medclip.card_evaluations", "medclip.match_calibration",
                         "medclip.no_match", "medclip.training"),
    "medclip.evaluation": (*GROUND, "medclip.html_page", "medclip.data", "medclip.model", "medclip.encode",
                           "medclip.dot_products", "medclip.metrics", "medclip.named_metrics", "medclip.prompts",
                           "medclip.resamples", "medclip.zero_shot", "medclip.evaluation"),
    "medclip.search": (*GROUND, "medclip.data", "medclip.model", "medclip.encode", "medclip.dot_products",
                       "medclip.metrics", "medclip.match_calibration", "medclip.no_match", "medclip.search"),
    "medclip.serve": (*GROUND, "medclip.html_page", "medclip.data", "medclip.model", "medclip.encode",
                      "medclip.saliency", "medclip.zero_shot", "medclip.match_calibration", "medclip.search",
                      "medclip.serve"),
    "medclip.app": (*GROUND, "medclip.data", "medclip.model", "medclip.encode", "medclip.saliency",
                    "medclip.zero_shot", "medclip.match_calibration", "medclip.search", "medclip.app"),
    "medclip.verify": (*GROUND, "medclip.data", "medclip.model", "medclip.evaluation",
                       "medclip.search", "medclip.verify"),
    "medclip.configuration_hybrid_clip": (),
    "medclip.modeling_hybrid_clip": ("medclip.errors", "medclip.configuration_hybrid_clip", "medclip.model"),
    "medclip.cli": ("medclip",),
}  # fmt: skip


def module_name(path):
    return ".".join(("medclip", *path.relative_to(SOURCE).with_suffix("").parts))


MODULES = {module_name(path): path for path in sorted(SOURCE.rglob("*.py"))}


class Source(NamedTuple):
    """What these tests ask of a file; `imports` are modules of the package, relative ones resolved."""

    num_lines: int
    imports: list[str]
    function_lines: dict[str, int]


@functools.cache
def read(module):
    return parse(MODULES[module].read_text(encoding="utf-8"), module)


def parse(text, module):
    nodes = list(ast.walk(ast.parse(text)))
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    lengths = {f"{node.name}, line {node.lineno}": node.end_lineno - node.lineno for node in functions}
    return Source(len(text.splitlines()), list(find_imports(nodes, module)), lengths)


def below(name, part):
    return name == part or name.startswith(f"{part}.")


def wrong_arrows(imports, module):
    """Those of its imports that the map does not allow the module of that name."""
    parts = [part for part in ALLOWED if below(module, part)]
    assert parts, f"{module} has no place in the map of this test"
    allowed = ALLOWED[max(parts, key=len)]
    return [name for name in imports if name != "medclip" and not any(below(name, p) for p in allowed)]


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_one_way(module):
    assert wrong_arrows(read(module).imports, module) == []


@pytest.mark.parametrize(
    ("module", "source", "wrong"),
    [
        ("medclip.data.x", "import medclip.model.checkpoint", ["medclip.model.checkpoint"]),
        ("medclip.data.x", "from medclip.model import checkpoint", ["medclip.model.checkpoint"]),
        ("medclip.data.x", "from medclip import model", ["medclip.model"]),
        ("medclip.data.x", "from ..model.checkpoint import load", ["medclip.model.checkpoint"]),
        ("medclip.data.x", "def f():\n    from medclip.encode.encoder import embed_texts", ["medclip.encode.encoder"]),
        (
            "medclip.model.x",
            "from medclip.data.images import decode",
            ["medclip.data.images"],
        ),
        ("medclip.training.x", "from medclip.evaluation.retrieval import y", ["medclip.evaluation.retrieval"]),
        ("medclip.errors", "from medclip.atomic_io import sha256", ["medclip.atomic_io"]),
        ("medclip.serve.x", "from medclip.training.loop import train", ["medclip.training.loop"]),
        ("medclip.search.x", "from medclip.cli.main import main", ["medclip.cli.main"]),
        ("medclip.data.x", "import jax, medclip\nfrom medclip import __version__\nfrom . import pairs", []),
        ("medclip.training.x", "from medclip.metrics import ranks", []),
        ("medclip.encode.encoder", "from medclip.data import images", []),
    ],
)
def test_a_wrong_arrow_is_seen(module, source, wrong):
    assert wrong_arrows(parse(source, module).imports, module) == wrong


def test_a_module_without_a_place_is_seen():
    with pytest.raises(AssertionError, match="has no place"):
        wrong_arrows([], "medclip.somewhere")


def importers():
    """How many modules of the package import each."""
    counts = dict.fromkeys(MODULES, 0)
    for module in MODULES:
        for name in set(read(module).imports):
            name = name if name in MODULES else f"{name}.__init__"
            counts[name] = counts.get(name, 0) + 1
    return counts


@pytest.mark.parametrize("module", MODULES)
def test_files_are_one_idea_and_named_for_it(module):
    assert read(module).num_lines <= MAX_LINES
    assert not VAGUE & {MODULES[module].stem, MODULES[module].parent.name}


def test_short_modules_with_one_importer_are_merged_into_it():
    counts = importers()
    lines = {module: read(module).num_lines for module, count in counts.items() if count == 1}
    short = {module for module, count in lines.items() if 0 < count < SHORT_MODULE_LINES}
    assert short == set(SHORT_MODULES)
    assert len(SHORT_MODULES) <= 10


@pytest.mark.parametrize("module", MODULES)
def test_functions_are_short(module):
    assert {name: n for name, n in read(module).function_lines.items() if n >= MAX_FUNCTION_LINES} == {}
