"""The service as an MCP server over standard input and output: tools for agents, with the limits of the HTTP API.

Nothing listens on the network, no query is logged, and no tool reads a file: images come as base64.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools import Tool
from mcp.types import CallToolResult, ImageContent, TextContent
from pydantic import Base64Bytes, BaseModel, Field, create_model

from medclip import NOT_CLINICAL, __version__, jax_setup
from medclip.errors import ImageError, UserError

jax_setup.start()  # before anything imports JAX

from medclip.search.filters import parse_filter  # noqa: E402
from medclip.search.match import SearchResult  # noqa: E402
from medclip.search.query import Query, SearchOptions  # noqa: E402
from medclip.search.reader import Hit  # noqa: E402
from medclip.serve import schemas  # noqa: E402
from medclip.serve.error_responses import STATUS, describe_error, error_location  # noqa: E402
from medclip.serve.gate import MAX_UPLOAD_BYTES, REQUEST_TIMEOUT_S  # noqa: E402
from medclip.serve.responses import classify_response, require_one_image, search_result  # noqa: E402
from medclip.serve.service import Service, Settings, StoredImage, start_log  # noqa: E402
from medclip.stop_signals import handle_stop_signals  # noqa: E402

INSTRUCTIONS = f"""Search an index of radiology images by text and image. {NOT_CLINICAL}
Hits come best first with a cosine, a caption and a license; quote the license and the attribution of what you show.
`probabilities` and `no_match` say how far to believe them. Images of the first {{}} hits come with the answer."""
MAX_SHOWN_IMAGES, SHOWN_SIDE = 10, 256
LOG = logging.getLogger("medclip.serve")
T = TypeVar("T")

Image = Annotated[
    Base64Bytes, Field(max_length=MAX_UPLOAD_BYTES * 4 // 3 + 4, description="A PNG, JPEG or DICOM file in base64.")
]
Images = Annotated[list[Image], Field(max_length=schemas.MAX_IMAGES)]
Texts = Annotated[list[schemas.Text], Field(max_length=schemas.MAX_TEXTS)]
Labels = Annotated[list[schemas.Text], Field(min_length=2, max_length=schemas.MAX_LABELS)]
FilterItems = Annotated[
    list[schemas.FilterItem],
    Field(max_length=schemas.MAX_TEXTS, description="KEY=VALUE; a repeated key takes any of its values."),
]
IndexImageID = Annotated[schemas.ImageID | None, Field(description="An image of the index, in place of `image`.")]


def run(index: Path, model: Path | None) -> None:
    """Serve an index until standard input ends. UserError where the index or its model is missing or damaged."""
    start_log()
    logging.getLogger("mcp").setLevel(logging.CRITICAL)  # it would quote arguments
    service = Service(Settings(index, model, warm_up=False))  # hosts wait for an answer to their first message
    try:
        # a thread waits for the next message until the client closes its end: Python would wait for the thread
        with handle_stop_signals(lambda *_: os._exit(0)):
            make_server(service).run("stdio")
    finally:
        service.close()


def make_server(service: Service) -> MCPServer:
    """The tools of a service."""
    return MCPServer(
        "medclip",
        version=__version__,
        instructions=INSTRUCTIONS.format(MAX_SHOWN_IMAGES),
        tools=[_strict_tool(function) for function in (*_searches(service), *_questions(service))],
        log_level="CRITICAL",
    )


def _strict_tool(function: Callable[..., Any]) -> Tool:
    """A tool that refuses what it has no argument for; a misspelled filter would be passed over in silence."""
    tool = Tool.from_function(function)
    model = tool.fn_metadata.arg_model
    strict = create_model(model.__name__, __base__=model, __cls_kwargs__={"extra": "forbid"})
    tool.fn_metadata.arg_model, tool.parameters = strict, strict.model_json_schema(by_alias=True)
    return tool


def _searches(service: Service) -> tuple[Callable[..., Any], ...]:
    """The tools whose answers are hits."""

    async def search(
        texts: Texts = [],  # noqa: B006
        images: Images = [],  # noqa: B006
        negative_texts: Texts = [],  # noqa: B006
        k: schemas.K = 10,
        filter: FilterItems = [],  # noqa: B006
        group_by: schemas.GroupBy = None,
    ) -> Annotated[CallToolResult, schemas.SearchResult]:
        """The best images of the index for texts and images together, and away from the negative texts."""

        def work() -> CallToolResult:
            _check_size(images)
            query = Query(tuple(texts), service.decode(images), tuple(negative_texts))
            return _hits(service, service.search([query], SearchOptions(k, parse_filter(filter), group_by))[0])

        return await _answer(service, work)

    async def similar(
        id: schemas.ImageID,
        sha256: schemas.ImageHash = None,
        k: schemas.K = 10,
        filter: FilterItems = [],  # noqa: B006
        group_by: schemas.GroupBy = None,
    ) -> Annotated[CallToolResult, schemas.SearchResult]:
        """The images nearest to one of the index, without it and its duplicates."""

        def work() -> CallToolResult:
            options = SearchOptions(k, parse_filter(filter), group_by)
            return _hits(service, service.similar(StoredImage(id, sha256), options))

        return await _answer(service, work)

    return search, similar


def _questions(service: Service) -> tuple[Callable[..., Any], ...]:
    """The tools that ask about one image."""

    async def classify(
        labels: Labels, image: Image | None = None, id: IndexImageID = None, sha256: schemas.ImageHash = None
    ) -> Annotated[CallToolResult, schemas.ClassifyResponse]:
        """Zero-shot probabilities of labels, of which one is taken to be right."""

        def work() -> CallToolResult:
            source = _one_image(image, id, sha256)
            pixels = source if isinstance(source, StoredImage) else service.decode([source])[0]
            return _result(classify_response(labels, service.classify(pixels, labels)))

        return await _answer(service, work)

    async def explain(
        text: schemas.Text, image: Image | None = None, id: IndexImageID = None, sha256: schemas.ImageHash = None
    ) -> CallToolResult:
        """Where an image speaks for a text (orange) and against it (blue), drawn over the image."""

        def work() -> CallToolResult:
            overlay = service.explain(_one_image(image, id, sha256), text)
            return CallToolResult(content=[TextContent(text=NOT_CLINICAL), _jpeg_content(overlay)])

        return await _answer(service, work)

    return classify, explain


async def _answer(service: Service, work: Callable[[], T]) -> T:
    """What the work gives in a thread of the service. ToolError with a sentence that holds no path and no query."""
    try:
        result = asyncio.get_running_loop().run_in_executor(service.threads, work)
        return await asyncio.wait_for(result, REQUEST_TIMEOUT_S)
    except Exception as error:
        if not isinstance(error, tuple(STATUS)):
            LOG.error("%s", error_location(error))
        raise ToolError(describe_error(error)) from None


def _hits(service: Service, result: SearchResult) -> CallToolResult:
    images = (_image_content(service, hit) for hit in result.hits[:MAX_SHOWN_IMAGES])
    return _result(search_result(result), *images)


def _image_content(service: Service, hit: Hit) -> ImageContent | TextContent:
    """The image of a hit, by its content, as several may have one id; a sentence where it cannot be decoded."""
    try:
        return _jpeg_content(service.shrink(hit.image, SHOWN_SIDE))
    except ImageError as error:
        return TextContent(text=f"the image of {hit.id}: {error}.")


def _result(form: BaseModel, *images: ImageContent | TextContent) -> CallToolResult:
    texts = [TextContent(text=NOT_CLINICAL), TextContent(text=form.model_dump_json())]
    return CallToolResult(content=[*texts, *images], structured_content=form.model_dump(mode="json"))


def _jpeg_content(jpeg: bytes) -> ImageContent:
    return ImageContent(data=base64.b64encode(jpeg).decode(), mime_type="image/jpeg")


def _one_image(image: bytes | None, id: str | None, sha256: str | None) -> bytes | StoredImage:
    require_one_image(image, id, sha256)
    _check_size([] if image is None else [image])
    return StoredImage(str(id), sha256) if image is None else image


def _check_size(images: list[bytes]) -> None:
    if sum(map(len, images)) > MAX_UPLOAD_BYTES:
        raise UserError(f"the images have more than {MAX_UPLOAD_BYTES} bytes together.")
