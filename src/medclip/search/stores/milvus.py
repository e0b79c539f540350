"""Approximate candidates from a Milvus collection, kept equal to the index by the difference of their row ids.

An entity is a row id, the row's embedding, the day it was added and its terms: a hash for each label, article, license
and source. A filter is then an expression of numbers alone, which no value can break out of, and the server holds no
caption, article or patient.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa

from medclip.errors import UserError
from medclip.hosts import is_clear_text, is_loopback
from medclip.progress import progress
from medclip.require import require
from medclip.search.filters import ADDED_KEY, FILTER_COLUMNS, Filter, column_values, fold, label_names, parse_days
from medclip.search.manifest import MILVUS_SCHEME
from medclip.search.stores.base import SCAN_FRACTION, Difference, Embeddings, IndexData, RowMask, Rows, scan

ROW_ID, EMBEDDING, ADDED, TERMS = "row_id", "embedding", "added", "terms"
MAX_RESULT_ROWS = 16384  # that Milvus returns for a query
MAX_TERMS = 4096  # of a row
UPSERT_BYTES = 4 << 20  # of embeddings in a request; a server takes 64 MiB
DELETE_ROWS = 4096  # in a request
COMPARED_ROWS = 1024  # whose embeddings are fetched at once
CONNECT_TIMEOUT_S, QUERY_TIMEOUT_S, WRITE_TIMEOUT_S = 5.0, 20.0, 600.0
HNSW_PARAMS = {"M": 16, "efConstruction": 200}
CANDIDATES_PER_HIT, MIN_CANDIDATES, MIN_EF = 2, 100, 512  # ef: graph nodes visited
_GLOBAL_CLUSTER = "global-cluster"
_NAMED: ContextVar[str] = ContextVar("vector store that the user named", default="")


class MilvusStore:
    """The collection of an index on a Milvus server."""

    def __init__(self, index: IndexData, uri: str):
        """UserError where the server at `uri`, milvus://HOST:PORT, does not answer."""
        self.index, self.uri, self.collection = index, uri, index.manifest.collection
        self.client = connect(uri)
        self._is_complete = False
        self._by_row_id = np.argsort(index.row_ids, kind="stable")

    def candidates(self, embeddings: Embeddings, count: int, mask: RowMask, filter: Filter) -> list[np.ndarray]:
        """The server's candidates; an exact scan where few rows are left, many are wanted or the server misses some.

        Also while a change of the index is under way, when the collection has more rows than the index. UserError where
        it has fewer.
        """
        num_allowed, limit = int(np.count_nonzero(mask)), max(CANDIDATES_PER_HIT * count, MIN_CANDIDATES)
        if num_allowed <= SCAN_FRACTION * len(mask) or limit > MAX_RESULT_ROWS:
            return scan(self.index.segments, embeddings, count, mask)
        with _server_errors(self.uri):
            if not self._is_complete and not self._check_complete():
                return scan(self.index.segments, embeddings, count, mask)
            results = self._search(embeddings, limit, filter)
        rows = [self._rows(np.array([hit[ROW_ID] for hit in hits], np.int64), mask) for hits in results]
        if all(len(query_rows) >= min(limit, num_allowed) for query_rows in rows):
            return rows
        return scan(self.index.segments, embeddings, count, mask)  # HNSW may not reach every row a filter leaves

    def _search(self, embeddings: Embeddings, limit: int, filter: Filter) -> Any:
        try:
            return self.client.search(
                self.collection,
                data=list(embeddings),
                filter=filter_expression(filter),
                limit=limit,
                anns_field=EMBEDDING,
                search_params={"metric_type": "IP", "params": {"ef": max(2 * limit, MIN_EF)}},
                consistency_level="Strong",
                timeout=QUERY_TIMEOUT_S,
            )
        except Exception:  # the server may have started again: the next query looks whether it has all, loaded
            self._is_complete = False
            raise

    def extend(self) -> None:
        """Upsert the rows that the collection lacks."""
        live_rows = np.flatnonzero(self.index.live_mask)
        with _server_errors(self.uri):
            self._create()
            missing = live_rows[~np.isin(self.index.row_ids[live_rows], self._row_ids())]
            batch_size = max(1, UPSERT_BYTES // (4 * self.index.manifest.embedding_dim))
            with progress(f"send to {self.uri}", len(missing), "rows") as advance:
                for start in range(0, len(missing), batch_size):
                    rows = missing[start : start + batch_size]
                    # insert would keep a row twice that was sent again after a time-out
                    self.client.upsert(self.collection, self._entities(rows), timeout=WRITE_TIMEOUT_S)
                    advance(len(rows))
            if len(missing):
                self.client.flush(self.collection, timeout=WRITE_TIMEOUT_S)
            self.client.load_collection(self.collection, timeout=WRITE_TIMEOUT_S)

    def trim(self) -> None:
        """Delete the rows that the collection should not have."""
        with _server_errors(self.uri):
            self._load()
            surplus = np.setdiff1d(self._row_ids(), self.index.row_ids[self.index.live_mask])
            for start in range(0, len(surplus), DELETE_ROWS):
                ids = surplus[start : start + DELETE_ROWS].tolist()
                self.client.delete(self.collection, ids=ids, timeout=WRITE_TIMEOUT_S)

    def drop(self) -> None:
        """Drop the collection."""
        drop_collection(self.uri, self.collection)

    def differences(self) -> Iterator[Difference]:
        """Rows that the collection lacks, has beside those of the index, or has with another embedding or filter."""
        name = f"{self.uri}/{self.collection}"
        live_rows = np.flatnonzero(self.index.live_mask)
        with _server_errors(self.uri):
            if not self.client.has_collection(self.collection, timeout=QUERY_TIMEOUT_S):
                yield Difference(name, "is absent", live_rows)
                return
            self._load()
            present, wanted = self._row_ids(), self.index.row_ids[live_rows]
            if len(missing := live_rows[~np.isin(wanted, present)]):
                yield Difference(name, "lacks rows of the index", missing)
            if surplus := len(np.setdiff1d(present, wanted)):
                yield Difference(name, f"has {surplus} rows that the index has not", np.empty(0, np.int64))
            shared = live_rows[np.isin(wanted, present)]
            other = [
                row
                for start in range(0, len(shared), COMPARED_ROWS)
                for row in self._other(shared[start:][:COMPARED_ROWS])
            ]
        if other:
            yield Difference(name, "holds rows that differ from those of the index", np.array(other))

    def _other(self, rows: Rows) -> list[int]:
        """Those of the rows, which the collection has, whose embedding, day or terms differ from the index's."""
        entities = self.client.get(
            self.collection,
            ids=self.index.row_ids[rows].tolist(),
            output_fields=[ROW_ID, EMBEDDING, ADDED, TERMS],
            timeout=WRITE_TIMEOUT_S,
        )
        stored = {entity[ROW_ID]: _content(entity) for entity in entities}
        expected = zip(rows, self._entities(rows), strict=True)
        return [int(row) for row, entity in expected if stored.get(entity[ROW_ID]) != _content(entity)]

    def _create(self) -> None:
        data_type = require("pymilvus", extra="milvus").DataType
        if not self.client.has_collection(self.collection, timeout=QUERY_TIMEOUT_S):
            schema = self.client.create_schema(auto_id=False, enable_dynamic_field=False)
            schema.add_field(ROW_ID, data_type.INT64, is_primary=True)
            schema.add_field(EMBEDDING, data_type.FLOAT_VECTOR, dim=self.index.manifest.embedding_dim)
            schema.add_field(ADDED, data_type.INT64)
            schema.add_field(TERMS, data_type.ARRAY, element_type=data_type.INT64, max_capacity=MAX_TERMS)
            self.client.create_collection(
                self.collection, schema=schema, consistency_level="Strong", timeout=WRITE_TIMEOUT_S
            )
        if EMBEDDING not in self.client.list_indexes(self.collection):
            params = self.client.prepare_index_params()
            params.add_index(EMBEDDING, index_type="HNSW", index_name=EMBEDDING, metric_type="IP", params=HNSW_PARAMS)
            self.client.create_index(self.collection, params, timeout=WRITE_TIMEOUT_S)
        self.client.load_collection(self.collection, timeout=WRITE_TIMEOUT_S)

    def _load(self) -> None:
        """Load the collection unless it is: a server that starts again may not, and then answers no query."""
        state = self.client.get_load_state(self.collection, timeout=QUERY_TIMEOUT_S)["state"]
        if state != require("pymilvus.client.types", extra="milvus").LoadState.Loaded:  # a reader's token may not load
            self.client.load_collection(self.collection, timeout=WRITE_TIMEOUT_S)

    def _row_ids(self) -> np.ndarray:
        """Ids of all rows of the collection, ascending: i64."""
        pages, row_ids = self.client.query_iterator(
            self.collection, batch_size=MAX_RESULT_ROWS, output_fields=[ROW_ID], consistency_level="Strong",
            timeout=WRITE_TIMEOUT_S,
        ), [np.empty(0, np.int64)]  # fmt: skip
        try:
            while page := pages.next():
                row_ids.append(np.array([row[ROW_ID] for row in page], np.int64))
        finally:
            pages.close()
        return np.unique(np.concatenate(row_ids))

    def _entities(self, rows: Rows) -> list[dict[str, Any]]:
        row_ids = self.index.row_ids[rows].tolist()
        days = self.index.added_days[rows].astype("datetime64[D]").astype(int).tolist()
        return [
            {ROW_ID: row_id, EMBEDDING: embedding, ADDED: day, TERMS: terms}
            for row_id, embedding, day, terms in zip(
                row_ids, self.index.embeddings_at(rows), days, self._terms(rows), strict=True
            )
        ]

    def _terms(self, rows: Rows) -> list[list[int]]:
        columns = self.index.table.select(["labels", *FILTER_COLUMNS])
        runs = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
        table = pa.concat_tables([columns.slice(int(run[0]), len(run)) for run in runs])
        terms: list[list[int]] = [[] for _ in rows]
        for key in {*label_names(table), *FILTER_COLUMNS}:
            for row_terms, value in zip(terms, fold(column_values(table, key)).to_pylist(), strict=True):
                if value is not None:
                    row_terms.append(hash_term(key, value))
        return terms

    def _check_complete(self) -> bool:
        """Whether the collection has the rows of the index and no others. UserError where it has fewer."""
        address, num_pairs = _address(self.uri), self.index.manifest.num_pairs
        remedy = f"bring it up to date: medclip index migrate --index {self.index.folder} {self.uri}"
        if not self.client.has_collection(self.collection, timeout=QUERY_TIMEOUT_S):
            raise UserError(f"the Milvus server at {address} has no collection {self.collection}; {remedy}")
        self._load()
        (row,) = self.client.query(
            self.collection, output_fields=["count(*)"], consistency_level="Strong", timeout=QUERY_TIMEOUT_S
        )
        if row["count(*)"] < num_pairs and self.index.is_current():
            raise UserError(
                f"collection {self.collection} at {address} has {row['count(*)']} rows and the index {num_pairs}; "
                f"{remedy}"
            )
        self._is_complete = row["count(*)"] == num_pairs
        return self._is_complete

    def _rows(self, row_ids: np.ndarray, mask: RowMask) -> np.ndarray:
        """Rows of the mask with these ids: the server may know a later change, and two terms may share a hash."""
        positions = np.searchsorted(self.index.row_ids, row_ids, sorter=self._by_row_id).clip(max=len(mask) - 1)
        rows = self._by_row_id[positions]
        return rows[(self.index.row_ids[rows] == row_ids) & mask[rows]]


def _content(entity: Mapping[str, Any]) -> tuple[bytes, int, list[int]]:
    return np.array(entity[EMBEDDING], np.float32).tobytes(), entity[ADDED], sorted(entity[TERMS])


@contextmanager
def named_server(vector_store: str) -> Iterator[None]:
    """Within it, `connect` takes this store's server for one that the user named, not an index from elsewhere."""
    reset = _NAMED.set(vector_store)
    try:
        yield
    finally:
        _NAMED.reset(reset)


def connect(uri: str) -> Any:
    """A `MilvusClient` of the server at milvus://HOST:PORT. UserError where it does not answer or pymilvus is absent.

    An index from elsewhere may name any server. One beyond this machine is asked only where the user named it: by
    `named_server`, or in the environment variable MILVUS_URI, https://HOST:PORT (TLS) or http. Only a named server gets
    the token in MILVUS_TOKEN, and none beyond this machine over clear text. UserError otherwise.
    """
    url, token = _url_and_token(uri)
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # gRPC would print its troubles on the terminal
    pymilvus = require("pymilvus", extra="milvus")
    for name in ("pymilvus", "pymilvus.milvus_client"):  # it logs a traceback for every error
        logging.getLogger(name).handlers, logging.getLogger(name).propagate = [logging.NullHandler()], False
    with _server_errors(uri):
        # a proxy (http_proxy) would carry clear text off this machine
        options = {"grpc.enable_http_proxy": int(not is_loopback(urlsplit(url).hostname or ""))}
        client = pymilvus.MilvusClient(url, token=token, timeout=CONNECT_TIMEOUT_S, grpc_options=options)
        client.has_collection("medclip", timeout=CONNECT_TIMEOUT_S)  # a shared connection may be of a lost server
        return client


def _url_and_token(uri: str) -> tuple[str, str]:
    """URL of a server, and the token that it may get. UserError where it may not be asked; see `connect`."""
    address, variable = _address(uri), os.environ.get("MILVUS_URI", "")
    match = re.fullmatch(r"(https?)://([^/@]+:\d+)/?", variable)
    if variable and match is None:
        raise UserError("MILVUS_URI is not https://HOST:PORT, or http without TLS; a token goes into MILVUS_TOKEN.")
    is_in_variable = match is not None and match[2].lower() == address
    url = f"{match[1] if match and is_in_variable else 'http'}://{address}"
    if not is_in_variable and _address(_NAMED.get()) != address:
        if not is_loopback(urlsplit(url).hostname or ""):
            raise UserError(
                f"the index is on the Milvus server {address}, which you have not named: MILVUS_URI=https://{address} "
                "(http without TLS) allows it to be asked, and to get MILVUS_TOKEN."
            )
        return url, ""
    token = os.environ.get("MILVUS_TOKEN", "")
    if token and is_clear_text(url):
        raise UserError(f"MILVUS_TOKEN is not sent over clear text: MILVUS_URI=https://{address} asks for TLS.")
    if _GLOBAL_CLUSTER in address:  # pymilvus would send the token to each server that it names
        raise UserError(f"{address} names the servers of others, which get no token: name one of its clusters itself.")
    return url, token


def drop_collection(uri: str, name: str) -> None:
    """Drop a collection of the server at `uri`, if it has that. Errors as of `connect`."""
    client = connect(uri)
    with _server_errors(uri):
        client.drop_collection(name, timeout=WRITE_TIMEOUT_S)


def filter_expression(filter: Filter) -> str:
    """A filter in Milvus's language, of numbers only: no value can break out of it."""
    clauses = []
    for key, values in filter.conditions:
        if key == ADDED_KEY:
            ranges = [parse_days(value) for value in values]
            days = [(int(first.astype(int)), int(last.astype(int))) for first, last in ranges]
            clauses.append(" or ".join(f"({ADDED} >= {first} and {ADDED} <= {last})" for first, last in days))
        else:
            clauses.append(f"array_contains_any({TERMS}, {[hash_term(key, value) for value in values]})")
    return " and ".join(f"({clause})" for clause in clauses)


def hash_term(key: str, value: str) -> int:
    """63 bits that stand for a value of a label or column, the same on every machine."""
    digest = hashlib.blake2b(f"{len(key)} {key}={value}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1


def _address(uri: str) -> str:
    return uri.removeprefix(MILVUS_SCHEME).rstrip("/").lower()


@contextmanager
def _server_errors(uri: str) -> Iterator[None]:
    """UserError for an error of the server or of the connection."""
    pymilvus, grpc = require("pymilvus", extra="milvus"), require("grpc", extra="milvus")
    try:
        yield
    except (pymilvus.MilvusException, grpc.RpcError, grpc.FutureTimeoutError) as error:
        reason = str(getattr(error, "message", "") or error).strip() or type(error).__name__
        raise UserError(
            f"the Milvus server at {_address(uri)} does not answer as it should: {reason.splitlines()[0][:200]}"
            f"{_withheld_token(uri)}"
        ) from None


def _withheld_token(uri: str) -> str:
    if os.environ.get("MILVUS_TOKEN") and not _url_and_token(uri)[1]:
        return f" (MILVUS_TOKEN is sent only to a server that you name: MILVUS_URI=http://{_address(uri)})"
    return ""
