"""Commands that make vectors and indexes, and change what an index holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from medclip.cli.args import Data, Positional
from medclip.errors import UserError
from medclip.progress import console


@dataclass(frozen=True)
class Embed:
    """Write the unit vectors of a split's images and captions as .npy files. A killed call goes on where it was."""

    model: str
    """A model folder, a run, or OWNER/NAME on the Hub."""
    data: Data
    """A prepared dataset."""
    out: Path
    """A new folder for images.npy, texts.npy (row i of both is pair i), ids.txt and embedding.json."""
    split: str | None = None
    """Which split; left out: validation, or the only one."""
    max_samples: int | None = None
    """The first pairs only."""
    of: tuple[Literal["images", "captions"], ...] = ("images", "captions")
    """Of what."""
    backend: Literal["jax", "onnxruntime", "openvino"] = "jax"
    """What runs the model; all but jax run what `medclip export` wrote, with --model the exported folder."""

    def run(self) -> None:
        from medclip.search.embed import embed

        of = tuple(dict.fromkeys(self.of))
        count = embed(self.model, self.data, self.out, self.split, self.max_samples, of, self.backend)
        console.print(f"vectors of {count} pairs in {self.out}")


@dataclass(frozen=True)
class IndexCommand:
    """Embed every image of a split into a folder that search, serve and app open. A killed call goes on."""

    model: str
    """A model folder, a run, or OWNER/NAME on the Hub."""
    data: Data
    """A prepared dataset."""
    out: Path
    """The index's new folder. To add to one that is there: medclip curate add."""
    split: str | None = None
    """Which split; left out: validation, or the only one."""
    max_samples: int | None = None
    """The first pairs only."""
    vector_store: str = "exact"
    """What looks for the nearest: exact (a scan), faiss (large or busy indexes), or milvus://HOST:PORT, with a token
    in MILVUS_TOKEN and over TLS where MILVUS_SECURE=1."""
    embeddings: Path | None = None
    """What `medclip embed` made of the same split with the same model, in place of embedding again."""

    def run(self) -> None:
        from medclip.search.curate import build_index

        if self.max_samples is not None and self.max_samples < 1:
            raise UserError("--max-samples must be at least 1.")
        count = build_index(
            self.model, self.data, self.out, self.split, self.max_samples, self.vector_store, self.embeddings
        )
        console.print(f"{count} images in {self.out}")


@dataclass(frozen=True)
class Add:
    """Add the pairs of a split whose ids the index does not have yet."""

    index: Path
    """An index folder."""
    data: Data
    """A prepared dataset."""
    split: str | None = None
    """Which split; left out: validation, or the only one."""
    max_samples: int | None = None
    """The first pairs only."""
    model: Path | None = None
    """The model that made the index, where it has moved."""

    def run(self) -> None:
        from medclip.search.curate import add

        added, had = add(self.index, self.data, self.split, self.max_samples, self.model)
        console.print(f"{added} images added to {self.index}; it had {had} of them already")


@dataclass(frozen=True)
class Delete:
    """Take images out of every answer. They stay on the disk, and in snapshots, until `medclip curate purge`."""

    index: Path
    """An index folder."""
    ids: tuple[str, ...] = ()
    """Ids of images."""
    articles: tuple[str, ...] = ()
    """Articles (or patients), with all their images."""

    def run(self) -> None:
        from medclip.search.curate import delete

        if not (self.ids or self.articles):
            raise UserError("say what to delete with --ids or --articles.")
        console.print(f"{delete(self.index, self.ids, self.articles)} images deleted from {self.index}")


@dataclass(frozen=True)
class Snapshot:
    """Keep what the index holds now under a name. It takes no room."""

    index: Path
    """An index folder."""
    name: Annotated[Positional[str], tyro.conf.arg(metavar="NAME")]
    """Letters, digits, dots, - and _."""

    def run(self) -> None:
        from medclip.search.curate import snapshot

        console.print(f"snapshot {self.name}: {snapshot(self.index, self.name)} images")


@dataclass(frozen=True)
class Restore:
    """Let the index hold what it held at a snapshot."""

    index: Path
    """An index folder."""
    name: Annotated[Positional[str], tyro.conf.arg(metavar="NAME")]
    """Of the snapshot."""

    def run(self) -> None:
        from medclip.search.curate import restore

        console.print(f"{self.index} holds {restore(self.index, self.name)} images, as at snapshot {self.name}")


@dataclass(frozen=True)
class Purge:
    """Erase from the disk what is no longer in the index, and every snapshot with it."""

    index: Path
    """An index folder."""

    def run(self) -> None:
        from medclip.search.curate import purge

        console.print(f"{purge(self.index)} rows erased from {self.index}")


@dataclass(frozen=True)
class Move:
    """Let another store answer, or bring the index's own up to date. The one before lets go of what it had of the
    index: move an index to exact before you delete its folder, and no collection stays behind."""

    index: Path
    """An index folder."""
    store: Annotated[Positional[str], tyro.conf.arg(metavar="STORE")]
    """exact, faiss, or milvus://HOST:PORT."""

    def run(self) -> None:
        from medclip.search.curate import move

        console.print(f"{move(self.index, self.store)} images of {self.index} are found by {self.store}")


@dataclass(frozen=True)
class Curate:
    """Change what an index holds: add, delete, snapshot, restore, purge, move to another store."""

    change: (
        Annotated[Add, tyro.conf.subcommand("add")]
        | Annotated[Delete, tyro.conf.subcommand("delete")]
        | Annotated[Snapshot, tyro.conf.subcommand("snapshot")]
        | Annotated[Restore, tyro.conf.subcommand("restore")]
        | Annotated[Purge, tyro.conf.subcommand("purge")]
        | Annotated[Move, tyro.conf.subcommand("move")]
    )

    def run(self) -> None:
        self.change.run()
