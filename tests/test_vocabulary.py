"""The field's words: no identifier, function or module name that a reader of this field would have to learn first."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = {
    str(path.relative_to(ROOT)): path
    for folder in ("src", "tests", "benchmarks", "examples")
    for path in sorted((ROOT / folder).rglob("*.py"))
}
BANNED = {"said", "told", "found", "of", "kept", "about", "asked", "there", "seen", "looks"}
# Spellings and words for which the field has another; parts of longer names too.
FOREIGN = re.compile(r"picture|licence|colour|grey(?!scale)|normalis|standardis|neighbour|labelled|quantis|data_set")
# Functions are verbs or the noun of what they return. A participle alone names neither.
IRREGULAR = {
    *("spelt", "told", "said", "found", "kept", "seen", "made", "drawn", "shown", "fallen", "known", "given", "taken"),
    *("written", "chosen", "left", "held", "built", "sent", "met", "lost", "understood", "begun", "gone", "learnt"),
}
VERBS_ENDING_IN_ED = {"embed", "feed", "seed", "need", "speed", "proceed", "exceed", "shed"}
# Names that modules had before they had the field's.
MODULES_OF_0_1 = {
    *("backend", "page", "files", "relevance", "engines", "classify", "places", "refused", "preparation"),
    *("rows", "workers", "batches", "feed", "exchange", "drawing", "privacy", "survey", "oddities", "advice"),
    *("guesses", "beside", "known", "formats", "tars", "studies", "folders", "subject", "vectors"),
    *("understanding", "pools", "groups", "confusions", "scores", "paired", "pairing", "figures", "drawings"),
    *("plots", "side_by_side", "tokens", "vocabulary", "hub", "resize", "join", "init", "recipe", "learning"),
    *("frozen", "start", "track", "interrupt", "contents", "where", "quantised", "build", "embedding", "wire"),
    *("problems", "limits", "listen", "decoding", "commands", "asking", "finding", "narrowing"),
    *("opened", "plain", "enlarge", "where_shown", "classes", "served", "likeness", "unfinished"),
}


def names_given(nodes):
    """Every name that the code gives to something: variables, parameters, attributes, functions, classes."""
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs) and node.name:
            yield node.name, node.lineno


def is_participle(name):
    word = name.strip("_")
    return word in IRREGULAR or (word.isalpha() and word.endswith("ed") and word not in VERBS_ENDING_IN_ED)


def objections(source):
    nodes = list(ast.walk(ast.parse(source)))
    for name, line in names_given(nodes):
        if name.strip("_") in BANNED:
            yield f"line {line}: {name} is banned"
        elif match := FOREIGN.search(name.lower()):
            yield f"line {line}: {name} holds {match[0]!r}"
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and is_participle(node.name):
            yield f"line {node.lineno}: the function {node.name} is named by a participle"


@pytest.mark.parametrize("file", FILES)
def test_identifiers_are_the_fields_words(file):
    assert list(objections(FILES[file].read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    ("source", "objection"),
    [
        ("said = 1", "said is banned"),
        ("def f(of): pass", "of is banned"),
        ("for _kept in x: pass", "_kept is banned"),
        ("self.found = 1", "found is banned"),
        ("pictures = []", "holds 'picture'"),
        ("def keyed(): pass", "named by a participle"),
        ("class A:\n    def _spelt(self): pass", "named by a participle"),
    ],
)
def test_a_foreign_word_is_noticed(source, objection):
    assert any(objection in line for line in objections(source))


@pytest.mark.parametrize("source", ["def embed(): pass", "cached_features = 1", "def embed_images(image): pass"])
def test_the_fields_words_pass(source):
    assert list(objections(source)) == []


def test_modules_do_not_carry_the_names_of_0_1():
    names = {path.stem for path in (ROOT / "src").rglob("*.py")}
    names |= {path.name for path in (ROOT / "src" / "medclip").rglob("*") if path.is_dir()}
    assert not names & MODULES_OF_0_1
