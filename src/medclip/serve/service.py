"""The service behind the HTTP API, without HTTP: one open index and its model, used from many threads."""

from __future__ import annotations

import io
import json
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, ParamSpec, TypeVar

import jax
import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from medclip.data.decode_workers import DecodeWorkers
from medclip.data.images import header_size
from medclip.data.pixel_arrays import ImageInput
from medclip.encode.decode import decode_upload, decode_upload_thumbnail
from medclip.encode.encoder import embed_pixels, embed_texts
from medclip.errors import ImageError, UserError, WorkError
from medclip.model.checkpoint import Model, load
from medclip.model.image_processor import preprocess
from medclip.plain_text import PlainFormatter
from medclip.saliency import overlay_saliency, saliency_map
from medclip.search.index import Index
from medclip.search.match import SINGLE_TEXT, SearchResult, calibration_or_reason
from medclip.search.query import Query, SearchOptions, search_embedding, similar
from medclip.search.reader import IndexReader
from medclip.serve import metrics
from medclip.serve.batching import BatchedStore, Batcher
from medclip.serve.error_responses import ImageNotFound
from medclip.serve.gate import REQUEST_TIMEOUT_S
from medclip.zero_shot import classify

P = ParamSpec("P")
T = TypeVar("T")
MAX_THUMBNAIL_SIDE = 1024
MAX_REQUEST_THREADS = 32  # most of a request waits for a batch
NUM_DECODE_WORKERS = 2
DECODE_TIMEOUT_S = 10.0
CPU_BATCH_SIZES = (1, 2, 4, 8)  # on a CPU 64 together take about as long for each as 8 do (log)
ACCELERATOR_BATCH_SIZES = (1, 8, 64)
SCAN_BATCH_SIZE = 8
TEXT_LENGTHS = (16, 32)  # tokens: most queries are short, and each is compiled at the start
LOG = logging.getLogger("medclip.serve")


@dataclass(frozen=True)
class Settings:
    """Settings of a service."""

    index: Path
    model: Path | None = None
    """Where the index's model is now, if it has moved."""
    log_queries: bool = False
    warm_up: bool = True
    """Compile before the first request rather than for it."""


class StoredImage(NamedTuple):
    """An image of the index by its id, which several may have, as `1`; then its hash tells which."""

    id: str
    sha256: str | None = None


@dataclass(frozen=True, eq=False)
class _Encoder:
    """A model as work for a batcher, in few compiled shapes."""

    model: Model
    batch_sizes: Sequence[int]

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        return embed_texts(self.model, texts, batch_sizes=self.batch_sizes, lengths=TEXT_LENGTHS)

    def embed_pixels(self, pixels: Sequence[np.ndarray]) -> np.ndarray:
        return embed_pixels(self.model, np.stack(pixels), batch_sizes=self.batch_sizes)


class Service:
    """One for each process; `close` ends its threads and processes."""

    def __init__(self, settings: Settings):
        """Open the index and its model, and compile. UserError where either is missing or damaged."""
        self.settings = settings
        self.threads = ThreadPoolExecutor(MAX_REQUEST_THREADS, "request")
        self._batch_sizes = CPU_BATCH_SIZES if jax.default_backend() == "cpu" else ACCELERATOR_BATCH_SIZES
        self._model_batcher = Batcher(self._batch_sizes[1:], metrics.BATCH_SIZES.labels("model").observe)
        self._scan_batcher = Batcher((SCAN_BATCH_SIZE,), metrics.BATCH_SIZES.labels("index").observe)
        self._decode_workers = DecodeWorkers(NUM_DECODE_WORKERS, DECODE_TIMEOUT_S)
        self._open_lock = threading.Lock()
        self._index = self._open(None)
        if settings.warm_up:
            self._warm_up()

    def close(self) -> None:
        """Finish the requests in progress, then end."""
        self.threads.shutdown()
        self._model_batcher.close()
        self._scan_batcher.close()
        self._decode_workers.close()

    def index(self) -> Index:
        """The index as it is now: a request sees every change made before it. WorkError where it cannot be opened."""
        if not self._index.reader.is_current():
            with self._open_lock:
                if not self._index.reader.is_current():
                    try:
                        self._index = self._open(self._index)
                    except UserError as error:  # the old one must not answer: it holds what was deleted
                        LOG.error("the index cannot be opened again: %s", error)
                        raise WorkError("the index is being changed or damaged; try again later.") from None
        return self._index

    def check_ready(self) -> None:
        """Search once, from the index to its store. WorkError or TimeoutError where that does not answer."""
        reader = self.index().reader
        reader.nearest_rows(reader.sample_embeddings[:1], 1)

    def decode(self, images: Sequence[bytes]) -> tuple[UInt8[np.ndarray, "s s 3"], ...]:
        """Pixels of uploaded images, as the model takes them. UserError where one cannot be used."""
        processor = self.index().model.image_processor
        return tuple(self._decode(decode_upload, image, processor) for image in images)

    def search(self, queries: Sequence[Query], options: SearchOptions) -> list[SearchResult]:
        """See `Index.answer`; images are pixels from `decode`."""
        if self.settings.log_queries:
            log = [
                {"texts": query.texts, "negative_texts": query.negative_texts, "num_images": len(query.images)}
                for query in queries
            ]
            LOG.info("queries %s", json.dumps(log, ensure_ascii=True))  # so that a text cannot break a line of the log
        return self.index().answer(queries, options)

    def similar(self, image: StoredImage, options: SearchOptions) -> SearchResult:
        """See `medclip.search.query.similar`. Errors as of `_find_row`."""
        reader = self.index().reader
        return SearchResult(similar(reader, _find_row(reader, image), options), note=f"No probability: {SINGLE_TEXT}")

    def classify(self, image: StoredImage | UInt8[np.ndarray, "s s 3"], labels: Sequence[str]) -> list[float]:
        """Probabilities of labels, in their order, for an image of the index, or pixels from `decode`.

        Errors as of `_find_row`.
        """
        index = self.index()  # once: the next one may be of another model
        if isinstance(image, StoredImage):
            embeddings = index.reader.embeddings_at(np.array([_find_row(index.reader, image)]))
        else:
            embeddings = index.embed_queries([Query(images=(image,))])
        return classify(index.model, embeddings, labels, embed=index.text_encoder)[0].tolist()

    def explain(self, image: StoredImage | bytes, text: str) -> bytes:
        """Where an image, an upload or one of the index, speaks for a text, drawn over it as JPEG.

        See `medclip.saliency`; the longer side is at most MAX_THUMBNAIL_SIDE. Errors as of `_find_row`; UserError too
        where the upload cannot be used.
        """
        index = self.index()
        content = index.reader.image(_find_row(index.reader, image)) if isinstance(image, StoredImage) else image
        decoded = self._decode(decode_upload_thumbnail, content, MAX_THUMBNAIL_SIDE)
        saliency = saliency_map(
            index.model,
            decoded,
            text,
            index.text_encoder,
            lambda model, pixels: index.image_encoder(model, list(pixels)),  # so that it waits its turn as others do
        )
        return _jpeg(overlay_saliency(decoded, saliency))

    def embed(self, queries: Sequence[Query]) -> tuple[Float32[np.ndarray, "q p"], str]:
        """Embeddings of queries, and the SHA-256 of the model."""
        index = self.index()
        return index.embed_queries(queries), index.reader.manifest.model_sha256

    def thumbnail(self, image: StoredImage, side: int) -> bytes:
        """An image of the index as JPEG, its longer side at most `side`.

        Errors as of `_find_row`; UserError too where it cannot be decoded.
        """
        reader = self.index().reader
        with _image_errors():
            return self.shrink(reader.image(_find_row(reader, image)), side)

    def shrink(self, image: bytes, side: int) -> bytes:
        """The image of a hit as JPEG, its longer side at most `side`. Raises ImageError."""
        decoded = self._decode_workers.run(REQUEST_TIMEOUT_S, decode_upload_thumbnail, image, side)
        return image if image.startswith(b"\xff\xd8\xff") and max(header_size(image)) <= side else _jpeg(decoded)

    def _decode(self, decode: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        with _image_errors():
            return self._decode_workers.run(REQUEST_TIMEOUT_S, decode, *args, **kwargs)

    def _open(self, previous: Index | None) -> Index:
        reader = IndexReader(self.settings.index)
        reader.store = BatchedStore(reader.store, self._scan_batcher, REQUEST_TIMEOUT_S)
        metrics.INDEX_IMAGES.set(len(reader))
        if previous is not None and previous.reader.manifest.model_sha256 == reader.manifest.model_sha256:
            return replace(previous, reader=reader)
        folder = reader.model_path(self.settings.model)
        model = load(folder)
        encoder = _Encoder(model, self._batch_sizes)

        def embed_texts(model: Model, texts: Sequence[str]) -> np.ndarray:
            return np.stack(self._model_batcher.run(encoder.embed_texts, texts, REQUEST_TIMEOUT_S))

        def embed_pixels(model: Model, pixels: Sequence[ImageInput]) -> np.ndarray:
            return np.stack(self._model_batcher.run(encoder.embed_pixels, pixels, REQUEST_TIMEOUT_S))

        calibration = calibration_or_reason(folder, reader.manifest.model_sha256)
        return Index(reader, model, embed_texts, embed_pixels, calibration)

    def _warm_up(self) -> None:
        """Compile every shape, and load what a first query would."""
        reader, model = self._index.reader, self._index.model
        encoder = _Encoder(model, self._batch_sizes)
        with suppress(ImageError, WorkError):  # damaged, or slow on a busy machine: a query for it says so
            image = reader.image(int(np.flatnonzero(reader.live_mask)[0]))
            self._decode_workers.run(REQUEST_TIMEOUT_S, decode_upload, image, model.image_processor)
        pixels = preprocess(Image.new("RGB", (1, 1)), model.image_processor)
        for size in self._batch_sizes:
            for num_words in (1, *TEXT_LENGTHS):
                encoder.embed_texts(["a " * num_words] * size)
            encoder.embed_pixels([pixels] * size)
        search_embedding(reader, reader.sample_embeddings[0], SearchOptions())


def start_log() -> None:
    """Write what the service logs to stderr; no query, no path."""
    if logging.lastResort:  # of a command, without times
        logging.getLogger().removeHandler(logging.lastResort)
    handler = logging.StreamHandler()
    handler.setFormatter(PlainFormatter("%(asctime)s %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    LOG.setLevel(logging.INFO)


@contextmanager
def _image_errors() -> Iterator[None]:
    """UserError for an image that cannot be used."""
    try:
        yield
    except ImageError as error:
        raise UserError(f"the image: {error}.") from None


def _jpeg(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=90)
    return out.getvalue()


def _find_row(reader: IndexReader, image: StoredImage) -> int:
    """ImageNotFound where the index lacks the image, UserError where it has several of that id."""
    rows = reader.find_rows(*image)
    if not rows:
        raise ImageNotFound
    if len(rows) > 1:  # the first of them may show another patient
        raise UserError(f"{len(rows)} images of the index have that id: give the sha256 of the hit too.")
    return rows[0]
