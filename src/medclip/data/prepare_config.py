"""The settings of a preparation, as one value: flags of `medclip prepare`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from medclip.data.deidentify import DicomConfig
from medclip.data.normalize import license_set
from medclip.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Which columns of a table hold what, and where its images are; None: the first usual name that it has."""

    image_column: str | None = None
    """A table's column of images: paths relative to the table's folder, or (Parquet) encoded bytes."""
    caption_column: tuple[str, ...] = ()
    """A table's column of captions, of lists or of objects of captions; several (findings, impression) are joined in
    this order, empty ones skipped."""
    id_column: str | None = None
    """A table's column of ids; default: ids made up from the content."""
    group_column: str | None = None
    """A table's column of articles or patients, which never spread over two splits."""
    split_column: str | None = None
    """A table's column of splits; default: a tenth of the groups is validation, by a hash of their names."""
    license_column: str | None = None
    """A table's column of licenses."""
    label_column: tuple[str, ...] = ()
    """A table's columns of labels (modality, organ): for filters, evaluations and the colors of the map."""
    image_root: str | None = None
    """The folder that a table's paths are relative to and never leave; default: the table's own."""

    def __post_init__(self) -> None:
        for field_name in ("caption_column", "label_column"):
            if isinstance(name := getattr(self, field_name), str):  # a name alone, as for the other columns
                object.__setattr__(self, field_name, (name,))


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """What to read of a source, and how to prepare it."""

    shorter_side: int = 256
    """Shorter side of the stored images, in pixels; smaller ones are kept as they are."""
    max_samples: int | None = None
    """Take the first rows of each split only, for trying things."""
    licenses: str | None = None
    """Keep pairs of these licenses only, for example cc-by,cc0: in any spelling, whatever the version."""
    resplit: bool = False
    """Ignore the source's splits: a tenth of its articles or patients is validation, by a hash of their names."""
    deidentify: Literal["presidio"] | None = None
    """Also replace people, calendar dates, phone numbers and ids that Presidio detects in English captions
    (docs/privacy.md); needs the extra presidio and a model of spaCy."""
    seed: int = 0
    """Seed of the phantoms."""
    columns: Columns = field(default_factory=Columns)
    studies: DicomConfig = field(default_factory=DicomConfig)

    def __post_init__(self) -> None:
        for name, value in (("shorter-side", self.shorter_side), ("max-samples", self.max_samples)):
            if value is not None and value < 1:
                raise UserError(f"--{name} must be at least 1.")
        if self.seed < 0:
            raise UserError("--seed must be 0 or more.")
        if self.licenses is not None:
            license_set(self.licenses)


DEFAULT = PrepareConfig()
