"""Commands that hand a model or a dataset on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from medclip.cli.args import Positional
from medclip.cli.format import Output
from medclip.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write a model or a prepared dataset in another form.

    Of a model: onnx is image_encoder.onnx and text_encoder.onnx, batch size and caption length free, checked against
    the model; needs pip install onnx onnxruntime.
    safetensors is the same folder, of a dual encoder or of one tower, with weights that were a pickle or Flax's.
    open_clip is the folder that open_clip's local-dir: opens, of a CLIPModel; open_clip cleans captions (ftfy, HTML)
    before it cuts them into tokens.

    Of a dataset: parquet opens with `datasets`, polars and DuckDB; tar are WebDataset archives.
    """

    source: Annotated[Positional[str], tyro.conf.arg(metavar="MODEL|DATA")]
    """A model folder, a run, or a model of the Hub (OWNER/NAME or hf-hub:OWNER/NAME); or a prepared dataset: a folder
    or a URL."""
    to: Literal["onnx", "safetensors", "open_clip", "parquet", "tar"]
    """The form."""
    out: Path
    """The new folder."""
    tokenizer: str | None = None
    """With --to safetensors: folder or model whose tokenizer the new folder gets, where MODEL holds none
    (flax-community/medclip-roco: allenai/scibert_scivocab_uncased)."""
    output: Output

    def run(self) -> None:
        if self.tokenizer and self.to != "safetensors":
            raise UserError(f"--tokenizer goes with --to safetensors, not {self.to}.")
        result: dict[str, Any] = {"out": str(self.out), "form": self.to}
        lines = [f"written: {self.out}"]
        if self.to == "onnx":
            from medclip.model.export import export_onnx

            difference = export_onnx(self.source, self.out)
            result["largest_difference"] = difference
            texts = ", ".join(f"{name} {value:.1e}" for name, value in difference.items())
            lines.insert(0, f"largest difference in ONNX Runtime: {texts}")
        elif self.to == "safetensors":
            from medclip.model.convert import export_safetensors

            export_safetensors(self.source, self.out, self.tokenizer)
        elif self.to == "open_clip":
            from medclip.model.open_clip.to_open_clip import export_open_clip

            export_open_clip(self.source, self.out)
        else:
            from medclip.data.export import export_data
            from medclip.data.paths import parse_path

            result["files"] = export_data(parse_path(self.source), self.out, self.to)
        self.output.show(result, lines)


@dataclass(frozen=True, kw_only=True)
class Push:
    """Upload a model folder with its card to a private repository on the Hugging Face Hub."""

    model: Annotated[Positional[str], tyro.conf.arg(metavar="MODEL")]
    """A model folder, a run, or a model of the Hub: OWNER/NAME or hf-hub:OWNER/NAME."""
    repository: Annotated[Positional[str], tyro.conf.arg(metavar="OWNER/NAME")]
    """The repository; created, private, if absent."""
    output: Output

    def run(self) -> None:
        from medclip.model.export import push

        url = push(self.model, self.repository)
        self.output.show({"url": url}, [url])
