"""Which stores there are, and how one is opened."""

from __future__ import annotations

from medclip.errors import UserError
from medclip.search.manifest import EXACT, FAISS, MILVUS
from medclip.search.stores.base import ExactStore, Rows, Store


def known_store(said: str) -> str:
    """A store as it is written into an index; UserError for one that is not known."""
    if said in (EXACT, FAISS):
        return said
    if said.startswith(MILVUS) and len(said) > len(MILVUS):
        if "@" in said:
            raise UserError(
                "credentials do not go into an index: set MILVUS_TOKEN and leave them out of --vector-store."
            )
        return said
    raise UserError(f"--vector-store {said}: there are exact, faiss and milvus://HOST:PORT.")


def check_available(said: str) -> None:
    """UserError where a store's library is not installed or its server does not answer."""
    if said == FAISS:
        from medclip.search.stores import faiss  # noqa: F401
    if said.startswith(MILVUS):
        from medclip.search.stores.milvus import connected

        connected(said)


def open_store(index: Rows, said: str) -> Store:
    """A store of an index. UserError where its library is not installed or its server does not answer."""
    if said == FAISS:
        from medclip.search.stores.faiss import FaissStore

        return FaissStore(index)
    if said.startswith(MILVUS):
        from medclip.search.stores.milvus import MilvusStore

        return MilvusStore(index, said)
    return ExactStore(index)
