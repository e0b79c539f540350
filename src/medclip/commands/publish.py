"""Commands that hand a model on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from medclip.commands.arguments import Positional
from medclip.progress import console


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
