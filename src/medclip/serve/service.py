"""An index and its model at work for many: what the HTTP API asks, without HTTP."""

from __future__ import annotations

import io
import json
import logging
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from medclip.data.images import decode
from medclip.encode.encoder import embed_pixels, embed_texts
from medclip.errors import ImageError, UserError, WorkError
from medclip.model.checkpoint import Model, load
from medclip.search.index import Hit, Index
from medclip.search.query import Query, Searcher, SearchOptions, query_embeddings, search, search_embedding, similar
from medclip.serve import metrics
from medclip.serve.batching import Batcher, JoinedStore
from medclip.serve.decode_workers import Decoders
from medclip.serve.error_responses import Absent
from medclip.serve.gate import REQUEST_S
from medclip.zero_shot import classify

THREADS = 32  # requests that are worked on at once; most of each waits for a batch
DECODERS = 2
LENGTHS = (16, 32)  # tokens: most queries are short, and a text tower's time is that of its length
LOG = logging.getLogger("medclip.serve")


@dataclass(frozen=True)
class Settings:
    """What the command was told."""

    index: Path
    model: Path | None = None
    key_file: Path | None = None
    log_queries: bool = False


@dataclass(frozen=True, eq=False)
class _Encoder:
    """A model as work for a batcher: texts with texts, images with images, in few compiled shapes."""

    model: Model
    sizes: Sequence[int]

    def texts(self, texts: list[str]) -> np.ndarray:
        return embed_texts(self.model, texts, sizes=self.sizes, lengths=LENGTHS)

    def pixels(self, pixels: list[np.ndarray]) -> np.ndarray:
        return embed_pixels(self.model, np.stack(pixels), sizes=self.sizes)


class Service:
    """Opened once for each process, used from many threads; `close` ends its threads and processes."""

    def __init__(self, settings: Settings):
        """Open the index and its model, and compile. UserError where either is not as it should be."""
        # on a CPU 64 together take about as long for each as 8 do (log)
        self._sizes = (1, 2, 4, 8) if jax.default_backend() == "cpu" else (1, 8, 64)
        self.settings = settings
        self.threads = ThreadPoolExecutor(THREADS, "request")
        self._encoding = Batcher(self._sizes[1:], metrics.BATCHES.labels("model").observe)
        self._scanning = Batcher((8,), metrics.BATCHES.labels("index").observe)
        self._decoders = Decoders(DECODERS)
        self._opening = threading.Lock()
        self._searcher = self._opened(None)
        self._warm()

    def close(self) -> None:
        """Finish what is at work, then end."""
        self.threads.shutdown()
        for part in (self._encoding, self._scanning, self._decoders):
            part.close()

    def searcher(self) -> Searcher:
        """The index as it is now: a request that comes after a change sees the change. WorkError where it cannot."""
        if not self._searcher.index.is_current():
            with self._opening:
                if not self._searcher.index.is_current():
                    try:
                        self._searcher = self._opened(self._searcher)
                    except UserError as error:  # what was deleted must not answer from the old one
                        LOG.error("the index cannot be opened again: %s", error)
                        raise WorkError("the index is being changed or damaged; try again later.") from None
        return self._searcher

    def ready(self) -> None:
        """A whole search, from the index to its store. WorkError or TimeoutError where that does not answer."""
        index = self.searcher().index
        index.search(index.sample[:1], 1)

    def pixels(self, images: Sequence[bytes]) -> tuple[np.ndarray, ...]:
        """Uploaded images as the model takes them, u8 (s, s, 3) each. UserError where one cannot be used."""
        preprocessor = self.searcher().model.preprocessor
        try:
            return tuple(self._decoders.fit(image, preprocessor, REQUEST_S) for image in images)
        except ImageError as error:
            raise UserError(f"the image: {error}.") from None

    def search(self, queries: Sequence[Query], wanted: SearchOptions, ensemble: bool) -> list[list[Hit]]:
        """See `medclip.search.query.search`; images as `pixels` gives them."""
        if self.settings.log_queries:
            told = [{"texts": q.texts, "without": q.without, "pictures": len(q.images)} for q in queries]
            LOG.info("queries %s", json.dumps(told, ensure_ascii=True))  # no line break of theirs in the log
        return search(self.searcher(), queries, wanted, ensemble)

    def similar(self, id: str, wanted: SearchOptions) -> list[Hit]:
        """See `medclip.search.query.similar`. Absent where there is no such image."""
        index = self.searcher().index
        _row(index, id)
        return similar(index, id, wanted)

    def classify(self, pixels: np.ndarray | None, id: str | None, labels: Sequence[str]) -> np.ndarray:
        """Probabilities (k,) of labels for an image that was uploaded, or that has an id of the index."""
        searcher = self.searcher()
        if id is not None:
            picture = searcher.index.vectors_of(np.array([_row(searcher.index, id)]))
        else:
            picture = query_embeddings(searcher, [Query(images=(pixels,))])
        return classify(searcher.model, picture, labels, embed=searcher.texts)[0]

    def embed(self, texts: Sequence[str] = (), pixels: Sequence[np.ndarray] = ()) -> tuple[np.ndarray, str]:
        """Unit vectors of texts and images, and the hash of the model."""
        searcher = self.searcher()
        asked = [*(Query((text,)) for text in texts), *(Query(images=(picture,)) for picture in pixels)]
        return query_embeddings(searcher, asked), searcher.index.contents.model_sha256

    def thumbnail(self, id: str, side: int) -> bytes:
        """The image of an id as JPEG, its longer side at most `side`. Absent where there is none."""
        index = self.searcher().index
        stored = index.rows.column("image")[_row(index, id)].as_py()
        picture = decode(stored)
        if max(picture.size) <= side:
            return stored
        picture.thumbnail((side, side), Image.Resampling.BICUBIC)
        out = io.BytesIO()
        picture.save(out, "JPEG", quality=90)
        return out.getvalue()

    def _opened(self, before: Searcher | None) -> Searcher:
        index = Index(self.settings.index)
        same = before is not None and before.index.contents.model_sha256 == index.contents.model_sha256
        model = before.model if same else load(index.model(self.settings.model))
        index.store = JoinedStore(index.store, self._scanning, REQUEST_S)
        metrics.PICTURES.set(len(index))
        if same:
            return Searcher(index, model, before.texts, before.images)
        encoder = _Encoder(model, self._sizes)
        return Searcher(
            index,
            model,
            lambda _, texts: np.stack(self._encoding.run(encoder.texts, texts, REQUEST_S)),
            lambda _, pixels: np.stack(self._encoding.run(encoder.pixels, pixels, REQUEST_S)),
        )

    def _warm(self) -> None:
        """Compile every shape, and run what a first question would load."""
        searcher = self._searcher
        encoder = _Encoder(searcher.model, self._sizes)
        image = searcher.index.rows.column("image")[int(np.flatnonzero(searcher.index.live)[0])].as_py()
        pixels = self._decoders.fit(image, searcher.model.preprocessor, REQUEST_S)
        for size in self._sizes:
            for words in (1, *LENGTHS):
                encoder.texts(["a " * words] * size)
            vectors = encoder.pixels([pixels] * size)
        search_embedding(searcher.index, vectors[0], SearchOptions())


def _row(index: Index, id: str) -> int:
    try:
        return index.row(id)
    except UserError:  # which names the folder
        raise Absent from None
