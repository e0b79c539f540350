"""Commands that make embeddings and indexes, change an index, and search it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from medclip.cli.args import (
    Cache,
    CorrectionsFile,
    Data,
    Index,
    IndexModel,
    MaxSamples,
    Model,
    OnRay,
    OutFile,
    Positional,
    Repeated,
    Seed,
    SplitName,
    index_model,
)
from medclip.cli.format import Output
from medclip.cli.index_tables import hits_json, map_lists, map_tables, result_tables
from medclip.errors import UserError, WorkError


@dataclass(frozen=True, kw_only=True)
class Embed:
    """Write the unit vectors of a split's images and captions as .npy files. A killed call goes on where it was."""

    model: Model
    data: Data
    out: Path
    """A new folder for images.npy, texts.npy (row i of both is pair i), ids.txt and embedding.json."""
    split: SplitName = None
    max_samples: MaxSamples = None
    kinds: tuple[Literal["images", "captions"], ...] = ("images", "captions")
    """What to embed."""
    backend: Literal["jax", "auto", "onnxruntime", "openvino", "openvino-bf16"] = "jax"
    """Library that runs the model; embedding.json names it. auto: the fastest on this CPU in float32, measured once for
    each model and remembered. openvino-bf16 rounds to bfloat16, which moves vectors by 4e-3."""
    cache: Cache = True
    ray: OnRay = False
    output: Output

    def run(self) -> Embed:
        from medclip.search.embed import embed

        kinds = tuple(dict.fromkeys(self.kinds))
        pairs = embed(
            self.model, self.data, self.out, self.split, self.max_samples, kinds, self.backend, self.cache, self.ray
        )
        self.output.show({"out": str(self.out), "pairs": pairs}, [f"embeddings of {pairs} pairs in {self.out}"])
        return self


@dataclass(frozen=True, kw_only=True)
class Build:
    """Embed every image of a split into a new index, which search, serve and app open. A killed call goes on."""

    model: Model
    data: Data
    out: Path
    """The index's new folder. To add to one that exists: medclip index add."""
    split: SplitName = None
    max_samples: MaxSamples = None
    vector_store: str = "exact"
    """Where nearest neighbors are searched: exact (a scan), faiss (large or busy indexes), or milvus://HOST:PORT,
    to which MILVUS_TOKEN is sent. Other commands ask it, and over TLS, where MILVUS_URI=https://HOST:PORT."""
    embeddings: Path | None = None
    """The folder that `medclip embed` wrote for the same split and model, in place of embedding again."""
    cache: Cache = True
    ray: OnRay = False
    output: Output

    def run(self) -> Build:
        from medclip.search.curate import build_index

        images = build_index(
            self.model,
            self.data,
            self.out,
            self.split,
            self.max_samples,
            self.vector_store,
            self.embeddings,
            self.cache,
            self.ray,
        )
        self.output.show({"index": str(self.out), "images": images}, [f"{images} images in {self.out}"])
        return self


@dataclass(frozen=True, kw_only=True)
class Add:
    """Add the pairs of a split whose ids the index does not have yet."""

    index: Index
    data: Data
    split: SplitName = None
    max_samples: MaxSamples = None
    model: IndexModel = None
    cache: Cache = True
    output: Output

    def run(self) -> None:
        from medclip.search.curate import add

        added, present = add(self.index, self.data, self.split, self.max_samples, index_model(self.model), self.cache)
        self.output.show(
            {"index": str(self.index), "added": added, "already_present": present},
            [f"{added} images added to {self.index}; {present} were there already"],
        )


@dataclass(frozen=True, kw_only=True)
class Delete:
    """Take images out of every answer. They stay on the disk, and in snapshots, until `medclip index purge`."""

    index: Index
    ids: tuple[str, ...] = ()
    """Ids of images; refused of an id that several have, which `medclip index correct` deletes by their hashes."""
    articles: tuple[str, ...] = ()
    """Articles (or patients), with all their images; refused of a number that patients of several sources have."""
    output: Output

    def run(self) -> None:
        from medclip.search.curate import delete

        if not (self.ids or self.articles):
            raise UserError("say what to delete with --ids or --articles.")
        deleted = delete(self.index, self.ids, self.articles)
        self.output.show(
            {"index": str(self.index), "deleted": deleted}, [f"{deleted} images deleted from {self.index}"]
        )


@dataclass(frozen=True, kw_only=True)
class Correct:
    """Delete and relabel images of the index, as marked on the app's map. A snapshot keeps what was before."""

    index: Index
    corrections: CorrectionsFile
    output: Output

    def run(self) -> None:
        from medclip.data.corrections import read_corrections
        from medclip.search.curate import correct

        done = correct(self.index, read_corrections(self.corrections))
        self.output.show(
            {"index": str(self.index), **done._asdict()},
            [
                f"{done.deleted} images deleted, {done.relabeled} relabeled in {self.index}; back: "
                f"medclip index restore {done.snapshot} --index {self.index}"
            ],
        )


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """Keep the present content of the index under a name. It takes no space."""

    index: Index
    name: Annotated[Positional[str], tyro.conf.arg(metavar="NAME")]
    """Letters, digits, dots, - and _."""
    output: Output

    def run(self) -> None:
        from medclip.search.curate import snapshot

        images = snapshot(self.index, self.name)
        self.output.show(
            {"index": str(self.index), "snapshot": self.name, "images": images},
            [f"snapshot {self.name}: {images} images"],
        )


@dataclass(frozen=True, kw_only=True)
class Restore:
    """Return the index to a snapshot."""

    index: Index
    name: Annotated[Positional[str], tyro.conf.arg(metavar="NAME")]
    """Name of the snapshot."""
    output: Output

    def run(self) -> None:
        from medclip.search.curate import restore

        images = restore(self.index, self.name)
        self.output.show(
            {"index": str(self.index), "snapshot": self.name, "images": images},
            [f"{self.index} holds {images} images, as at snapshot {self.name}"],
        )


@dataclass(frozen=True, kw_only=True)
class Purge:
    """Erase deleted images from the disk, and every snapshot with them."""

    index: Index
    output: Output

    def run(self) -> None:
        from medclip.search.curate import purge

        rows = purge(self.index)
        self.output.show({"index": str(self.index), "erased": rows}, [f"{rows} rows erased from {self.index}"])


@dataclass(frozen=True, kw_only=True)
class Migrate:
    """Switch the vector store, or bring the index's own up to date. The previous store's copy is dropped.

    Switch an index to exact before you delete its folder, and no collection stays behind.
    """

    index: Index
    vector_store: Annotated[Positional[str], tyro.conf.arg(metavar="STORE")]
    """exact, faiss, or milvus://HOST:PORT."""
    output: Output

    def run(self) -> None:
        from medclip.search.curate import migrate

        images = migrate(self.index, self.vector_store)
        self.output.show(
            {"index": str(self.index), "vector_store": self.vector_store, "images": images},
            [f"{images} images of {self.index} are in {self.vector_store}"],
        )


@dataclass(frozen=True, kw_only=True)
class Search:
    """Find images by text, by image or by both; best first. JSON is a line for each hit.

    Of a text alone, with a model that medclip train made: the probability that the right image is among the hits so
    far, if the index holds it, and whether there is no match. How both were calibrated: docs/search.md.
    """

    index: Index
    queries: Annotated[Positional[tuple[str, ...]], tyro.conf.arg(metavar="QUERY")] = ()
    """The text to search, for example "pleural effusion"; each of several is searched for itself."""
    image: Repeated[Path] = ()
    """A query image (PNG, JPEG, DICOM, …); may be given again. Images and text together make one query."""
    negative: Repeated[str] = ()
    """A text that hits should not match; may be given again."""
    k: Annotated[int, tyro.conf.arg(aliases=["-k"])] = 5
    """Number of hits."""
    filter: Repeated[str] = ()
    """KEY=VALUE: a label (modality=mri), article, license, source, or added=2026-11-01..;
    may be given again: other keys narrow, the same key takes either value."""
    group_by: Literal["article"] | None = None
    """article: only the best image of each article."""
    model: IndexModel = None
    output: Output

    def run(self) -> None:
        from medclip.search.filters import parse_filter
        from medclip.search.index import Index
        from medclip.search.query import Query, SearchOptions

        if not (self.queries or self.image):
            raise UserError('give a query ("pleural effusion"), --image FILE, or both.')
        texts: list[tuple[str, ...]] = [(text,) for text in self.queries] or [()]
        queries = [Query(text, self.image, self.negative) for text in texts]
        options = SearchOptions(self.k, parse_filter(self.filter), self.group_by)
        index = Index.open(self.index, self.model)
        results = index.answer(queries, options)
        titles = [query.texts[0] if len(queries) > 1 else "" for query in queries]
        answers = list(zip(titles, results, strict=True))
        lines = [fields for title, result in answers for fields in hits_json(result, title)]
        self.output.show(lines, result_tables(answers, index.calibration))
        if not lines:
            raise WorkError(index.reader.explain_no_match(options.filter))


@dataclass(frozen=True, kw_only=True)
class Map:
    """Write an index as points in a plane, with outliers, near duplicates and captions that fit another image better.

    The Parquet file holds x, y, embeddings, images, labels and scores: embedding-atlas, datasets and pandas open it. Of
    more than 100,000 images that many are taken, evenly spread. The app shows the same map.
    """

    index: Index
    out: OutFile
    """A new .parquet file."""
    method: Literal["pca", "umap"] = "pca"
    """pca: exact, the same points on every machine. umap: groups stand apart; needs the extra umap."""
    seed: Seed = 0
    """What umap draws with."""
    captions: bool = True
    """Encode the captions too, and rank each image's own among them."""
    filter: Repeated[str] = ()
    """KEY=VALUE, as of medclip search: these images alone."""
    model: IndexModel = None
    cache: Cache = True
    output: Output

    def run(self) -> None:
        from medclip.model.checkpoint import load
        from medclip.search.filters import parse_filter
        from medclip.search.map import caption_encoder, export_map
        from medclip.search.reader import IndexReader

        reader, encode = IndexReader(self.index), None
        if self.captions:
            encode = caption_encoder(load(reader.model_path(index_model(self.model))), self.cache)
        points = export_map(reader, self.out, encode, self.method, self.seed, parse_filter(self.filter))
        result = {"out": str(self.out), "points": len(points.rows), "images": len(reader), "method": self.method}
        result |= {"variance_shares": points.layout.variance_shares}
        self.output.show(result | map_lists(reader, points), map_tables(reader, points, self.out))
