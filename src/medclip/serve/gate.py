"""What every request meets first: the key, how many there may be, how long one may take and how much it may send.

Also what every answer leaves with, and what is written down about it: the template of its route, never the path.
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
from medclip.serve.error_responses import place, problem

REQUEST_S = 30.0  # from the first byte of a request to the last of its answer
IN_FLIGHT = 64
MAX_BODY, MAX_UPLOAD = 2**18, 32 * 2**20  # bytes of a JSON body, and of one that holds images
MAX_HELD = 8 * MAX_UPLOAD  # bytes of all bodies at once
UPLOADS = ("/search/image", "/classify", "/embed/image")
OPEN = ("/health", "/ready")  # answered without a key
LEAST_KEY = 16
LOG = logging.getLogger("medclip.serve")
_HEADERS = {
    "X-Notice": NOT_CLINICAL,
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",  # a deleted image must not live on elsewhere
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


def read_keys(file: Path | None) -> list[bytes]:
    """The keys that open the API: the lines of a file, or MEDCLIP_API_KEY; none where neither is given.

    UserError where the file cannot be read, or a key is too short to be one.
    """
    try:
        said = file.read_text(encoding="utf-8") if file else os.environ.get("MEDCLIP_API_KEY", "")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--api-key-file {file} cannot be read ({error}).") from None
    keys = said.split()
    if file and not keys:
        raise UserError(f"--api-key-file {file} holds no key.")
    if any(len(key) < LEAST_KEY for key in keys):
        raise UserError(f"an API key has at least {LEAST_KEY} characters: openssl rand -hex 32 makes one.")
    return [key.encode() for key in keys]


class Gate:
    """Wraps the API. One for each process."""

    def __init__(self, app: ASGIApp, keys: Sequence[bytes]):
        self._app, self._keys = app, keys
        self._in_flight, self._held = 0, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status, held = time.perf_counter(), 0, 0
        sent = Headers(scope=scope)
        whole = sent.get("content-length", "0") == "0" and "transfer-encoding" not in sent
        most = MAX_UPLOAD if scope["path"] in UPLOADS else MAX_BODY

        async def receive_some() -> Message:
            nonlocal held, whole
            message = await receive()
            if message["type"] == "http.request":
                held += (size := len(message.get("body", b"")))
                self._held += size
                whole = not message.get("more_body", False)
                if held > most:
                    raise _too_large(most)
                if self._held > MAX_HELD:
                    raise _busy()
            return message

        async def send_out(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).update(_HEADERS)
                if not whole:  # else the server would read on, to no end
                    MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        self._in_flight += 1
        try:
            async with asyncio.timeout(REQUEST_S):
                self._admit(scope, most)
                await self._app(scope, receive_some, send_out)
        except HTTPException as error:
            if not status:
                await problem(error.status_code, error.detail, error.headers)(scope, receive, send_out)
        except Exception as error:
            late = isinstance(error, TimeoutError)
            if not late:
                LOG.error("%s", place(error))
            if not status:
                answer = _late(whole) if late else problem(500, "this service failed; its log says where.")
                await answer(scope, receive, send_out)
        finally:
            self._in_flight -= 1
            self._held -= held
            _note(scope, status, time.perf_counter() - began)

    def _admit(self, scope: Scope, most: int) -> None:
        headers = Headers(scope=scope)
        if self._keys and scope["path"] not in OPEN:
            scheme, _, token = headers.get("authorization", "").partition(" ")
            given = headers.get("x-api-key") or (token.strip() if scheme.lower() == "bearer" else "")
            # every key is compared, so that the time tells nothing of which it was
            if not sum(hmac.compare_digest(given.encode("latin-1"), key) for key in self._keys):
                raise HTTPException(401, "this needs a key: X-API-Key or Authorization: Bearer.", _CHALLENGE)
        length = headers.get("content-length", "0")
        if not length.isdecimal() or len(length) > 18 or int(length) > most:
            raise _too_large(most)
        if self._in_flight > IN_FLIGHT and scope["path"] not in OPEN:
            raise _busy()


_CHALLENGE = {"WWW-Authenticate": "Bearer"}


def _too_large(most: int) -> HTTPException:
    return HTTPException(413, f"the body of the request has more than {most} bytes.")


def _busy() -> HTTPException:
    return HTTPException(503, "too many requests at once; try again in a second.", {"Retry-After": "1"})


def _late(whole: bool) -> JSONResponse:
    if whole:
        return problem(504, f"no answer within {REQUEST_S:g} seconds.", {"Retry-After": "5"})
    return problem(408, f"the request was not whole within {REQUEST_S:g} seconds.")


def _note(scope: Scope, status: int, seconds: float) -> None:
    route = getattr(scope.get("route"), "path", "none")
    metrics.REQUESTS.labels(route, str(status)).inc()
    metrics.SECONDS.labels(route).observe(seconds)
    LOG.info("%s %d %.0f ms", route, status, 1000 * seconds)
