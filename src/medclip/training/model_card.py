"""The model card: what a stranger must know before using the model folder."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from medclip import NOT_CLINICAL, __version__
from medclip.card_evaluations import END, START, CardEvaluation, add_evaluations, write_card
from medclip.data.dataset import Split
from medclip.data.deidentify import DICOM_SOURCE
from medclip.data.normalize import license_name
from medclip.metrics import CI_METHOD, DIRECTIONS, Estimate, Queries
from medclip.model.card_metadata import add_training_data, base_models, hub_name, is_repository_name, license_of
from medclip.model.checkpoint import Model
from medclip.named_metrics import metric_name, to_metric
from medclip.training.config import FromModel, FromPreset, FromTowers, ResolvedTrainConfig
from medclip.versions import source_commit

TAGS = ["medical", "radiology", "clip", "medclip", "not-for-clinical-use"]
_TEMPLATE = Path(__file__).parents[1] / "templates" / "model_card.md"
_COMMON_LICENSE = re.compile("cc0|cc(-(by|nc|nd|sa))*|public-domain")
_MEDCLIP = """import medclip

MODEL = "."
texts = ["chest X-ray", "CT of the abdomen"]
model = medclip.load(MODEL)
cosines = model.similarity("image.png", texts)
probabilities = model.zero_shot("image.png", texts)"""
_TRANSFORMERS = """import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

MODEL = "."
texts = ["chest X-ray", "CT of the abdomen"]
model = AutoModel.from_pretrained(MODEL)
tokenizer, processor = AutoTokenizer.from_pretrained(MODEL), AutoImageProcessor.from_pretrained(MODEL)
tokens = tokenizer(texts, padding=PADDING, truncation=True, return_tensors="pt")
pixels = processor(Image.open("image.png").convert("RGB"), return_tensors="pt")
with torch.no_grad():
    probabilities = model(**tokens, **pixels).logits_per_image.softmax(dim=-1)[0]"""
_SENTENCE_TRANSFORMERS = """from PIL import Image
from sentence_transformers import SentenceTransformer

MODEL = "."
texts = ["chest X-ray", "CT of the abdomen"]
model = SentenceTransformer(MODEL)
images = model.encode([Image.open("image.png").convert("RGB")])
cosines = model.similarity(images, model.encode(texts))[0]"""
_OPEN_CLIP = """import open_clip
import torch
from PIL import Image

MODEL = "local-dir:."  # on the Hub: hf-hub:OWNER/NAME
texts = ["chest X-ray", "CT of the abdomen"]
model, preprocess = open_clip.create_model_from_pretrained(MODEL)
with torch.no_grad():
    image = model.encode_image(preprocess(Image.open("image.png").convert("RGB"))[None], normalize=True)
    cosines = (image @ model.encode_text(open_clip.get_tokenizer(MODEL)(texts), normalize=True).T)[0]"""


def write_run_card(
    folder: Path,
    model: Model,
    config: ResolvedTrainConfig,
    training: Split,
    validation: Split,
    best: Mapping[str, Any],
    queries: Mapping[str, Queries],
    metrics: Mapping[str, Mapping[str, Estimate]],
) -> None:
    """Write `README.md` of a run's `model` folder.

    `best` is the evaluation of the saved weights; `queries` and `metrics` are of both directions on `validation`.
    """
    from huggingface_hub import ModelCard, ModelCardData

    match config.start:
        case FromPreset(preset):
            start, parents = f"From scratch (preset {preset})", []
        case FromModel(parent):
            start, parents = f"Fine-tuned from {_public_name(parent)}", [parent]
        case FromTowers(vision, text):
            parents = [vision, text]
            start = f"Vision tower of {_public_name(vision)} joined with the text tower of {_public_name(text)}"
    dataset, title = training.dataset, folder.resolve().parent.name
    trained_on = add_training_data(dataset["source"], parents)
    library, usage = _usage(model)
    data = ModelCardData(
        library_name=library,
        pipeline_tag="zero-shot-image-classification",
        license="other",
        base_model=base_models(parents) or None,
        datasets=[name for name in trained_on.sources if is_repository_name(name)] or None,
        tags=TAGS,
        trained_on=list(trained_on.sources),
        trained_on_nothing_else=trained_on.is_complete,
    )
    card = ModelCard.from_template(
        data,
        template_path=str(_TEMPLATE),
        title=title,
        notice=NOT_CLINICAL,
        version=__version__,
        usage=usage,
        origin=_origin(dataset),
        num_training=len(training),
        num_validation=len(validation),
        start=start,
        config=config,
        weights=_weights(best),
        start_mark=START,
        end_mark=END,
        limits=_limits(dataset),
        license_text=_license_text(training.iter_column("license"), parents),
    )
    add_evaluations(card, [_evaluation(validation, queries, metrics)], title)
    write_card(card, folder / "README.md")


def _usage(model: Model) -> tuple[str, Mapping[str, str]]:
    """The library that the folder is of, and code by the libraries that open it."""
    if "model_cfg" in model.raw_config:
        return "open_clip", {"medclip": _MEDCLIP, "open_clip": _OPEN_CLIP}
    if not model.config.text.opens_in_transformers:
        return "medclip", {"medclip": _MEDCLIP}
    padding = '"max_length"' if model.config.text.family.attends == "all" else "True"  # SigLIP attends to padding
    others = {
        "transformers": _TRANSFORMERS.replace("PADDING", padding),
        "sentence-transformers": _SENTENCE_TRANSFORMERS,
    }
    return "transformers", {"medclip": _MEDCLIP, **others}


def _evaluation(
    validation: Split, queries: Mapping[str, Queries], metrics: Mapping[str, Mapping[str, Estimate]]
) -> CardEvaluation:
    chances = {direction: own.chance() for direction, own in queries.items()}
    num_images, num_captions = (len(queries[direction].rows) for direction in DIRECTIONS)
    return CardEvaluation(
        kind="retrieval",
        data=validation.dataset["source"],
        synthetic=validation.dataset["synthetic"],
        split=validation.name,
        sha256=validation.digest,
        pool={"images": num_images, "captions": num_captions},
        notes=["this split also chose the weights"],
        ci_method=CI_METHOD,
        medclip_version=__version__,
        commit=source_commit(),
        metrics=[
            to_metric(metric_name(direction, name), estimate, chances[direction][name])
            for direction in reversed(DIRECTIONS)
            for name, estimate in metrics[direction].items()
        ],
    )


def _origin(dataset: Mapping[str, Any]) -> str:
    """Where the pairs are from, as far as the dataset says so."""
    if dataset["synthetic"]:
        return f"Synthetic images ({dataset['source']}), drawn by a program: no patients."
    if dataset["source"] == DICOM_SOURCE:
        return "DICOM studies."
    return f"Source: {dataset['source']}."


def _limits(dataset: Mapping[str, Any]) -> str:
    """What follows from the origin alone."""
    if dataset["synthetic"]:
        return "Trained on drawings, which say nothing of how it does on images of patients."
    where = (
        "the DICOM studies of one source" if dataset["source"] == DICOM_SOURCE else f"one source, {dataset['source']}"
    )
    return f"Trained on {where}: what is common there is over-represented."


def _license_text(licenses: Iterable[str], parents: Sequence[str]) -> str:
    """The licenses of the pairs and of the parents, as they are recorded; names that are not common are not quoted."""
    counts = Counter(_license_in_words(license_name(license)) for license in licenses)
    pairs = ", ".join(f"{name} {count:,}" for name, count in counts.most_common())
    terms = [f"Licenses of the training pairs: {pairs}."]
    for parent in parents:
        license = license_of(parent)
        terms.append(f"The card of {_public_name(parent)} {f'says {license}' if license else 'names no license'}.")
    inherited = (
        "the models that they started from and of the pairs" if parents else "the pairs that they were trained on"
    )
    return f"The weights inherit the terms of {inherited}; none is granted here. {' '.join(terms)}"


def _license_in_words(name: str) -> str:
    if not name:
        return "not stated"
    return name if _COMMON_LICENSE.fullmatch(name) else "another"


def _weights(best: Mapping[str, Any]) -> str:
    if "alpha" in best:
        return f"{best['alpha']:.0%} of the weights of step {best['step']} and the rest of the first ones (WiSE-FT)"
    return f"the weights of step {best['step']}"


def _public_name(model: str) -> str:
    """A model's name without where it lies on this machine: a card is read by strangers."""
    return hub_name(model) or Path(os.path.abspath(model)).name  # noqa: PTH100  of "." too, and of a link its own
