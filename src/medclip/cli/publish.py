"""Commands that hand a model or a dataset on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from medclip.cli.args import Positional
from medclip.progress import console


@dataclass(frozen=True)
class Export:
    """Write a model or a prepared dataset in another form.

    Of a model: onnx is image_encoder.onnx and text_encoder.onnx with a free batch size, checked against the model;
    needs pip install torch transformers onnxscript onnxruntime.

    Of a dataset: parquet opens with `datasets`, polars and DuckDB; tar are WebDataset archives.
    """

    what: Annotated[Positional[str], tyro.conf.arg(metavar="MODEL|DATA")]
    """A model folder, a run, or OWNER/NAME on the Hub; or a prepared dataset."""
    to: Literal["onnx", "parquet", "tar"]
    """The form."""
    out: Path
    """The new folder."""

    def run(self) -> None:
        if self.to in ("parquet", "tar"):
            from medclip.data.export import export_data

            export_data(Path(self.what), self.out, self.to)
        else:
            from medclip.model.export import export_onnx

            told = export_onnx(self.what, self.out)
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
        from medclip.model.export import push

        console.print(push(self.model, self.repository))
