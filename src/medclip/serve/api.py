"""The HTTP API: routes, what they take and what they answer. The work is `service`'s, the limits are `limits`'."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar
from urllib.parse import quote

from fastapi import APIRouter, Depends, FastAPI, File, Form, Query, Request, Response, Security, UploadFile
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.security import APIKeyHeader, HTTPBearer
from starlette.formparsers import MultiPartParser

from medclip import NOT_CLINICAL, __version__, jax_setup
from medclip.errors import UserError

jax_setup.start()  # before anything imports JAX

from medclip.search import index, query  # noqa: E402
from medclip.search.filters import parse_filter, where  # noqa: E402
from medclip.serve import error_responses, metrics, schemas  # noqa: E402
from medclip.serve.gate import MAX_UPLOAD, Gate, read_keys  # noqa: E402
from medclip.serve.service import Service, Settings  # noqa: E402

SETTINGS = "MEDCLIP_SERVE"
"""The environment's variable by which the command reaches its workers."""
DESCRIPTION = f"""Search an index of radiology images by words and images. **{NOT_CLINICAL}**

Every answer that is no 2xx is `{{"error": "one sentence"}}`. Paths in answers begin at the root of this service.
Queries and uploaded images are not stored; of a DICOM file only pixels are looked at."""

T = TypeVar("T")
MultiPartParser.spool_max_size = MAX_UPLOAD + 1  # an upload would go to a file beyond 1 MB

router = APIRouter(responses=error_responses.DESCRIBED)


async def _service(request: Request) -> Service:
    return request.app.state.service


async def _in_thread(service: Service, work: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(service.threads, work)


Served = Annotated[Service, Depends(_service)]
Pictures = Annotated[
    list[UploadFile], File(min_length=1, max_length=schemas.MAX_IMAGES, description="PNG, JPEG, DICOM")
]
_SAID = "KEY=VALUE, for example modality=mri or added=2026-11-01..; the same key again takes either value."
_SEVERAL = {"max_length": schemas.MAX_TEXTS}
_FORM = {"max_files": schemas.MAX_IMAGES, "max_fields": 4 * schemas.MAX_TEXTS, "max_part_size": 2**14}


@router.post("/search")
async def search_by_words(asked: schemas.Search, served: Served) -> schemas.SearchResponse:
    """The best images for each query, best first, each image once."""
    if sum(len(one.texts) + len(one.without) for one in asked.queries) > schemas.MAX_TEXTS:
        raise UserError(f"the queries have more than {schemas.MAX_TEXTS} texts together.")
    wanted = query.SearchOptions(asked.k, where(asked.where), asked.one_per_article)
    queries = [query.Query(tuple(one.texts), without=tuple(one.without)) for one in asked.queries]
    found = await _in_thread(served, lambda: served.search(queries, wanted, asked.ensemble))
    return schemas.SearchResponse(answers=[_hits(hits) for hits in found])


@router.post("/search/image", form_limits=_FORM)
async def search_by_pictures(
    served: Served,
    images: Pictures,
    texts: Annotated[list[schemas.Text], Form(**_SEVERAL)] = [],  # noqa: B006
    without: Annotated[list[schemas.Text], Form(**_SEVERAL)] = [],  # noqa: B006
    k: Annotated[schemas.K, Form()] = 10,
    where: Annotated[list[schemas.Value], Form(description=_SAID, **_SEVERAL)] = [],  # noqa: B006
    one_per_article: Annotated[bool, Form()] = False,
    ensemble: Annotated[bool, Form()] = False,
) -> schemas.Hits:
    """The best images for images and words together: like these, and as the words say."""
    files = await _read(images)
    wanted = query.SearchOptions(k, parse_filter(where), one_per_article)

    def work() -> list[index.Hit]:
        asked = query.Query(tuple(texts), served.pixels(files), tuple(without))
        return served.search([asked], wanted, ensemble)[0]

    return _hits(await _in_thread(served, work))


@router.get("/similar/{id:path}", responses=error_responses.ABSENT)
async def similar(
    served: Served,
    id: schemas.ID,
    k: Annotated[schemas.K, Query()] = 10,
    where: Annotated[list[schemas.Value], Query(description=_SAID, **_SEVERAL)] = [],  # noqa: B006
    one_per_article: bool = False,
) -> schemas.Hits:
    """The images nearest to one of the index, itself and its copies left out."""
    wanted = query.SearchOptions(k, parse_filter(where), one_per_article)
    return _hits(await _in_thread(served, lambda: served.similar(id, wanted)))


@router.post("/classify", responses=error_responses.ABSENT, form_limits=_FORM)
async def classify(
    served: Served,
    labels: Annotated[list[schemas.Text], Form(min_length=2, max_length=schemas.MAX_LABELS)],
    image: Annotated[UploadFile | None, File(description="PNG, JPEG, DICOM")] = None,
    id: Annotated[schemas.ID | None, Form(description="Of an image of the index, in place of `image`.")] = None,
) -> schemas.Classes:
    """How probable each label is, where one of them is right: the softmax of the model's scaled cosines.

    Each label is said in several ways, whose mean it stands for.
    """
    if (image is None) == (id is None):
        raise UserError("give an image, or the id of one of the index: one of both.")
    files = await _read([image] if image else [])

    def work() -> list[float]:
        pixels = served.pixels(files)
        return served.classify(pixels[0] if pixels else None, id, labels).tolist()

    told = await _in_thread(served, work)
    shown = [schemas.Probability(label=label, probability=p) for label, p in zip(labels, told, strict=True)]
    return schemas.Classes(best=max(shown, key=lambda one: one.probability).label, labels=shown)


@router.post("/embed")
async def embed_texts(asked: schemas.Texts, served: Served) -> schemas.Vectors:
    """Unit vectors of texts."""
    return _vectors(*await _in_thread(served, lambda: served.embed(texts=asked.texts)))


@router.post("/embed/image", form_limits=_FORM)
async def embed_pictures(served: Served, images: Pictures) -> schemas.Vectors:
    """Unit vectors of images."""
    files = await _read(images)
    return _vectors(*await _in_thread(served, lambda: served.embed(pixels=served.pixels(files))))


@router.get(
    "/thumbnails/{id:path}",
    response_class=Response,
    responses=error_responses.ABSENT | {200: {"content": {"image/jpeg": {}}, "description": "The image"}},
)
async def thumbnail(
    served: Served, id: schemas.ID, side: Annotated[int, Query(ge=16, le=1024, description="Of the longer side.")] = 256
) -> Response:
    """An image of the index, never enlarged."""
    return Response(await _in_thread(served, lambda: served.thumbnail(id, side)), media_type="image/jpeg")


@router.get("/facets")
async def facets(served: Served) -> schemas.Facets:
    """What can be filtered by, with counts, the most frequent first."""
    now = await _in_thread(served, lambda: served.searcher().index)
    return schemas.Facets(pictures=len(now), facets=await _in_thread(served, lambda: now.counts))


@router.get("/")
async def about(served: Served) -> schemas.About:
    """What this service is and holds."""
    now = (await _in_thread(served, served.searcher)).index
    return schemas.About(
        name="medclip",
        version=__version__,
        notice=NOT_CLINICAL,
        pictures=len(now),
        synthetic=now.synthetic,
        model_sha256=now.contents.model_sha256,
        openapi="/openapi.json",
    )


@router.get("/health")
async def health() -> schemas.State:
    """Whether the process answers."""
    return schemas.State(status="ok")


@router.get("/ready")
async def ready(served: Served) -> schemas.State:
    """Whether a search would be answered: index, model and store are there."""
    await _in_thread(served, served.ready)
    return schemas.State(status="ok")


@router.get("/metrics", response_class=PlainTextResponse)
async def prometheus() -> PlainTextResponse:
    """For Prometheus; of all workers together."""
    return PlainTextResponse(metrics.exposition())


@router.get("/openapi.json", include_in_schema=False)
async def openapi(request: Request) -> JSONResponse:
    """What this API is, for programs."""
    return JSONResponse(request.app.openapi())


def create(settings: Settings, keys: list[bytes]) -> Gate:
    """The ASGI application. It opens the index and the model when it starts."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        try:
            app.state.service = Service(settings)
        except UserError as error:
            logging.getLogger("medclip.serve").error("%s", error)
            raise SystemExit(1) from None
        yield
        app.state.service.close()

    # FastAPI's own pages of documentation load scripts from elsewhere; a schema needs none
    app = FastAPI(
        title="medclip",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        openapi_url=None,
        redirect_slashes=False,  # a redirect would take the Host header's word for where it is
        # the gate asks for the key before a byte of the body is read; these tell the schema so
        dependencies=[
            Security(APIKeyHeader(name="X-API-Key", auto_error=False)),
            Security(HTTPBearer(auto_error=False)),
        ]
        if keys
        else [],
    )
    app.include_router(router)
    for kind, answer in error_responses.ANSWERS.items():
        app.add_exception_handler(kind, answer)
    return Gate(app, keys)


def from_environment() -> Gate:
    """The application as the command told its workers to make it."""
    said = json.loads(os.environ[SETTINGS])
    paths = {name: Path(said[name]) if said[name] else None for name in ("index", "model", "key_file")}
    settings = Settings(**paths, log_queries=said["log_queries"])
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(message)s", level=logging.WARNING)
    logging.getLogger("medclip.serve").setLevel(logging.INFO)
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # a damaged form is the sender's affair
    return create(settings, read_keys(settings.key_file))


async def _read(images: list[UploadFile]) -> list[bytes]:
    return [await image.read() for image in images]


def _hits(hits: list[index.Hit]) -> schemas.Hits:
    return schemas.Hits(
        hits=[
            schemas.Hit(
                **{
                    name: getattr(hit, name) for name in schemas.Hit.model_fields if name not in ("copies", "thumbnail")
                },
                copies=list(hit.copies),
                thumbnail=f"/thumbnails/{quote(hit.id, safe='')}",
            )
            for hit in hits
        ]
    )


def _vectors(vectors: Any, model_sha256: str) -> schemas.Vectors:
    return schemas.Vectors(vectors=vectors.tolist(), dimensions=vectors.shape[1], model_sha256=model_sha256)
