"""A client of the HTTP API: a method for each operation, by its name, with the forms of the service itself.

client = Client("http://127.0.0.1:8000", key="…")
for hit in client.search("pleural effusion", k=5).hits: ...
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self, TypeVar
from urllib.parse import quote

try:
    import httpx2
    from pydantic import BaseModel
except ModuleNotFoundError as error:
    from medclip.require import install_command

    raise ModuleNotFoundError(f"{error.name} is not installed: {install_command('serve')}.", name=error.name) from None

from medclip.errors import UserError
from medclip.hosts import is_clear_text
from medclip.serve import schemas

Form = TypeVar("Form", bound=BaseModel)


class ApiError(Exception):
    """The service did not answer as asked: `status` is that of HTTP, the message its sentence."""

    def __init__(self, status: int, sentence: str):
        super().__init__(f"{sentence} (status {status})")
        self.status, self.sentence = status, sentence


class Client:
    """A client; as a context manager, or `close` it. Its methods raise ApiError, and httpx2's errors of connections."""

    def __init__(self, url: str, key: str | None = None, http: httpx2.Client | None = None):
        """`key` is an API key; `http` sends the requests, where they need a proxy or certificates of their own.

        Without `http`, clear text goes through no proxy. UserError where the key would go over it to another machine.
        """
        if http is None and key and is_clear_text(url):
            raise UserError("the API key is not sent over clear text: give the address as https://, or `http`.")
        self._http = http or httpx2.Client(timeout=60.0, trust_env=url.startswith("https:"))
        self._url, self._headers = url.rstrip("/"), {"X-API-Key": key} if key else {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def search(
        self, text: str, k: int = 10, filter: Mapping[str, str | Sequence[str]] | None = None
    ) -> schemas.SearchResult:
        """The best images for one text; `filter` maps a key of `facets`, or `added`, to the values to choose."""
        query = schemas.SearchQuery(texts=[text])
        values = {key: [value] if isinstance(value, str) else list(value) for key, value in (filter or {}).items()}
        return self.search_by_text(schemas.SearchRequest(queries=[query], k=k, filter=values)).results[0]

    def search_by_text(self, request: schemas.SearchRequest) -> schemas.SearchResponse:
        """The best images for each query, best first, near-duplicates merged."""
        return self._form(schemas.SearchResponse, "POST", "/search", json=request.model_dump())

    def search_by_image(
        self,
        images: Sequence[bytes],
        texts: Sequence[str] = (),
        negative_texts: Sequence[str] = (),
        k: int = 10,
        filter: Sequence[str] = (),
        group_by: schemas.GroupBy = None,
    ) -> schemas.SearchResult:
        """The best images for images (PNG, JPEG or DICOM files) and texts together; `filter` of KEY=VALUE."""
        fields = {"texts": list(texts), "negative_texts": list(negative_texts), **_options(k, filter, group_by)}
        return self._form(schemas.SearchResult, "POST", "/search/image", data=fields, files=_files("images", images))

    def similar(
        self,
        id: str,
        sha256: str | None = None,
        k: int = 10,
        filter: Sequence[str] = (),
        group_by: schemas.GroupBy = None,
    ) -> schemas.SearchResult:
        """The images nearest to one of the index, without it and its duplicates."""
        path, options = f"/similar/{quote(id, safe='')}", _options(k, filter, group_by)
        return self._form(schemas.SearchResult, "GET", path, params=options | _hash(sha256))

    def classify(
        self, labels: Sequence[str], image: bytes | None = None, id: str | None = None, sha256: str | None = None
    ) -> schemas.ClassifyResponse:
        """Zero-shot probabilities of labels for an image file, or for an image of the index by its id."""
        form = _one_image({"labels": list(labels)}, image, id, sha256)
        return self._form(schemas.ClassifyResponse, "POST", "/classify", **form)

    def explain(self, text: str, image: bytes | None = None, id: str | None = None, sha256: str | None = None) -> bytes:
        """An image file, or an image of the index by its id, with where it speaks for a text over it, as JPEG."""
        return self._send("POST", "/explain", **_one_image({"text": text}, image, id, sha256)).content

    def embed_texts(self, texts: Sequence[str]) -> schemas.EmbedResponse:
        """Embeddings of texts."""
        return self._form(schemas.EmbedResponse, "POST", "/embed", json={"texts": list(texts)})

    def embed_images(self, images: Sequence[bytes]) -> schemas.EmbedResponse:
        """Embeddings of image files."""
        return self._form(schemas.EmbedResponse, "POST", "/embed/image", files=_files("images", images))

    def thumbnail(self, id: str, sha256: str | None = None, side: int = 256) -> bytes:
        """An image of the index as JPEG, its longer side at most `side`."""
        path = f"/thumbnails/{quote(id, safe='')}"
        return self._send("GET", path, params={"side": side, **_hash(sha256)}).content

    def facets(self) -> schemas.FacetsResponse:
        """Keys and values that can be filtered by, with counts."""
        return self._form(schemas.FacetsResponse, "GET", "/facets")

    def info(self) -> schemas.ServiceInfo:
        """What the service is and what it holds."""
        return self._form(schemas.ServiceInfo, "GET", "/")

    def health(self) -> schemas.StatusResponse:
        """Whether the process answers."""
        return self._form(schemas.StatusResponse, "GET", "/health")

    def ready(self) -> schemas.StatusResponse:
        """Whether index, model and vector store answer a search."""
        return self._form(schemas.StatusResponse, "GET", "/ready")

    def prometheus(self) -> str:
        """Metrics of the service in Prometheus's text format."""
        return self._send("GET", "/metrics").text

    def _form(self, form: type[Form], method: str, path: str, **content: Any) -> Form:
        return form.model_validate_json(self._send(method, path, **content).content)

    def _send(self, method: str, path: str, **content: Any) -> httpx2.Response:
        response = self._http.request(method, self._url + path, headers=self._headers, **content)
        if not response.is_success:
            try:
                sentence = schemas.ErrorResponse.model_validate_json(response.content).error
            except ValueError:  # of a proxy before the service
                sentence = response.reason_phrase
            raise ApiError(response.status_code, sentence)
        return response


def _options(k: int, filter: Sequence[str], group_by: schemas.GroupBy) -> dict[str, Any]:
    return {"k": k, "filter": list(filter), **({"group_by": group_by} if group_by else {})}


def _hash(sha256: str | None) -> dict[str, str]:
    return {} if sha256 is None else {"sha256": sha256}


def _one_image(fields: dict[str, Any], image: bytes | None, id: str | None, sha256: str | None) -> dict[str, Any]:
    return {
        "data": fields | ({} if id is None else {"id": id}) | _hash(sha256),
        "files": _files("image", [] if image is None else [image]),
    }


def _files(name: str, images: Sequence[bytes]) -> list[tuple[str, tuple[str, bytes]]]:
    return [(name, ("image", image)) for image in images]  # no name of a file leaves this machine
