"""A Milvus collection names the candidates: the index's rows by their numbers, kept equal to it by difference.

A row is its number, its unit vector, the day it was added and its terms: a hash for each label, article, license and
source. A filter is then an expression of numbers alone, which no value can break out of, and no caption, article or
patient stands on the server.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from medclip.errors import UserError
from medclip.progress import progress
from medclip.search.filters import ADDED, COLUMNS, Filter, label_names, span, values
from medclip.search.manifest import MILVUS
from medclip.search.stores.base import SCANNED, Rows, scan

try:
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # the library writes its own troubles to the terminal
    import grpc
    from pymilvus import DataType, MilvusClient, MilvusException
except ImportError:
    raise UserError("the store milvus:// needs pymilvus: pip install 'medclip[milvus]'.") from None

for _name in ("pymilvus", "pymilvus.milvus_client"):  # it logs a traceback for whatever it raises
    logging.getLogger(_name).handlers, logging.getLogger(_name).propagate = [logging.NullHandler()], False

NUMBER, VECTOR, TERMS = "number", "vector", "terms"
MOST = 16384  # rows that Milvus gives a query
SENT = 4 << 20  # bytes of vectors sent at once; a server takes 64 MiB
GONE = 4096  # numbers that are deleted at once
CONNECT_S, ANSWER_S, WORK_S = 5.0, 20.0, 600.0
HNSW = {"M": 16, "efConstruction": 200}
TIMES, AT_LEAST, LEAST_EF = 2, 100, 512  # rows asked for, for one that is wanted, and nodes of the graph looked at


class MilvusStore:
    """The collection of an index on a server."""

    def __init__(self, index: Rows, said: str):
        """UserError where the server at `said`, milvus://HOST:PORT, does not answer."""
        self.index, self.said, self.name = index, said, index.contents.name
        self.client = connected(said)
        self._whole = False
        self._order = np.argsort(index.numbers, kind="stable")

    def candidates(self, vectors: np.ndarray, count: int, allowed: np.ndarray, asked: Filter) -> list[np.ndarray]:
        """The rows that the server finds; all, by their cosines, where it would be asked for too many or loses some.

        UserError where its collection is not the index's.
        """
        there, limit = int(np.count_nonzero(allowed)), max(TIMES * count, AT_LEAST)
        if there <= SCANNED * len(allowed) or limit > MOST:
            return scan(self.index.vectors, vectors, count, allowed)
        with _answered(self.said):
            if not self._whole:
                self._check()
            found = self.client.search(
                self.name,
                data=list(vectors),
                filter=expression(asked),
                limit=limit,
                anns_field=VECTOR,
                search_params={"metric_type": "IP", "params": {"ef": max(2 * limit, LEAST_EF)}},
                consistency_level="Strong",
                timeout=ANSWER_S,
            )
        rows = [self._rows(np.array([hit[NUMBER] for hit in hits], np.int64), allowed) for hits in found]
        if all(len(of) >= min(limit, there) for of in rows):
            return rows
        return scan(self.index.vectors, vectors, count, allowed)  # a graph may not lead to all that a filter leaves

    def sync(self) -> None:
        """Send the rows that the collection lacks and delete those that it should not have."""
        live = np.flatnonzero(self.index.live)
        with _answered(self.said):
            self._make()
            there = self._numbers()
            numbers = self.index.numbers[live]
            surplus = np.setdiff1d(there, numbers)
            for start in range(0, len(surplus), GONE):
                some = surplus[start : start + GONE].tolist()
                self.client.delete(self.name, ids=some, timeout=WORK_S)
            missing = live[~np.isin(numbers, there)]
            at_once = max(1, SENT // (4 * self.index.contents.dimensions))
            with progress(f"send to {self.said}", len(missing), "rows") as advance:
                for start in range(0, len(missing), at_once):
                    rows = missing[start : start + at_once]
                    # not insert, which would keep a row twice that was sent again after a time-out
                    self.client.upsert(self.name, self._entities(rows), timeout=WORK_S)
                    advance(len(rows))
            if len(missing):
                self.client.flush(self.name, timeout=WORK_S)
            self.client.load_collection(self.name, timeout=WORK_S)

    def drop(self) -> None:
        """Drop the collection."""
        with _answered(self.said):
            self.client.drop_collection(self.name, timeout=WORK_S)

    def _make(self) -> None:
        if not self.client.has_collection(self.name, timeout=ANSWER_S):
            schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
            schema.add_field(NUMBER, DataType.INT64, is_primary=True)
            schema.add_field(VECTOR, DataType.FLOAT_VECTOR, dim=self.index.contents.dimensions)
            schema.add_field(ADDED, DataType.INT64)
            schema.add_field(TERMS, DataType.ARRAY, element_type=DataType.INT64, max_capacity=4096)
            self.client.create_collection(self.name, schema=schema, consistency_level="Strong", timeout=WORK_S)
        if VECTOR not in self.client.list_indexes(self.name):
            made = MilvusClient.prepare_index_params()
            made.add_index(VECTOR, index_type="HNSW", index_name=VECTOR, metric_type="IP", params=HNSW)
            self.client.create_index(self.name, made, timeout=WORK_S)
        self.client.load_collection(self.name, timeout=WORK_S)

    def _numbers(self) -> np.ndarray:
        """The numbers of all rows that the collection has, ascending: i64."""
        pages, found = self.client.query_iterator(
            self.name, batch_size=MOST, output_fields=[NUMBER], consistency_level="Strong", timeout=WORK_S
        ), [np.empty(0, np.int64)]  # fmt: skip
        try:
            while page := pages.next():
                found.append(np.array([row[NUMBER] for row in page], np.int64))
        finally:
            pages.close()
        return np.unique(np.concatenate(found))

    def _entities(self, rows: np.ndarray) -> list[dict[str, Any]]:
        days = self.index.added[rows].astype("datetime64[D]").astype(int).tolist()
        columns = (self.index.numbers[rows].tolist(), list(self.index.vectors_of(rows)), days, self._terms(rows))
        names = (NUMBER, VECTOR, ADDED, TERMS)
        return [dict(zip(names, said, strict=True)) for said in zip(*columns, strict=True)]

    def _terms(self, rows: np.ndarray) -> list[list[int]]:
        asked = self.index.rows.select(["labels", *COLUMNS])
        runs = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
        table = pa.concat_tables([asked.slice(int(run[0]), len(run)) for run in runs])
        terms: list[list[int]] = [[] for _ in rows]
        for key in {*label_names(table), *COLUMNS}:
            for of, value in zip(terms, pc.utf8_lower(values(table, key)).to_pylist(), strict=True):
                if value is not None:
                    of.append(term(key, value))
        return terms

    def _check(self) -> None:
        lacking = f"bring it up to date: medclip index migrate --index {self.index.folder} {self.said}"
        if not self.client.has_collection(self.name, timeout=ANSWER_S):
            raise UserError(f"the Milvus server at {_address(self.said)} has no collection {self.name}; {lacking}")
        counted = self.client.query(
            self.name, output_fields=["count(*)"], consistency_level="Strong", timeout=ANSWER_S
        )[0]["count(*)"]  # fmt: skip
        if counted != self.index.contents.pairs and self.index.is_current():
            raise UserError(
                f"collection {self.name} at {_address(self.said)} has {counted} rows and the index "
                f"{self.index.contents.pairs}; {lacking}"
            )
        self._whole = True

    def _rows(self, numbers: np.ndarray, allowed: np.ndarray) -> np.ndarray:
        """The index's rows of these numbers: the server may know of a later change, and terms of two may be one."""
        at = np.searchsorted(self.index.numbers, numbers, sorter=self._order).clip(max=len(allowed) - 1)
        at = self._order[at]
        return at[(self.index.numbers[at] == numbers) & allowed[at]]


def connected(said: str) -> MilvusClient:
    """A client of the server at milvus://HOST:PORT; UserError where it does not answer.

    The environment says who asks (MILVUS_TOKEN) and whether over TLS (MILVUS_SECURE=1).
    """
    scheme = "https" if os.environ.get("MILVUS_SECURE", "0") not in ("", "0") else "http"
    with _answered(said):
        client = MilvusClient(
            f"{scheme}://{_address(said)}", token=os.environ.get("MILVUS_TOKEN", ""), timeout=CONNECT_S
        )
        client.has_collection("medclip", timeout=CONNECT_S)  # connections are shared: this one may be of a lost server
        return client


def expression(asked: Filter) -> str:
    """A filter as Milvus reads it: numbers only, whatever the values hold."""
    met = []
    for key, any_of in asked.keys:
        if key == ADDED:
            spans = [tuple(int(day.astype(int)) for day in span(value)) for value in any_of]
            met.append(" or ".join(f"({ADDED} >= {first} and {ADDED} <= {last})" for first, last in spans))
        else:
            met.append(f"array_contains_any({TERMS}, {[term(key, value) for value in any_of]})")
    return " and ".join(f"({each})" for each in met)


def term(key: str, value: str) -> int:
    """What stands for a value of a label or column: 63 bits, the same for equal pairs on every machine."""
    said = hashlib.blake2b(f"{len(key)} {key}={value}".encode(), digest_size=8).digest()
    return int.from_bytes(said) >> 1


def _address(said: str) -> str:
    return said.removeprefix(MILVUS).rstrip("/")


@contextmanager
def _answered(said: str) -> Iterator[None]:
    """UserError for whatever goes wrong on the way to the server or there."""
    try:
        yield
    except (MilvusException, grpc.RpcError, grpc.FutureTimeoutError) as error:
        why = str(getattr(error, "message", "") or error).strip() or type(error).__name__
        raise UserError(
            f"the Milvus server at {_address(said)} does not answer as it should: {why.splitlines()[0][:200]}"
        ) from None
