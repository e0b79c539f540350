"""The command that shows what a model looks at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from medclip.errors import UserError
from medclip.progress import console


@dataclass(frozen=True)
class Explain:
    """Draw over an image where it speaks for a text (orange) and where against it (blue).

    Each place is blurred in turn; what the cosine of image and text loses is the relevance of that place. It shows
    what the model uses, which need not be what a reader would look at. Ask in the words that the model learnt from: on
    phantoms "a left-sided mass" pointed at the mass in six of ten images, "mass" in fewer than two.
    """

    model: str
    """A model folder, a run, or OWNER/NAME on the Hub."""
    image: Path
    """An image."""
    text: str
    """What to look for, for example "CT of the chest with a mass on the left"."""
    out: Path
    """The new image, a .png."""

    def run(self) -> None:
        from medclip.atomic_io import whole_file
        from medclip.data.images import decode
        from medclip.model.checkpoint import load
        from medclip.saliency import MIN_CHANGE, overlay_saliency, saliency_map

        if self.out.suffix.lower() != ".png":
            raise UserError(f"--out {self.out} is no .png.")
        found = saliency_map(load(self.model), self.image, self.text)
        with whole_file(self.out) as partial:
            overlay_saliency(decode(self.image), found).save(partial, "PNG")
        low, high = (float(value) if abs(value) >= MIN_CHANGE else 0.0 for value in (found.min(), found.max()))
        console.print(f"{self.out}: cosine at most {high:+.3f} for the text and {low:+.3f} against it at one place")
