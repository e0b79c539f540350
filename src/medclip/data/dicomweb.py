"""A DICOMweb server (QIDO-RS, WADO-RS; DICOM PS3.18): its address, who may be asked how, and what errors mean.

Errors and log lines of the libraries hold addresses with identifiers of patients, so none of them is shown.
"""

from __future__ import annotations

import http.client
import logging
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl, urlsplit

from medclip.data.dicom import silence_pydicom
from medclip.data.schema import WebInstance
from medclip.errors import ImageError, UserError, WorkError
from medclip.hosts import is_clear_text, is_loopback
from medclip.require import require

if TYPE_CHECKING:
    from dicomweb_client import DICOMwebClient
    from requests import PreparedRequest, Response

T = TypeVar("T")
TOKEN_VARIABLE = "MEDCLIP_DICOMWEB_TOKEN"
WAITS_S = (1.0, 4.0, 16.0)
"""Before the second, third and fourth try."""
TIMEOUT_S = (10.0, 60.0)
"""To connect, and between two pieces of an answer."""
NOT_RETRIEVED = "not retrieved from the server"
PAGE_STUDIES = 100
_TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*")  # RFC 6750, section 2.1
_UID = re.compile(r"[\w.-]{1,64}", re.ASCII)
_MAY_PASS = {408, 429, 500, 502, 503, 504}
_NOT_OF_THE_OBJECT = {429, 502, 503, 504}
_RESUMES = "What is whole is kept, and the same command goes on from there."


@dataclass(frozen=True)
class Search:
    """A server, and which of its studies."""

    url: str
    """https://HOST[:PORT]/PATH, or http."""
    query: tuple[tuple[str, str], ...]
    offset: int = 0
    limit: int | None = None


@dataclass(frozen=True)
class _Failure:
    error: Exception
    may_pass: bool
    """Whether another try makes sense."""


def parse_address(source: str) -> Search:
    """Read dicomweb://HOST[:PORT]/PATH?query, with the keys of QIDO-RS; `limit` and `offset` count studies.

    `dicomweb` is https, and http where the host is this machine's loopback; `dicomweb+https` and `dicomweb+http` are
    what they say. Raises UserError without the query, which may name a patient.
    """
    shown = source.partition("?")[0].rpartition("@")[2]
    try:
        parts = urlsplit(source)
        host, _ = parts.hostname or "", parts.port
        pairs = parse_qsl(parts.query, strict_parsing=bool(parts.query))
        numbers = {name: int(value) for name, value in pairs if name in ("limit", "offset")}
    except ValueError:
        raise UserError(f"{shown} is not an address of the form dicomweb://HOST[:PORT]/PATH?KEY=VALUE.") from None
    if parts.username is not None or parts.password is not None:
        raise UserError(f"no user or password in an address, which others can see: put a token into {TOKEN_VARIABLE}.")
    if not host or parts.fragment or min(numbers.values(), default=0) < 0:
        raise UserError(f"{shown} is not an address of the form dicomweb://HOST[:PORT]/PATH?KEY=VALUE.")
    secure = parts.scheme == "dicomweb+https" or (parts.scheme == "dicomweb" and not is_loopback(host))
    url = f"{'https' if secure else 'http'}://{parts.netloc.lower()}{parts.path.rstrip('/')}"
    query = tuple((name, value) for name, value in pairs if name not in numbers)
    return Search(url, query, numbers.get("offset", 0), numbers.get("limit"))


def search_studies(search: Search) -> list[str]:
    """UIDs of all matching studies, page by page, each once. Any failure is a WorkError: the list would be short."""
    query: dict[str, Any] = {}
    for name, value in search.query:
        query.setdefault(name, []).append(value)
    studies: dict[str, None] = {}
    offset = search.offset
    while search.limit is None or len(studies) < search.limit:
        size = PAGE_STUDIES if search.limit is None else min(PAGE_STUDIES, search.limit - len(studies))
        uids = _search_page(search.url, {**query, "limit": size, "offset": offset})
        is_repeated = bool(uids) and all(uid in studies for uid in uids)
        if is_repeated and len(uids) == size:
            raise WorkError(f"{host_of(search.url)} gives the first {size} studies only: narrow the search.")
        studies |= dict.fromkeys(uids)
        offset += len(uids)
        if not uids or is_repeated or len(uids) > size:  # the end, or all at once
            break
    return list(studies)[: search.limit]


def _search_page(url: str, query: dict[str, Any]) -> list[str]:
    def get(client: DICOMwebClient) -> list[str]:
        return [
            str(item["0020000D"]["Value"][0]) for item in _objects(client.search_for_studies(additional_params=query))
        ]

    try:
        return ask(url, get)
    except ImageError as error:
        raise WorkError(f"the search on {host_of(url)} failed: list of studies {error}.") from None


def study_headers(url: str, study: str) -> list[dict[str, Any]]:
    """The headers of all objects of a study, as DICOM JSON. Raises ImageError with the reason."""
    _check_uids(study)
    return ask(url, lambda client: _objects(client.retrieve_study_metadata(study)))


@lru_cache(1)  # the frames of one object follow each other
def retrieve(instance: WebInstance) -> bytes:
    """The DICOM file of an object as it is stored. Raises ImageError with the reason, WorkError for a lost server."""
    uids = instance.study, instance.series, instance.instance
    _check_uids(*uids)

    def get(client: DICOMwebClient) -> bytes:
        dataset: Any = client.retrieve_instance(*uids, media_types=(("application/dicom", "*"),))
        if dataset.get("SOPInstanceUID") != instance.instance:
            raise ValueError("another object")
        return dataset.buffer.getvalue()

    return ask(instance.url, get)


def ask(url: str, request: Callable[[DICOMwebClient], T]) -> T:
    """The answer to a request, made again after errors that may pass.

    Raises ImageError where the object cannot be had, and WorkError where the server cannot be reached, refuses access
    or is out of service: then nothing else can be had either.
    """
    client = open_client(url)
    for wait_s in (*WAITS_S, None):
        try:
            return request(client)
        except (UserError, WorkError):
            raise
        except Exception as error:  # of requests, urllib3, json, pydicom and the client, which shares no base class
            failure = _read_failure(error, host_of(url))
        if wait_s is None or not failure.may_pass:
            raise failure.error from None
        time.sleep(wait_s)
    raise AssertionError


def open_client(url: str) -> DICOMwebClient:
    """What asks a server; nothing is sent yet. UserError where its library is absent or the token may not be sent."""
    _silence_libraries()
    return _client(url, _token(url))


def host_of(url: str) -> str:
    """The host that a URL names, with its port."""
    return urlsplit(url).netloc


def _read_failure(error: Any, host: str) -> _Failure:
    """What an error means, without a word of it."""
    requests, urllib3 = require("requests", extra="dicom"), require("urllib3", extra="dicom")
    if isinstance(error, requests.HTTPError):
        return _read_status(getattr(error.response, "status_code", 500), host)
    if isinstance(error, requests.exceptions.SSLError):
        remedy = "Name the certificate of its authority with REQUESTS_CA_BUNDLE=FILE.pem"
        return _Failure(WorkError(f"{host}: no trusted TLS connection. {remedy}, or ask its administrator."), False)
    if isinstance(error, requests.TooManyRedirects):
        return _Failure(WorkError(f"{host} redirects to another address: give that one, if you trust it."), False)
    arguments = error.args[0] if error.args else None
    is_unreachable = isinstance(error, requests.ConnectTimeout | requests.exceptions.ProxyError)
    is_unreachable |= isinstance(error, requests.ConnectionError) and isinstance(
        arguments, urllib3.exceptions.MaxRetryError
    )
    if is_unreachable:
        return _Failure(WorkError(f"{host} cannot be reached. {_RESUMES}"), True)
    is_timeout = isinstance(error, requests.Timeout) or isinstance(arguments, urllib3.exceptions.ReadTimeoutError)
    if is_timeout:
        return _Failure(ImageError(f"{NOT_RETRIEVED}: no answer within {TIMEOUT_S[1]:.0f} seconds"), True)
    if isinstance(error, requests.RequestException) and not isinstance(error, ValueError):
        return _Failure(ImageError(f"{NOT_RETRIEVED}: the connection broke"), True)
    return _Failure(ImageError(f"{NOT_RETRIEVED}: an answer that is cut or not what was asked for"), True)


def _read_status(status: int, host: str) -> _Failure:
    answer = f"{status} {http.client.responses.get(status, '').lower()}".strip()
    if status == 401:
        remedy = f"Put a valid token into {TOKEN_VARIABLE}."
        return _Failure(WorkError(f"{host} refuses access ({answer}). {remedy} {_RESUMES}"), False)
    if status in _NOT_OF_THE_OBJECT:
        return _Failure(WorkError(f"{host} is out of service ({answer}). {_RESUMES}"), True)
    return _Failure(ImageError(f"{NOT_RETRIEVED}: {answer}"), status in _MAY_PASS)


@lru_cache(4)
def _client(url: str, token: str) -> DICOMwebClient:
    requests = require("requests", extra="dicom")
    dicomweb_client = require("dicomweb_client", extra="dicom")
    session = requests.Session()
    session.trust_env = url.startswith("https:")  # a proxy would carry clear text off this machine
    session.max_redirects = 0  # neither token nor query goes where the user did not point
    session.hooks["response"].append(_check_complete)

    def authorize(request: PreparedRequest) -> PreparedRequest:
        request.headers.pop("Host", None)  # the client leaves the port out of it
        if request.url:
            request.url = request.url.replace("%2A", "*")  # a wildcard, which Orthanc 1.10 does not decode
        if token:
            request.headers["Authorization"] = f"Bearer {token}"
        return request

    session.auth = authorize  # which also keeps requests from reading ~/.netrc
    client = dicomweb_client.DICOMwebClient(url, session=session, permissive_uid=True, timeout=TIMEOUT_S)
    client.set_http_retry_params(retry=False)  # it would not try again after a broken connection
    return client


def _check_complete(response: Response, **_: Any) -> None:
    """Refuse an answer of parts that lacks its end, which the client takes for whole (RFC 2046, section 5.1.1)."""
    content_type = response.headers.get("Content-Type", "")
    boundary = re.search(r'boundary="?([^";]+)', content_type, re.IGNORECASE)
    is_whole = boundary is None or f"--{boundary[1].strip()}--".encode() in response.content[-256:]
    if response.ok and content_type.lower().startswith("multipart/related") and not is_whole:
        raise ValueError("a cut answer")


def _token(url: str) -> str:
    """The token of the environment, "" where it has none. UserError where it may not be sent or is no token."""
    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    if token and not _TOKEN.fullmatch(token):
        raise UserError(f"{TOKEN_VARIABLE} is not a bearer token: letters, digits and -._~+/= only.")
    if token and is_clear_text(url):
        raise UserError(f"{TOKEN_VARIABLE} is not sent over clear text: use dicomweb:// (TLS), or unset the variable.")
    return token


def _objects(items: Any) -> list[dict[str, Any]]:
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise ValueError("not DICOM JSON")
    return items


def _check_uids(*uids: str) -> None:
    if not all(_UID.fullmatch(uid) and uid.strip(".") for uid in uids):
        raise ImageError(f"{NOT_RETRIEVED}: a UID that is none")


def _silence_libraries() -> None:
    for name in ("dicomweb_client", "urllib3"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    silence_pydicom()
