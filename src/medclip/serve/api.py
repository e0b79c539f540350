"""The HTTP API: routes, requests and responses. `service` does the work, `gate` holds the limits."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, TypeVar

import numpy as np
from fastapi import APIRouter, Depends, FastAPI, File, Form, Query, Request, Response, Security, UploadFile
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from fastapi.security import APIKeyHeader, HTTPBearer
from starlette.formparsers import MultiPartParser

from medclip import NOT_CLINICAL, __version__, jax_setup
from medclip.errors import UserError, WorkError, describe_error

jax_setup.start()  # before anything imports JAX

from medclip.search.filters import make_filter, parse_filter  # noqa: E402
from medclip.search.match import SearchResult  # noqa: E402
from medclip.search.query import Query as SearchQuery  # noqa: E402
from medclip.search.query import SearchOptions  # noqa: E402
from medclip.serve import error_responses, metrics, schemas  # noqa: E402
from medclip.serve.docs_page import docs_page  # noqa: E402
from medclip.serve.gate import MAX_UPLOAD_BYTES, Gate, accepts_name, read_keys  # noqa: E402
from medclip.serve.responses import (  # noqa: E402
    classify_response,
    embed_response,
    require_one_image,
    search_result,
    validation,
)
from medclip.serve.run import SETTINGS_VARIABLE  # noqa: E402
from medclip.serve.service import MAX_THUMBNAIL_SIDE, Service, Settings, StoredImage, start_log  # noqa: E402

DESCRIPTION = f"""Search an index of radiology images by text and image. **{NOT_CLINICAL}**

Every response other than 2xx is `{{"error": "one sentence"}}`. Paths in responses start at the root of this service.
Queries and uploaded images are not stored; of a DICOM file only pixels are used."""
FILTER_DESCRIPTION = "KEY=VALUE, such as modality=mri or added=2026-11-01..; a repeated key takes any of its values."
DOCS_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
MAX_FORM_FIELDS, MAX_FIELD_BYTES = 4 * schemas.MAX_TEXTS, 2**14

T = TypeVar("T")
MultiPartParser.spool_max_size = MAX_UPLOAD_BYTES + 1  # beyond 1 MB an upload would be written to a file


async def _refuse_unknown_names(request: Request) -> None:
    """UserError for a query parameter or a field of a form that the operation does not have; it is not quoted."""
    operation = request.scope["route"].dependant
    names = {
        "query": (request.query_params.keys(), {field.alias for field in operation.query_params}),
        "form": ((await request.form()).keys(), {field.alias for field in operation.body_params}),
    }
    for place, (given, known) in names.items():
        if given - known:
            listed = ", ".join(sorted(known)) or "none"
            raise UserError(f"a name in the {place} is none of this operation, which has {listed} in the {place}.")


router = APIRouter(responses=error_responses.DESCRIPTIONS, dependencies=[Depends(_refuse_unknown_names)])
monitoring = APIRouter(responses=error_responses.DESCRIPTIONS)


async def _service(request: Request) -> Service:
    return request.app.state.service


async def _in_thread(service: Service, work: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(service.threads, work)


ServiceParam = Annotated[Service, Depends(_service)]
ImagesParam = Annotated[
    list[UploadFile], File(min_length=1, max_length=schemas.MAX_IMAGES, description="PNG, JPEG, DICOM")
]
TextsParam = Annotated[list[schemas.Text], Form(max_length=schemas.MAX_TEXTS)]
ImageParam = Annotated[UploadFile | None, File(description="PNG, JPEG, DICOM")]
IndexImageID = Annotated[schemas.ImageID | None, Form(description="An image of the index, in place of `image`.")]
HashForm = Annotated[schemas.ImageHash, Form()]
HashQuery = Annotated[schemas.ImageHash, Query()]
FilterParam = Annotated[list[schemas.FilterItem], Form(max_length=schemas.MAX_TEXTS, description=FILTER_DESCRIPTION)]
FilterQuery = Annotated[list[schemas.FilterItem], Query(max_length=schemas.MAX_TEXTS, description=FILTER_DESCRIPTION)]
post_form = partial(
    router.post,
    form_limits={
        "max_files": schemas.MAX_IMAGES,
        "max_fields": MAX_FORM_FIELDS,
        "max_part_size": MAX_FIELD_BYTES,
    },
)


@router.post("/search")
async def search_by_text(request: schemas.SearchRequest, service: ServiceParam) -> schemas.SearchResponse:
    """The best images for each query, best first, near-duplicates merged."""
    if sum(len(item.texts) + len(item.negative_texts) for item in request.queries) > schemas.MAX_TEXTS:
        raise UserError(f"the queries have more than {schemas.MAX_TEXTS} texts together.")
    options = SearchOptions(request.k, make_filter(request.filter), request.group_by)
    queries = [SearchQuery(tuple(item.texts), negative_texts=tuple(item.negative_texts)) for item in request.queries]
    results = await _in_thread(service, lambda: service.search(queries, options))
    return schemas.SearchResponse(results=[search_result(result) for result in results])


@post_form("/search/image")
async def search_by_image(
    service: ServiceParam,
    images: ImagesParam,
    texts: TextsParam = [],  # noqa: B006
    negative_texts: TextsParam = [],  # noqa: B006
    k: Annotated[schemas.K, Form()] = 10,
    filter: FilterParam = [],  # noqa: B006
    group_by: Annotated[schemas.GroupBy, Form()] = None,
) -> schemas.SearchResult:
    """The best images for images and texts together."""
    files = await _read(images)
    options = SearchOptions(k, parse_filter(filter), group_by)

    def work() -> SearchResult:
        query = SearchQuery(tuple(texts), service.decode(files), tuple(negative_texts))
        return service.search([query], options)[0]

    return search_result(await _in_thread(service, work))


@router.get("/similar/{id:path}", responses=error_responses.NOT_FOUND)
async def similar(
    service: ServiceParam,
    id: schemas.ImageID,
    sha256: HashQuery = None,
    k: Annotated[schemas.K, Query()] = 10,
    filter: FilterQuery = [],  # noqa: B006
    group_by: Annotated[schemas.GroupBy, Query()] = None,
) -> schemas.SearchResult:
    """The images nearest to one of the index, without it and its duplicates."""
    options = SearchOptions(k, parse_filter(filter), group_by)
    image = StoredImage(id, sha256)
    return search_result(await _in_thread(service, lambda: service.similar(image, options)))


@post_form("/classify", responses=error_responses.NOT_FOUND)
async def classify(
    service: ServiceParam,
    labels: Annotated[list[schemas.Text], Form(min_length=2, max_length=schemas.MAX_LABELS)],
    image: ImageParam = None,
    id: IndexImageID = None,
    sha256: HashForm = None,
) -> schemas.ClassifyResponse:
    """Zero-shot probabilities of labels, of which one is taken to be right: the softmax of the model's scaled cosines.

    Each label is embedded in several templates and averaged.
    """
    require_one_image(image, id, sha256)
    files = await _read([image] if image else [])

    def work() -> list[float]:
        return service.classify(service.decode(files)[0] if id is None else StoredImage(id, sha256), labels)

    return classify_response(labels, await _in_thread(service, work))


@post_form(
    "/explain",
    response_class=Response,
    responses=error_responses.NOT_FOUND | {200: {"content": {"image/jpeg": {}}, "description": "The image, painted"}},
)
async def explain(
    service: ServiceParam,
    text: Annotated[schemas.Text, Form()],
    image: ImageParam = None,
    id: IndexImageID = None,
    sha256: HashForm = None,
) -> Response:
    """Where an image speaks for a text (orange) and against it (blue), drawn over it as JPEG.

    It shows what the model uses, at the cost of embedding 65 images.
    """
    require_one_image(image, id, sha256)
    files = await _read([image] if image else [])
    source = files[0] if id is None else StoredImage(id, sha256)
    content = await _in_thread(service, lambda: service.explain(source, text))
    return Response(content, media_type="image/jpeg")


@router.post("/embed")
async def embed_texts(request: schemas.EmbedRequest, service: ServiceParam) -> schemas.EmbedResponse:
    """Embeddings of texts."""
    queries = [SearchQuery((text,)) for text in request.texts]
    return embed_response(*await _in_thread(service, lambda: service.embed(queries)))


@post_form("/embed/image")
async def embed_images(service: ServiceParam, images: ImagesParam) -> schemas.EmbedResponse:
    """Embeddings of images."""
    files = await _read(images)

    def work() -> tuple[np.ndarray, str]:
        return service.embed([SearchQuery(images=(pixels,)) for pixels in service.decode(files)])

    return embed_response(*await _in_thread(service, work))


@router.get(
    "/thumbnails/{id:path}",
    response_class=Response,
    responses=error_responses.NOT_FOUND | {200: {"content": {"image/jpeg": {}}, "description": "The image"}},
)
async def thumbnail(
    service: ServiceParam,
    id: schemas.ImageID,
    sha256: HashQuery = None,
    side: Annotated[int, Query(ge=16, le=MAX_THUMBNAIL_SIDE, description="Of the longer side.")] = 256,
) -> Response:
    """An image of the index as JPEG, never enlarged."""
    content = await _in_thread(service, lambda: service.thumbnail(StoredImage(id, sha256), side))
    return Response(content, media_type="image/jpeg")


@router.get("/facets")
async def facets(service: ServiceParam) -> schemas.FacetsResponse:
    """Keys and values that can be filtered by, with counts, the most frequent first."""
    index = await _in_thread(service, lambda: service.index().reader)
    counts = await _in_thread(service, lambda: index.value_counts)
    return schemas.FacetsResponse(num_images=len(index), facets=counts)


@router.get("/")
async def info(service: ServiceParam) -> schemas.ServiceInfo:
    """What this service is and what it holds."""
    index = await _in_thread(service, service.index)
    return schemas.ServiceInfo(
        name="medclip",
        version=__version__,
        notice=NOT_CLINICAL,
        num_images=len(index),
        synthetic=index.reader.synthetic,
        model_sha256=index.reader.manifest.model_sha256,
        validation=validation(index.calibration),
        openapi="/openapi.json",
    )


@monitoring.get("/health")
async def health() -> schemas.StatusResponse:
    """Liveness: the process answers."""
    return schemas.StatusResponse(status="ok")


@monitoring.get("/ready")
async def ready(service: ServiceParam) -> schemas.StatusResponse:
    """Readiness: index, model and vector store answer a search."""
    await _in_thread(service, service.check_ready)
    return schemas.StatusResponse(status="ok")


@monitoring.get("/metrics", response_class=PlainTextResponse)
async def prometheus() -> PlainTextResponse:
    """Prometheus metrics of all workers together."""
    return PlainTextResponse(metrics.exposition())


@monitoring.get("/openapi.json", include_in_schema=False)
async def openapi(request: Request) -> JSONResponse:
    """The OpenAPI schema."""
    return JSONResponse(request.app.openapi())


@monitoring.get("/docs", include_in_schema=False)
async def docs(request: Request) -> HTMLResponse:
    """The OpenAPI schema as a page."""
    return HTMLResponse(docs_page(request.app.openapi()), headers={"Content-Security-Policy": DOCS_POLICY})


def create_app(settings: Settings, keys: list[bytes], accepts_name: Callable[[str], bool] = lambda name: True) -> Gate:
    """The ASGI application. It opens the index and the model at startup, and answers the host names it accepts."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        try:
            app.state.service = Service(settings)
        except (UserError, WorkError, OSError) as error:
            logging.getLogger("medclip.serve").error("%s", describe_error(error))
            raise SystemExit(1) from None
        yield
        app.state.service.close()

    # the gate checks the key before it reads a byte of the body; these dependencies only document it
    security = [Security(APIKeyHeader(name="X-API-Key", auto_error=False)), Security(HTTPBearer(auto_error=False))]
    app = FastAPI(
        title="medclip",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        openapi_url=None,  # FastAPI's documentation pages load scripts from other hosts: see `docs`
        generate_unique_id_function=lambda route: (
            route.name
        ),  # operations are named as their functions and the client's
        redirect_slashes=False,  # a redirect would trust the Host header
        dependencies=security if keys else [],
    )
    app.include_router(router)
    app.include_router(monitoring)
    for kind, handler in error_responses.HANDLERS.items():
        app.add_exception_handler(kind, handler)
    return Gate(app, keys, accepts_name)


def app_from_environment() -> Gate:
    """The application of a worker process, with the settings that `run.serve` put into the environment."""
    fields = json.loads(os.environ[SETTINGS_VARIABLE])
    settings = Settings(
        index=Path(fields["index"]),
        model=Path(fields["model"]) if fields["model"] else None,
        log_queries=fields["log_queries"],
    )
    key_file = Path(fields["key_file"]) if fields["key_file"] else None
    start_log()
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # a damaged form is the sender's fault
    keys = read_keys(key_file)
    accepts = partial(accepts_name, host=fields["host"], server_name=fields["server_name"], has_keys=bool(keys))
    return create_app(settings, keys, accepts)


async def _read(images: list[UploadFile]) -> list[bytes]:
    return [await image.read() for image in images]
