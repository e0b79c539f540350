"""The gate in front of the API: names, keys, limits of time, size and number, headers and log lines of every response.

The log and the metrics name the template of a route, never the path.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from pathlib import Path

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from medclip import NOT_CLINICAL
from medclip.bounded_files import read_text
from medclip.errors import UserError
from medclip.hosts import is_ip_address, is_loopback
from medclip.serve import metrics
from medclip.serve.error_responses import SERVER_ERROR, error_location, error_response

REQUEST_TIMEOUT_S = 30.0  # from the first byte of a request to the last of its response
BODY_TIMEOUT_S, MIN_BODY_BYTES_PER_S = 10.0, 2**14  # a body has 10 s, and a second more for each 16 kB of it
MAX_IN_FLIGHT = 64  # complete requests of one network; all others have as many again
MAX_BODY_BYTES, MAX_UPLOAD_BYTES = 2**18, 32 * 2**20  # of a JSON body, and of one that holds images
MAX_TOTAL_BODY_BYTES = 8 * MAX_UPLOAD_BYTES  # of bodies in progress, shared as requests are
UPLOAD_PATHS = ("/search/image", "/classify", "/explain", "/embed/image")
HEALTH_PATH = "/health"  # answered whatever else is in work
PUBLIC_PATHS = (HEALTH_PATH, "/ready", "/docs")  # need no key and tell nothing of the index
MIN_KEY_LENGTH = 16
MAX_WRONG_KEYS, WRONG_KEY_WINDOW_S, WRONG_KEY_DELAY_S = 20, 60.0, 1.0  # of a network; then each waits
LOG = logging.getLogger("medclip.serve")
RESPONSE_HEADERS = {
    "X-Notice": NOT_CLINICAL,
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",  # a deleted image must not live on in a cache
}
POLICY = "default-src 'none'; frame-ancestors 'none'"


def read_keys(file: Path | None) -> list[bytes]:
    """API keys: the lines of a file, or MEDCLIP_API_KEY; none where neither is given.

    UserError where what is given cannot be read or holds none, or a key is too short.
    """
    name = f"--api-key-file {file}" if file else "MEDCLIP_API_KEY"
    try:
        text = read_text(file) if file else os.environ.get(name)
        keys = (text or "").split()
        encoded = [key.encode() for key in keys]
    except (OSError, UnicodeError) as error:
        raise UserError(f"{name} cannot be read ({error}).") from None
    if text is not None and not keys:
        raise UserError(f"{name} holds no key.")
    if any(len(key) < MIN_KEY_LENGTH for key in keys):
        raise UserError(f"an API key has at least {MIN_KEY_LENGTH} characters: openssl rand -hex 32 makes one.")
    return encoded


def client_network(client: Sequence[object] | None) -> str:
    """What shares a limit: an IPv4 address, or 64 bits of an IPv6 one, whose rest a host may choose."""
    host = str(client[0]) if client else ""
    if not is_ip_address(host):
        return host
    address = ip_address(host)
    if address.version == 4:
        return host
    return str(address.ipv4_mapped or f"{int(address) >> 64:x}::/64")


def accepts_name(name: str, host: str, server_name: str, has_keys: bool) -> bool:
    """Whether a request for a host name is answered by a service that listens on `host`.

    A page of a foreign name that now leads to this machine (DNS rebinding) still asks for that name. It has no key. A
    literal address cannot be rebound.
    """
    if has_keys and not server_name:
        return True
    is_named = bool(name) and name in (host.lower(), server_name.lower())
    return is_named or is_loopback(name) or (is_ip_address(name) and not is_loopback(host))


class Gate:
    """ASGI middleware around the API; one for each process."""

    def __init__(self, app: ASGIApp, keys: Sequence[bytes], accepts_name: Callable[[str], bool] = lambda name: True):
        self.app = app
        self._key_hashes, self._accepts_name = [hashlib.sha256(key).digest() for key in keys], accepts_name
        self._requests, self._body_bytes, self._wrong_keys = _Shares(), _Shares(), _WrongKeys()

    @property
    def num_in_flight(self) -> int:
        """Complete requests that are not answered yet."""
        return self._requests.total

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry point."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, body, status = time.perf_counter(), _Body(scope), 0
        network = client_network(scope.get("client"))

        async def receive_within_limits() -> Message:
            message = await receive()
            if message["type"] == "http.request":
                self._body_bytes.add(network, body.add(message))
                timeout.reschedule(start_s + body.timeout_s)
                if body.num_bytes > body.max_bytes:
                    raise _too_large(body.max_bytes)
                if self._body_bytes.exceeds(network, MAX_TOTAL_BODY_BYTES):
                    raise _busy()
                self._count(network, body)
            return message

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                response_headers = MutableHeaders(scope=message)
                response_headers.update(RESPONSE_HEADERS)
                response_headers.setdefault("Content-Security-Policy", POLICY)
                if not body.is_complete:  # else the server would read on without end
                    response_headers["Connection"] = "close"
            await send(message)

        start_s = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout_at(start_s + body.timeout_s) as timeout:
                await self._admit(scope, network, body.max_bytes)
                self._count(network, body)
                await self.app(scope, receive_within_limits, send_with_headers)
        except Exception as error:
            if not isinstance(error, (HTTPException, TimeoutError)):
                LOG.error("%s", error_location(error))
            if not status:
                await _response_to(error, body)(scope, receive, send_with_headers)
        finally:
            self._requests.add(network, -body.is_counted)
            self._body_bytes.add(network, -body.num_bytes)
            _record(scope, status, time.perf_counter() - start)

    async def _admit(self, scope: Scope, network: str, max_bytes: int) -> None:
        headers = Headers(scope=scope)
        name = re.fullmatch(r"(\[[0-9a-f:.]+\]|[^][:@/]+)(:\d*)?", headers.get("host", ""), re.IGNORECASE)
        if not self._accepts_name(name[1].strip("[]").rstrip(".").lower() if name else ""):
            raise HTTPException(421, "this service does not answer to that host name; its --server-name can name one.")
        if self._key_hashes and scope["path"] not in PUBLIC_PATHS:
            await self._check_key(headers, network)
        length = headers.get("content-length", "0")
        if not length.isdecimal() or len(length) > 18 or int(length) > max_bytes:
            raise _too_large(max_bytes)

    async def _check_key(self, headers: Headers, network: str) -> None:
        """HTTPException for a missing or wrong key. The right one is never braked: a proxy's network is everybody's."""
        scheme, _, token = headers.get("authorization", "").partition(" ")
        key = headers.get("x-api-key") or (token.strip() if scheme.lower() == "bearer" else "")
        digest = hashlib.sha256(key.encode("latin-1")).digest()
        # every key is compared, so that the time does not tell which one matched, nor how long it is
        if sum(hmac.compare_digest(digest, known_hash) for known_hash in self._key_hashes):
            return
        if key and self._wrong_keys.add(network) > MAX_WRONG_KEYS:
            await asyncio.sleep(WRONG_KEY_DELAY_S)
            raise HTTPException(429, "too many wrong keys.", {"Retry-After": f"{WRONG_KEY_WINDOW_S:.0f}"})
        raise HTTPException(
            401, "this needs a key: X-API-Key or Authorization: Bearer.", {"WWW-Authenticate": "Bearer"}
        )

    def _count(self, network: str, body: _Body) -> None:
        """Count a request that is complete: a slow body takes nobody's turn. HTTPException where there are too many."""
        if not body.is_complete or body.is_counted or body.path == HEALTH_PATH:
            return
        body.is_counted = True
        self._requests.add(network, 1)
        if self._requests.exceeds(network, MAX_IN_FLIGHT):
            raise _busy()


class _Shares:
    """Amounts in use, by network.

    One network alone may have `limit`, and as much again is there for others, of which each may have what is free.
    """

    def __init__(self):
        self.total = 0
        self._by_network: Counter[str] = Counter()

    def add(self, network: str, amount: int) -> None:
        self.total += amount
        self._by_network[network] += amount
        if not self._by_network[network]:
            del self._by_network[network]

    def exceeds(self, network: str, limit: int) -> bool:
        return self._by_network[network] > 2 * limit - self.total


class _WrongKeys:
    """Wrong keys of each network in the present window of time."""

    def __init__(self):
        self._counts: Counter[str] = Counter()
        self._end = 0.0

    def add(self, network: str) -> int:
        """Count one; returns how many there are."""
        if (now := time.monotonic()) > self._end:
            self._counts.clear()
            self._end = now + WRONG_KEY_WINDOW_S
        self._counts[network] += 1
        return self._counts[network]


class _Body:
    """How much of a request's body has arrived."""

    def __init__(self, scope: Scope):
        headers = Headers(scope=scope)
        self.path = scope["path"]
        self.max_bytes = MAX_UPLOAD_BYTES if self.path in UPLOAD_PATHS else MAX_BODY_BYTES
        self.num_bytes, self.is_counted = 0, False
        self.is_complete = headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers

    @property
    def timeout_s(self) -> float:
        """From the start of the request to its next step: the end of its body, or of its response."""
        if self.is_complete:
            return REQUEST_TIMEOUT_S
        return min(REQUEST_TIMEOUT_S, BODY_TIMEOUT_S + self.num_bytes / MIN_BODY_BYTES_PER_S)

    def add(self, message: Message) -> int:
        """Count a message; returns its bytes."""
        num_bytes = len(message.get("body", b""))
        self.num_bytes += num_bytes
        self.is_complete = not message.get("more_body", False)
        return num_bytes


def _response_to(error: Exception, body: _Body) -> JSONResponse:
    if isinstance(error, HTTPException):
        return error_response(error.status_code, error.detail, error.headers)
    if not isinstance(error, TimeoutError):
        return error_response(500, SERVER_ERROR)
    if body.is_complete:
        return error_response(504, f"no answer within {REQUEST_TIMEOUT_S:g} seconds.", {"Retry-After": "5"})
    return error_response(408, f"the request was not complete within {body.timeout_s:.3g} seconds.")


def _too_large(max_bytes: int) -> HTTPException:
    return HTTPException(413, f"the body of the request has more than {max_bytes} bytes.")


def _busy() -> HTTPException:
    return HTTPException(503, "too many requests at once; try again in a second.", {"Retry-After": "1"})


def _record(scope: Scope, status: int, seconds: float) -> None:
    route = getattr(scope.get("route"), "path", "none")
    metrics.REQUESTS.labels(route, str(status)).inc()
    metrics.REQUEST_SECONDS.labels(route).observe(seconds)
    LOG.info("%s %d %.0f ms", route, status, 1000 * seconds)
