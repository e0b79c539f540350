"""What `medclip app` was told to show, and the words in which it says so to the processes that it starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medclip.errors import UserError


@dataclass(frozen=True)
class Served:
    """What the app shows."""

    indexes: tuple[Path, ...]
    models: tuple[Path, ...] = ()
    """Where the models of the indexes are now, in their order; none where they are where the indexes say."""
    evaluation: Path | None = None
    """What `medclip evaluate … --out` wrote."""

    def __post_init__(self):
        if not self.indexes:
            raise UserError("give an index: medclip app --index INDEX (see medclip index).")
        if self.models and len(self.models) != len(self.indexes):
            raise UserError(f"--model was given {len(self.models)} times for {len(self.indexes)} indexes.")

    def places(self) -> dict[str, tuple[str, str | None]]:
        """Of each index the folder and the model's, by a name as short as tells them apart."""
        folders = [folder.resolve() for folder in self.indexes]
        if len(set(folders)) < len(folders):
            raise UserError("an index was given twice.")
        parts = next(n for n in range(1, 99) if len({folder.parts[-n:] for folder in folders}) == len(folders))
        models = [str(model) for model in self.models] or [None] * len(folders)
        names = ["/".join(folder.parts[-parts:]) for folder in folders]
        return {name: (str(folder), model) for name, folder, model in zip(names, folders, models, strict=True)}

    def words(self) -> list[str]:
        """As `from_words` reads it."""
        said = [word for folder in self.indexes for word in ("index", str(folder))]
        said += [word for folder in self.models for word in ("model", str(folder))]
        return said + (["evaluation", str(self.evaluation)] if self.evaluation else [])


def from_words(words: Sequence[str]) -> Served:
    """What `Served.words` made these of."""
    said = [(kind, Path(folder)) for kind, folder in zip(words[::2], words[1::2], strict=True)]
    of = {name: tuple(folder for kind, folder in said if kind == name) for name in ("index", "model", "evaluation")}
    return Served(of["index"], of["model"], next(iter(of["evaluation"]), None))
