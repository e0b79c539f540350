"""Where the numbers of an evaluation come from: model, data, method, and whether the model had been trained on them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from medclip import NOT_CLINICAL, __version__
from medclip.atomic_io import read_object
from medclip.data.dataset import Split
from medclip.errors import UserError
from medclip.evaluation.config import EvalConfig
from medclip.metrics import CI_METHOD
from medclip.recorded_files import changed_files
from medclip.versions import source_commit

if TYPE_CHECKING:
    from medclip.evaluation.labeled import Labeled

Answer = Literal["yes", "no", "unknown"]
CI_METHOD_WITHOUT_ARTICLES = (
    "95 % bootstrap, 1000 resamples of single pairs (without --data each counts as its own article); of a share that "
    "none of them changes, Clopper-Pearson"
)


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Model, data and method of the numbers."""

    model: str | None
    """`model_hash`; None for embeddings made elsewhere."""
    contamination: Answer
    """Whether the model was trained on the source of the data."""
    contamination_reason: str
    data: str | None
    """Name of the source; None where there are embeddings alone."""
    data_sha256: str | None
    synthetic: bool
    split: str | None
    seed: int
    ci_method: str = CI_METHOD
    embeddings_sha256: tuple[str, ...] = ()
    """Of the files of images and of texts, where these were given."""
    medclip_version: str = __version__
    commit: str | None = field(default_factory=source_commit)
    notice: str = NOT_CLINICAL


def provenance(config: EvalConfig, rows: Split | Labeled | None, embeddings_sha256: tuple[str, ...] = ()) -> Provenance:
    """How the numbers of a model, or of embeddings, on these rows are made; None: on pairs of embeddings alone."""
    model, answer, reason = None, "unknown", "embeddings do not say what made them"
    if config.model and rows is not None:
        from medclip.model.checkpoint import model_hash  # reading results needs no JAX

        model, (answer, reason) = model_hash(config.model), contamination(config.model, rows)
    return Provenance(
        model=model,
        contamination=answer,
        contamination_reason=reason,
        data=rows.dataset["source"] if rows is not None else None,
        data_sha256=rows.digest if rows is not None else None,
        synthetic=rows is not None and rows.dataset["synthetic"],
        split=rows.name if rows is not None else None,
        seed=config.seed,
        ci_method=CI_METHOD if rows is not None else CI_METHOD_WITHOUT_ARTICLES,
        embeddings_sha256=embeddings_sha256,
    )


def contamination(model: str, rows: Split | Labeled) -> tuple[Answer, str]:
    """Whether a model was trained on the source of these rows, and how that is known.

    Yes: the run's own record has these very pairs, or the card names this source among the training data. No: the card
    claims to name all data from the first step on, and this source is not among them. All else is unknown: BiomedCLIP's
    PMC-15M probably holds ROCO's figures, and its folder does not say so. Sources are compared by name, so the same
    images under another name are not recognized; and a "yes" is of the source, not of the split.
    """
    from medclip.model.card_metadata import read_training_data
    from medclip.model.checkpoint import model_folder

    source, folder = str(rows.dataset["source"]), model_folder(model)
    if split := _run_digests(folder).get(rows.digest):
        return "yes", f"its run had these very pairs as {split}"
    card = read_training_data(model)
    if source.casefold() in (name.casefold() for name in card.sources):
        return "yes", f"its card names {source} among its training data"
    if folder.name == "model" and changed_files(folder.parent, "train_config.json"):
        return "unknown", "the record of its run, train_config.json, is damaged or absent"
    if card.is_complete:
        return "no", f"its card says that it was trained on nothing but {', '.join(card.sources)}"
    return "unknown", "its folder does not name all that it was trained on"


def _run_digests(folder: Path) -> dict[str, str]:
    """The splits of the run around a model folder, by their digests; none without a run."""
    try:
        data = read_object(folder.parent / "train_config.json", "a run")["data"]
        return {digest: split for split, digest in data.items()}
    except (OSError, UserError, KeyError, TypeError, AttributeError):
        return {}
