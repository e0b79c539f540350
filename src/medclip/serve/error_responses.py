"""What is answered where nothing can be: one sentence as JSON, which quotes neither a path of ours nor a query."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from medclip.errors import UserError, WorkError
from medclip.serve.schemas import Problem

LOG = logging.getLogger("medclip.serve")
DESCRIBED: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": said}
    for status, said in {
        400: "Not as HTTP or JSON has it",
        401: "No key, or a wrong one",
        408: "The request did not come in time",
        413: "The body is too large",
        422: "What was asked cannot be done",
        500: "A fault of this service",
        503: "Too much at once, or the index does not answer: Retry-After says when",
        504: "The answer took too long",
    }.items()
}
ABSENT: dict[int | str, dict[str, Any]] = {404: {"model": Problem, "description": "The index has no such image"}}


class Absent(Exception):
    """The index has no image of that id."""


def problem(status: int, sentence: str, headers: Any = None) -> JSONResponse:
    """The answer."""
    return JSONResponse({"error": sentence}, status, headers)


def place(error: BaseException) -> str:
    """Where an error came from, without its message: that may quote what a user sent."""
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    where = f" at {Path(at.tb_frame.f_code.co_filename).name}:{at.tb_lineno}" if at else ""
    return f"{type(error).__name__}{where}"


async def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
    first = error.errors()[0]  # its `input` is what was sent: that is not sent back
    at = ".".join(str(part)[:40] for part in first["loc"] if part != "body")
    return problem(422, f"{at}: {first['msg']}" if at else first["msg"])


async def _refused(request: Request, error: HTTPException) -> JSONResponse:
    return problem(error.status_code, str(error.detail), error.headers)


async def _cannot_be_done(request: Request, error: UserError) -> JSONResponse:
    return problem(422, str(error))


async def _absent(request: Request, error: Absent) -> JSONResponse:
    return problem(404, "the index has no such image.")


async def _does_not_answer(request: Request, error: WorkError) -> JSONResponse:
    LOG.error("%s: %s", place(error), error)
    return problem(503, "the index does not answer now; try again later.", {"Retry-After": "5"})


async def _late(request: Request, error: TimeoutError) -> JSONResponse:
    return problem(504, "no answer in time.", {"Retry-After": "5"})


async def _fault(request: Request, error: Exception) -> JSONResponse:
    return problem(500, "this service failed; its log says where.")


ANSWERS: dict[Any, Any] = {
    RequestValidationError: _invalid,
    HTTPException: _refused,
    UserError: _cannot_be_done,
    Absent: _absent,
    WorkError: _does_not_answer,
    TimeoutError: _late,
    Exception: _fault,
}
