"""The commands, each a typed value whose `run` does the work; a stage is imported when it runs."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from medclip.arguments import Positional, Seed
from medclip.data.sources.columns import Columns
from medclip.errors import UserError
from medclip.progress import console
from medclip.tables import (
    show_dataset,
    show_hits,
    show_info,
    show_leakage,
    show_preview,
    show_retrieval,
    show_sides,
    show_trained,
)
from medclip.train.recipe import Recipe


@dataclass(frozen=True)
class Quickstart:
    """Synthetic phantoms -> prepare -> train -> evaluate -> index -> app. No download; minutes on a laptop."""

    out: Path = Path("runs/quickstart")
    """Folder for everything it makes."""
    app: bool = True
    """End by serving the app; --no-app stops before."""
    seed: Seed = 0
    """Seed of the phantoms and of training."""

    def run(self) -> None:
        from medclip.quickstart import quickstart

        quickstart(self.out, self.app, self.seed)


@dataclass(frozen=True)
class Prepare:
    """Turn a source of image-caption pairs into a prepared data set; every dropped row is counted by reason."""

    source: Annotated[Positional[str], tyro.conf.arg(metavar="SOURCE")]
    """A ROCO folder, a table (CSV, TSV, JSON lines, Parquet), a folder of pictures with captions beside them (x.jpg,
    x.txt), WebDataset archives (.tar), or phantoms[:COUNT] for synthetic pictures."""
    columns: tyro.conf.OmitArgPrefixes[Columns]
    out: Path | None = None
    """The data set's new folder; an unfinished one is continued."""
    dry_run: bool = False
    """Show what would become of the first rows; write nothing."""
    side: int = 256
    """Shorter side of the stored pictures, in pixels; smaller ones are kept as they are."""
    limit: int | None = None
    """Take the first rows of each split only, for trying things."""
    seed: Seed = 0
    """Seed of the phantoms."""

    def run(self) -> None:
        from medclip.data.prepare import prepare, preview

        if self.dry_run:
            show_preview(preview(self.source, self.side, self.seed, self.columns))
            return
        if self.out is None:
            raise UserError("give the new folder with --out DATA, or --dry-run to see the first rows.")
        dataset = prepare(self.source, self.out, self.side, self.limit, self.seed, columns=self.columns)
        show_dataset(dataset, self.out)


@dataclass(frozen=True)
class Leakage:
    """What the training split shares with the pairs it will be judged on: articles, pictures, captions."""

    data: Annotated[Positional[Path], tyro.conf.arg(metavar="DATA")]
    """A prepared data set with a split train."""
    other: Annotated[Positional[Path | None], tyro.conf.arg(metavar="OTHER")] = None
    """A prepared data set to compare with; left out: the other splits of DATA."""
    out: Path | None = None
    """Write a copy of DATA there, without the training pairs that share anything."""

    def run(self) -> None:
        from medclip.data.leakage import decontaminate, leakage

        show_leakage(leakage(self.data, self.other))
        if self.out is not None:
            removed = decontaminate(self.data, self.out, self.other)
            console.print(f"{self.out}: {sum(removed.values())} training pairs fewer")


@dataclass(frozen=True)
class Train:
    """Train both towers; keeps the model of the best validation recall in RUN/model.

    Starts from a trained model (--init), from two towers joined with fresh projections (--vision and --text), or from
    scratch (--preset). MODEL is a folder, a run, or OWNER/NAME on the Hub. Ctrl-C saves and says how to go on.
    """

    data: Path
    """A prepared data set with the splits train and validation."""
    out: Path
    """The run's new folder."""
    recipe: tyro.conf.OmitArgPrefixes[Recipe]
    limit: int | None = None
    """Train on the first pairs only, for trying things."""
    resume: bool = False
    """Go on with the killed or stopped run in --out, with the same settings."""
    track: tuple[Literal["wandb", "mlflow", "trackio"], ...] = ()
    """Show the numbers there too, through their own libraries; TensorBoard reads RUN/tensorboard in any case."""
    distributed: bool = False
    """This is one of several processes of one job, each with its own devices (docs/distributed.md)."""

    def run(self) -> None:
        if self.distributed:
            from medclip.train.mesh import start_distributed

            start_distributed()
        from medclip.train.loop import train

        summary = train(self.data, self.out, self.recipe, limit=self.limit, resume=self.resume, track=self.track)
        show_trained(summary, self.out)


@dataclass(frozen=True)
class Evaluate:
    """Measure a model on a split, with 95 % intervals.

    retrieval: R@1, R@5, R@10 and median rank both ways over a stated pool. sides: how often a picture prefers
    its caption over the same caption with left and right exchanged.
    """

    measure: Annotated[Positional[Literal["retrieval", "sides"]], tyro.conf.arg(metavar="retrieval|sides")]
    """What to measure."""
    model: str
    """A model folder, a run, or OWNER/NAME on the Hub."""
    data: Path
    """A prepared data set."""
    split: str | None = None
    """Which split; left out: validation, or the only one."""
    out: Path | None = None
    """Folder for the results as JSON."""
    seed: Seed = 0
    """Seed of the bootstrap."""
    limit: int | None = None
    """The first pairs only: a smaller pool, and so higher numbers."""

    def run(self) -> None:
        from medclip.evaluate.retrieval import evaluate_retrieval
        from medclip.evaluate.sides import evaluate_sides

        evaluate, show = {
            "retrieval": (evaluate_retrieval, show_retrieval),
            "sides": (evaluate_sides, show_sides),
        }[self.measure]
        show(evaluate(self.model, self.data, self.split, self.out, self.seed, self.limit))


@dataclass(frozen=True)
class IndexCommand:
    """Embed every picture of a split into a folder that `medclip search` and `medclip app` open."""

    model: str
    """A model folder, a run, or OWNER/NAME on the Hub."""
    data: Path
    """A prepared data set."""
    out: Path
    """The index's new folder."""
    split: str | None = None
    """Which split; left out: validation, or the only one."""
    limit: int | None = None
    """The first pairs only."""

    def run(self) -> None:
        from medclip.search.index import build_index

        count = build_index(self.model, self.data, self.out, self.split, self.limit)
        console.print(f"{count} pictures in {self.out}")


@dataclass(frozen=True)
class Search:
    """Find pictures by words or by a picture; best first. A table on a terminal, JSON lines when piped."""

    index: Path
    """An index folder."""
    query: Annotated[Positional[str | None], tyro.conf.arg(metavar="QUERY")] = None
    """What to look for, for example "pleural effusion"."""
    image: Path | None = None
    """A picture to look for, in place of words."""
    k: Annotated[int, tyro.conf.arg(aliases=["-k"])] = 5
    """Number of hits."""
    model: Path | None = None
    """The model that made the index, where it has moved."""

    def run(self) -> None:
        from medclip.search.index import Index
        from medclip.search.query import search

        if (self.query is None) == (self.image is None):
            raise UserError('give either a query ("pleural effusion") or --image FILE.')
        if self.k < 1:
            raise UserError("--k must be at least 1.")
        hits = search(Index(self.index), self.query if self.image is None else self.image, self.k, self.model)
        if not sys.stdout.isatty():
            for hit in hits:
                row = {"id": hit.id, "score": round(hit.score, 6), "caption": hit.caption}
                print(json.dumps({**row, "article": hit.article, "licence": hit.licence}, ensure_ascii=False))
            return
        show_hits(hits)


@dataclass(frozen=True)
class App:
    """Serve the search app (Streamlit) for an index, on this machine only."""

    index: Path
    """An index folder."""
    port: int = 8501
    """Port on 127.0.0.1."""

    def run(self) -> None:
        from medclip.serve.launch import launch

        launch(self.index, self.port)


@dataclass(frozen=True)
class Export:
    """Write a model in another form.

    onnx: image_encoder.onnx and text_encoder.onnx with a free batch size, checked against the model; needs
    pip install torch transformers onnxscript onnxruntime. flax: the FlaxHybridCLIP folder of 2021.
    """

    model: Annotated[Positional[str], tyro.conf.arg(metavar="MODEL")]
    """A model folder, a run, or OWNER/NAME on the Hub."""
    to: Literal["onnx", "flax"]
    """The form."""
    out: Path
    """The new folder."""

    def run(self) -> None:
        from medclip.export import export_flax, export_onnx

        if self.to == "flax":
            export_flax(self.model, self.out)
        else:
            told = export_onnx(self.model, self.out)
            console.print(f"largest difference in ONNX Runtime: image {told['image']:.1e}, text {told['text']:.1e}")
        console.print(f"written: {self.out}")


@dataclass(frozen=True)
class Push:
    """Upload a model folder with its card to a private repository on the Hugging Face Hub."""

    model: Annotated[Positional[str], tyro.conf.arg(metavar="MODEL")]
    """A model folder or a run."""
    repository: Annotated[Positional[str], tyro.conf.arg(metavar="OWNER/NAME")]
    """Where to; made, private, if absent."""

    def run(self) -> None:
        from medclip.export import push

        console.print(push(self.model, self.repository))


@dataclass(frozen=True)
class Info:
    """What a run, a data set, an index or a model is, and how it went."""

    path: Annotated[Positional[str], tyro.conf.arg(metavar="PATH")]
    """A folder that medclip made, or a model's folder or OWNER/NAME on the Hub."""

    def run(self) -> None:
        from medclip.info import info

        show_info(*info(self.path), Path(self.path))
