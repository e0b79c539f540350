"""The API in this process, for tests: opened once for each index that they ask for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastapi.testclient import TestClient

from medclip.serve.api import create
from medclip.serve.service import Service, Settings


@contextmanager
def opened(index: Path, keys: list[bytes] | None = None, **settings) -> Iterator[TestClient]:
    """A client of the API over an index."""
    with TestClient(create(Settings(index, **settings), keys or [])) as client:
        yield client


def service_of(client: TestClient) -> Service:
    """What answers behind a client."""
    return client.app._app.state.service


def problem(answer) -> str:
    """The sentence of an answer that is none; nothing else is in it."""
    assert answer.headers["content-type"] == "application/json", answer.text
    assert answer.json().keys() == {"error"}
    return answer.json()["error"]
