"""Error responses: one sentence as JSON, which quotes neither a local path nor a query."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from medclip.errors import UserError, WorkError
from medclip.plain_text import printable
from medclip.serve.schemas import ErrorResponse

LOG = logging.getLogger("medclip.serve")
DESCRIPTIONS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorResponse, "description": description}
    for status, description in {
        400: "Malformed HTTP or JSON",
        401: "API key missing or wrong",
        408: "The request did not arrive in time",
        413: "The body is too large",
        421: "Another host name than this service answers to",
        422: "The request cannot be answered as it stands",
        429: "Too many wrong API keys: see Retry-After",
        500: "A fault of this service",
        503: "Too many requests, or the index does not answer: see Retry-After",
        504: "The answer took too long",
    }.items()
}
NOT_FOUND: dict[int | str, dict[str, Any]] = {
    404: {"model": ErrorResponse, "description": "The index has no such image"}
}
SERVER_ERROR = "this service failed; its log says where."


class ImageNotFound(Exception):
    """The index has no image of that id."""


def error_response(status: int, sentence: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """A response of one sentence."""
    return JSONResponse({"error": printable(sentence)}, status, headers)  # a name in a request may be no Unicode


def error_location(error: BaseException) -> str:
    """Type and source line of an error, without its message, which may quote a request."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None:
        return type(error).__name__
    return f"{type(error).__name__} at {Path(traceback.tb_frame.f_code.co_filename).name}:{traceback.tb_lineno}"


STATUS: Mapping[type[Exception], int] = {UserError: 422, ImageNotFound: 404, WorkError: 503, TimeoutError: 504}
"""Of the errors that the service raises; any other is a fault of its own."""


async def _validation_error(request: Request, error: RequestValidationError) -> JSONResponse:
    first = error.errors()[0]  # its `input` quotes the request and is not sent back
    field = ".".join(str(part)[:40] for part in first["loc"] if part != "body")
    return error_response(422, f"{field}: {first['msg']}" if field else first["msg"])


async def _http_error(request: Request, error: HTTPException) -> JSONResponse:
    return error_response(error.status_code, str(error.detail), error.headers)


async def _known_error(request: Request, error: Exception) -> JSONResponse:
    headers = {"Retry-After": "5"} if isinstance(error, WorkError | TimeoutError) else None
    status = next((status for kind, status in STATUS.items() if isinstance(error, kind)), 500)
    return error_response(status, describe_error(error), headers)


def describe_error(error: Exception) -> str:
    """What a client may read of an error, in one sentence. What a client cannot mend is logged by its place."""
    match error:
        case UserError():
            return str(error)
        case ImageNotFound():
            return "the index has no such image."
        case TimeoutError():
            return "no answer in time."
        case WorkError():
            LOG.error("%s: %s", error_location(error), error)
            return "the index does not answer now; try again later."
        case _:
            return SERVER_ERROR


HANDLERS: dict[Any, Any] = {
    RequestValidationError: _validation_error,
    HTTPException: _http_error,
    **dict.fromkeys((*STATUS, Exception), _known_error),
}
