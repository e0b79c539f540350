"""The results of an evaluation as a typed value, and its files: KIND.json and KIND.arrow."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import MISSING, asdict, dataclass, fields
from enum import StrEnum
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pyarrow as pa

from medclip.atomic_io import CHECKSUM, has_checksum, json_text, read_json, sha256, with_checksum
from medclip.data.arrow_columns import to_table
from medclip.data.checked_files import DamageError, open_table
from medclip.data.shards import write_arrow
from medclip.errors import UserError
from medclip.evaluation.provenance import Provenance
from medclip.folder_locks import lock_output
from medclip.named_metrics import Metric, metric_name, name_parts
from medclip.recorded_files import read_checksums, write_recorded

ITEMS_HASH = "items_sha256"  # of the items' file, in the results
Fact = int | float | str | tuple[int | float | str, ...]


class Kind(StrEnum):
    """The kinds of evaluations; files are named after them."""

    RETRIEVAL = "retrieval"
    ZERO_SHOT = "zero-shot"
    PROBE = "probe"
    COMPOSITIONALITY = "compositionality"
    ROBUSTNESS = "robustness"

    @property
    def stem(self) -> str:
        """The name of its files without their extension."""
        return self.replace("-", "_")


@dataclass(frozen=True, slots=True)
class ConfusionMatrix:
    """How many images of each true class (row) were called each class (column)."""

    name: str
    """What called them: a classifier, or the kind of the evaluation."""
    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Images whose largest probability lies in one bin of equal width."""

    upper_edge: float
    num_images: int
    confidence: float
    """Mean of the largest probabilities."""
    accuracy: float


@dataclass(frozen=True, slots=True)
class ReliabilityCurve:
    """Accuracy over confidence, in the bins that hold any image."""

    name: str
    bins: tuple[ReliabilityBin, ...]


@dataclass(frozen=True, slots=True)
class MisrankedPair:
    """A query that another pair's candidate fits better than its own."""

    direction: str
    id: str
    other: str
    own_score: float
    """Cosine."""
    other_score: float

    @property
    def margin(self) -> float:
        """How much better the other one fits."""
        return self.other_score - self.own_score


@dataclass(frozen=True, slots=True)
class NearestImage:
    """An image and the one that lies closest to it, by cosine."""

    id: str
    other: str
    score: float


@dataclass(frozen=True, kw_only=True, repr=False)
class Results:
    """What one evaluation measured. A notebook shows its tables."""

    kind: Kind
    provenance: Provenance
    metrics: tuple[Metric, ...]
    """In the order of the file."""
    facts: Mapping[str, Fact]
    """What else the file says, by path: counts (num_candidates), settings, names."""
    confusion_matrices: tuple[ConfusionMatrix, ...] = ()
    reliability_curves: tuple[ReliabilityCurve, ...] = ()
    misranked_pairs: tuple[MisrankedPair, ...] = ()
    nearest_images: tuple[NearestImage, ...] = ()

    def __post_init__(self) -> None:
        """Sort metrics as the file has them. Raises ValueError where one name is the path to another."""
        by_name = {metric.name: metric for metric in self.metrics}
        leaves = {**self.facts, **by_name}
        if len(leaves) < len(self.facts) + len(self.metrics):
            raise ValueError("two metrics or facts have one name")
        _tree(leaves)
        object.__setattr__(self, "metrics", tuple(metric for _, metric in _leaves(_tree(by_name))))

    def __repr__(self) -> str:
        return f"Results({self.kind}, {self.provenance.data}, {self.provenance.split}, {len(self.metrics)} metrics)"

    def _repr_html_(self) -> str:
        from medclip.evaluation.report import results_summary

        return results_summary(self)

    def __getitem__(self, name: str) -> Metric:
        """The metric of this name. Raises KeyError where there is none."""
        return self._by_name[name]

    def get(self, *parts: str) -> Metric | None:
        """The metric at this path, or None."""
        return self._by_name.get(metric_name(*parts))

    def below(self, *parts: str) -> list[str]:
        """The names directly below a path, among metrics and facts, in order."""
        depth = len(parts)
        return list(dict.fromkeys(path[depth] for path in self._paths if path[:depth] == parts and len(path) > depth))

    def to_json(self) -> dict[str, Any]:
        """The content of the results file, of plain dicts, lists, strings and numbers."""
        leaves = {name: fact for name, fact in self.facts.items() if "/" not in name}
        leaves |= {metric.name: _metric_json(metric) for metric in self.metrics} | dict(self.facts)
        records = {name: [asdict(record) for record in getattr(self, name)] for name in _RECORDS}
        document = {"kind": self.kind, **_tree(leaves), **records, **asdict(self.provenance)}
        return json.loads(json.dumps(document))

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Results:
        """The inverse of `to_json`. Raises KeyError, TypeError or ValueError for a document of another form."""
        origin: dict[str, Any] = {field.name: document[field.name] for field in fields(Provenance)}
        origin["embeddings_sha256"] = tuple(origin["embeddings_sha256"])
        fixed = {"kind", *origin, *_RECORDS, ITEMS_HASH, CHECKSUM}
        leaves = dict(_leaves({name: value for name, value in document.items() if name not in fixed}))
        results = cls(
            kind=Kind(document["kind"]),
            provenance=Provenance(**origin),
            metrics=tuple(
                Metric(**{**leaf, "name": name, "draws": tuple(leaf.get("draws", ()))})
                for name, leaf in leaves.items()
                if isinstance(leaf, Mapping)
            ),
            facts={
                name: tuple(leaf) if isinstance(leaf, list) else leaf
                for name, leaf in leaves.items()
                if not isinstance(leaf, Mapping)
            },
            confusion_matrices=tuple(
                ConfusionMatrix(matrix["name"], tuple(matrix["labels"]), tuple(map(tuple, matrix["counts"])))
                for matrix in document["confusion_matrices"]
            ),
            reliability_curves=tuple(
                ReliabilityCurve(curve["name"], tuple(ReliabilityBin(**record) for record in curve["bins"]))
                for curve in document["reliability_curves"]
            ),
            misranked_pairs=tuple(MisrankedPair(**record) for record in document["misranked_pairs"]),
            nearest_images=tuple(NearestImage(**record) for record in document["nearest_images"]),
        )
        _check_types(results)
        return results

    @cached_property
    def _by_name(self) -> dict[str, Metric]:
        return {metric.name: metric for metric in self.metrics}

    @cached_property
    def _paths(self) -> list[tuple[str, ...]]:
        return [tuple(name_parts(name)) for name in (*self._by_name, *self.facts)]


_RECORDS = ("confusion_matrices", "reliability_curves", "misranked_pairs", "nearest_images")


def _check_types(results: Results) -> None:
    """ValueError for a fact, or a field of a record, that is of another type than its own."""
    records = [record for name in _RECORDS for record in getattr(results, name)]
    records += [results.provenance, *results.metrics, *(b for curve in results.reliability_curves for b in curve.bins)]
    values = [(name, getattr(record, name), hint) for record in records for name, hint in _hints(type(record)).items()]
    values += [(name, fact, Fact | None) for name, fact in results.facts.items()]
    for name, value, hint in values:
        if not _fits(value, hint):
            raise ValueError(f"{name} is {str(value)[:80]!r}")


_hints = cache(get_type_hints)


def _fits(value: object, hint: Any) -> bool:
    kind, args = get_origin(hint), get_args(hint)
    if kind is Literal:
        return value in args
    if kind is tuple:
        return isinstance(value, tuple) and all(_fits(item, args[0]) for item in value)
    if args:
        return any(_fits(value, arg) for arg in args)
    return isinstance(value, int | float if hint is float else hint)


def write_results(out: Path | None, results: Results, items: Mapping[str, Sequence[str] | np.ndarray]) -> Results:
    """Write results and items under the name of their kind, where `out` is given; returns the results.

    `items` are columns with a value for each item that was judged, by which `medclip compare` pairs two evaluations:
    `id` and `article`; `label` where an item truly is of a class; and the columns that metrics name, NaN where an item
    was not judged.
    """
    if out is not None:
        with lock_output(out):
            write_arrow(items_file := out / f"{results.kind.stem}.arrow", to_table(items))
            document = with_checksum(results.to_json() | {ITEMS_HASH: sha256(items_file)})
            write_recorded(items_file.with_suffix(".json"), json_text(document))
    return results


def read_results(folder: Path, kind: Kind) -> tuple[Results, pa.Table]:
    """Results of a kind and the values of its items. UserError where `folder` holds none, or damaged ones."""
    path = folder / f"{kind.stem}.json"
    document = read_json(path, f"an evaluation of {kind} (medclip evaluate {kind} --out makes one)")
    try:
        results = Results.from_json(document)
        if results.kind != kind:
            raise ValueError(f"its kind is {results.kind}")
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} does not hold results of {kind} ({error}). Evaluate again.") from None
    if not has_checksum(document):
        raise UserError(f"{path} is damaged: it is not as it was written. Evaluate again.")
    try:
        items = open_table(path.with_suffix(".arrow"), digest=document[ITEMS_HASH])
        _check_items(items, {str(metric.column) for metric in results.metrics})
        return results, items
    except (FileNotFoundError, DamageError, KeyError) as error:
        raise UserError(f"{path.with_suffix('.arrow')} is absent or damaged ({error}). Evaluate again.") from None


def _check_items(items: pa.Table, columns: Set[str]) -> None:
    """DamageError where two columns have one name, or one of `columns` is there and holds no numbers."""
    if len({*items.column_names}) < items.num_columns:
        raise DamageError("has two columns of one name")
    for field_ in items.schema:
        is_number = pa.types.is_integer(field_.type) or pa.types.is_floating(field_.type)
        if field_.name in columns and not (is_number or pa.types.is_boolean(field_.type)):
            raise DamageError(f"{field_.name[:80]!r} holds no numbers")


def kinds_in(folder: Path) -> list[Kind]:
    """The kinds of evaluations that a folder holds."""
    return [kind for kind in Kind if (folder / f"{kind.stem}.json").is_file()]


def check_kinds(folder: Path) -> None:
    """UserError where an evaluation of a folder is absent that was written: the others are not all that it measured."""
    recorded = read_checksums(folder)
    for name in (f"{kind.stem}.json" for kind in Kind):
        if name in recorded and not (folder / name).is_file():
            raise UserError(f"{folder / name} is absent, though it was written. Evaluate again into this folder.")


def _metric_json(metric: Metric) -> dict[str, Any]:
    """Value, low and high, and every other field that differs from its default."""
    defaults = {field.name: field.default for field in fields(Metric) if field.default is not MISSING}
    return {
        name: value
        for name, value in asdict(metric).items()
        if name != "name" and (name not in defaults or value != defaults[name])
    }


def _tree(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Leaves by name as dicts within dicts. Raises ValueError where a name is also the path to another."""
    tree: dict[str, Any] = {}
    for name, leaf in leaves.items():
        node, (*above, last) = tree, name_parts(name)
        for part in above:
            node = node.setdefault(part, {})
            if _is_leaf(node):
                raise ValueError(f"{name} lies below a metric or a fact")
        if last in node:
            raise ValueError(f"{name} is a name twice, or the path to another")
        node[last] = leaf
    return tree


def _leaves(node: Mapping[str, Any], *above: str) -> Iterator[tuple[str, Any]]:
    """The inverse of `_tree`."""
    for part, child in node.items():
        if _is_leaf(child):
            yield metric_name(*above, part), child
        else:
            yield from _leaves(child, *above, part)


def _is_leaf(node: Any) -> bool:
    """Whether this is a metric or a fact, and not a dict of them."""
    if not isinstance(node, Mapping):
        return True
    ends = [node.get(end, "") for end in ("value", "low", "high")]
    return all(end is None or isinstance(end, int | float) for end in ends)
