"""The gate in front of the API: keys, concurrency, time and size limits, and headers and log lines of every response.

The log and the metrics name the template of a route, never the path.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from medclip import NOT_CLINICAL
from medclip.errors import UserError
from medclip.serve import metrics
from medclip.serve.error_responses import SERVER_ERROR, error_location, error_response

REQUEST_TIMEOUT_S = 30.0  # from the first byte of a request to the last of its response
MAX_IN_FLIGHT = 64
MAX_BODY_BYTES, MAX_UPLOAD_BYTES = 2**18, 32 * 2**20  # of a JSON body, and of one that holds images
MAX_TOTAL_BODY_BYTES = 8 * MAX_UPLOAD_BYTES  # of all bodies in progress
UPLOAD_PATHS = ("/search/image", "/classify", "/embed/image")
PUBLIC_PATHS = ("/health", "/ready")  # need no key
MIN_KEY_LENGTH = 16
LOG = logging.getLogger("medclip.serve")
RESPONSE_HEADERS = {
    "X-Notice": NOT_CLINICAL,
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",  # a deleted image must not live on in a cache
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


def read_keys(file: Path | None) -> list[bytes]:
    """API keys: the lines of a file, or MEDCLIP_API_KEY; none where neither is given.

    UserError where the file cannot be read or holds none, or a key is too short.
    """
    try:
        text = file.read_text(encoding="utf-8") if file else os.environ.get("MEDCLIP_API_KEY", "")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--api-key-file {file} cannot be read ({error}).") from None
    keys = text.split()
    if file and not keys:
        raise UserError(f"--api-key-file {file} holds no key.")
    if any(len(key) < MIN_KEY_LENGTH for key in keys):
        raise UserError(f"an API key has at least {MIN_KEY_LENGTH} characters: openssl rand -hex 32 makes one.")
    return [key.encode() for key in keys]


class Gate:
    """ASGI middleware around the API; one for each process."""

    def __init__(self, app: ASGIApp, keys: Sequence[bytes]):
        self.app = app
        self.num_in_flight = 0
        self._keys, self._body_bytes = keys, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry point."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, body, status = time.perf_counter(), _Body(scope), 0

        async def receive_within_limits() -> Message:
            message = await receive()
            if message["type"] == "http.request":
                self._body_bytes += body.add(message)
                if body.num_bytes > body.max_bytes:
                    raise _too_large(body.max_bytes)
                if self._body_bytes > MAX_TOTAL_BODY_BYTES:
                    raise _busy()
            return message

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).update(RESPONSE_HEADERS)
                if not body.is_complete:  # else the server would read on without end
                    MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        self.num_in_flight += 1
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                self._admit(scope, body.max_bytes)
                await self.app(scope, receive_within_limits, send_with_headers)
        except Exception as error:
            if not isinstance(error, (HTTPException, TimeoutError)):
                LOG.error("%s", error_location(error))
            if not status:
                await _response_to(error, body.is_complete)(scope, receive, send_with_headers)
        finally:
            self.num_in_flight -= 1
            self._body_bytes -= body.num_bytes
            _record(scope, status, time.perf_counter() - start)

    def _admit(self, scope: Scope, max_bytes: int) -> None:
        headers = Headers(scope=scope)
        if self._keys and scope["path"] not in PUBLIC_PATHS:
            scheme, _, token = headers.get("authorization", "").partition(" ")
            key = headers.get("x-api-key") or (token.strip() if scheme.lower() == "bearer" else "")
            # every key is compared, so that the time does not tell which one matched
            if not sum(hmac.compare_digest(key.encode("latin-1"), known_key) for known_key in self._keys):
                challenge = {"WWW-Authenticate": "Bearer"}
                raise HTTPException(401, "this needs a key: X-API-Key or Authorization: Bearer.", challenge)
        length = headers.get("content-length", "0")
        if not length.isdecimal() or len(length) > 18 or int(length) > max_bytes:
            raise _too_large(max_bytes)
        if self.num_in_flight > MAX_IN_FLIGHT and scope["path"] not in PUBLIC_PATHS:
            raise _busy()


class _Body:
    """How much of a request's body has arrived."""

    def __init__(self, scope: Scope):
        headers = Headers(scope=scope)
        self.max_bytes = MAX_UPLOAD_BYTES if scope["path"] in UPLOAD_PATHS else MAX_BODY_BYTES
        self.num_bytes = 0
        self.is_complete = headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers

    def add(self, message: Message) -> int:
        """Count a message; returns its bytes."""
        num_bytes = len(message.get("body", b""))
        self.num_bytes += num_bytes
        self.is_complete = not message.get("more_body", False)
        return num_bytes


def _response_to(error: Exception, body_is_complete: bool) -> JSONResponse:
    if isinstance(error, HTTPException):
        return error_response(error.status_code, error.detail, error.headers)
    if not isinstance(error, TimeoutError):
        return error_response(500, SERVER_ERROR)
    if body_is_complete:
        return error_response(504, f"no answer within {REQUEST_TIMEOUT_S:g} seconds.", {"Retry-After": "5"})
    return error_response(408, f"the request was not complete within {REQUEST_TIMEOUT_S:g} seconds.")


def _too_large(max_bytes: int) -> HTTPException:
    return HTTPException(413, f"the body of the request has more than {max_bytes} bytes.")


def _busy() -> HTTPException:
    return HTTPException(503, "too many requests at once; try again in a second.", {"Retry-After": "1"})


def _record(scope: Scope, status: int, seconds: float) -> None:
    route = getattr(scope.get("route"), "path", "none")
    metrics.REQUESTS.labels(route, str(status)).inc()
    metrics.REQUEST_SECONDS.labels(route).observe(seconds)
    LOG.info("%s %d %.0f ms", route, status, 1000 * seconds)
