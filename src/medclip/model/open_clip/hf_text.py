"""The config of a text model of Hugging Face that open_clip knows by name alone."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from medclip.atomic_io import read_json
from medclip.errors import UserError
from medclip.hosts import check_hub_endpoint
from medclip.model.config import DUAL_ENCODERS
from medclip.model.families import TEXT
from medclip.model.shapes_init import Shapes, layer_count

LOG = logging.getLogger("medclip.model")
# Family and width of a head, which no tensor shows.
_BERT = (
    "bert-base-uncased", "bert-base-cased", "bert-large-uncased", "google-bert/bert-base-uncased",
    "google-bert/bert-base-cased", "google-bert/bert-large-uncased",
    "microsoft/BiomedNLP-PubMedBERT-base-uncased-abstract",
    "microsoft/BiomedNLP-PubMedBERT-base-uncased-abstract-fulltext",
    "microsoft/BiomedNLP-PubMedBERT-large-uncased-abstract",
    "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract",
    "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract-fulltext",
    "microsoft/BiomedNLP-BiomedBERT-large-uncased-abstract",
    "emilyalsentzer/Bio_ClinicalBERT", "allenai/scibert_scivocab_uncased", "allenai/scibert_scivocab_cased",
    "dmis-lab/biobert-base-cased-v1.1", "dmis-lab/biobert-v1.1", "dmis-lab/biobert-base-cased-v1.2",
    "michiyasunaga/BioLinkBERT-base", "michiyasunaga/BioLinkBERT-large",
    "cambridgeltl/SapBERT-from-PubMedBERT-fulltext",
)  # fmt: skip
_ROBERTA = ("roberta-base", "roberta-large", "FacebookAI/roberta-base", "FacebookAI/roberta-large")
_XLM_ROBERTA = (
    "xlm-roberta-base", "xlm-roberta-large", "FacebookAI/xlm-roberta-base", "FacebookAI/xlm-roberta-large",
)  # fmt: skip
_MINI_LM = ("sentence-transformers/all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L12-v2")
_KNOWN = {
    **dict.fromkeys(_BERT, ("bert", 64)),
    **dict.fromkeys(_ROBERTA, ("roberta", 64)),
    **dict.fromkeys(_XLM_ROBERTA, ("roberta", 64)),  # the same computation
    **dict.fromkeys(_MINI_LM, ("bert", 32)),
}


_OTHER_ARCHITECTURES = ("google/mt5-", "google/t5-", "facebook/nllb-")


def check_name(name: str) -> None:
    """Raises UserError for a text model that is known to be of another architecture."""
    if name.startswith(_OTHER_ARCHITECTURES):
        raise UserError(
            f"open_clip_config.json: the text tower {name} is not supported: it is the encoder of a translator; towers "
            "of the families BERT, RoBERTa, XLM-R and MPNet are."
        )


def hf_text_config(name: str, shapes: Shapes, folder: Path) -> dict[str, Any]:
    """The `config.json` of the text model `name`, whose tensors have these shapes.

    From the folder itself, from the folder that the name is, from what is known of published models, from the Hub.
    Raises UserError where none has it: the heads of a model cannot be told from its tensors.
    """
    if (config := _text_config(folder / "config.json")) is not None and config["model_type"] in TEXT:
        return config
    if (config := _text_config(Path(name) / "config.json")) is not None:
        return config
    if name in _KNOWN:
        family, head_width = _KNOWN[name]
        return _config_of_shapes(family, head_width, shapes)
    if (config := _hub_config(name)) is not None:
        return config
    raise UserError(
        f"open_clip_config.json names its text tower {name}, whose config.json is neither here nor on the Hub: "
        "copy that config.json into the model folder."
    )


def _text_config(path: Path) -> dict[str, Any] | None:
    """A config of a text model; None where the file is absent, or another model's (a dual encoder's, timm's)."""
    if not path.is_file():
        return None
    raw = read_json(path, "a model folder")
    kind = raw.get("model_type") if isinstance(raw, dict) else None
    return raw if isinstance(kind, str) and kind not in DUAL_ENCODERS else None


def _config_of_shapes(family: str, head_width: int, shapes: Shapes) -> dict[str, Any]:
    vocab_size, width = shapes["embeddings.word_embeddings.weight"]
    if width % head_width:
        raise UserError(f"open_clip_config.json: heads of {head_width} do not make up a text tower {width} wide.")
    return {
        "model_type": family,
        "hidden_size": width,
        "intermediate_size": shapes["encoder.layer.0.intermediate.dense.weight"][0],
        "num_hidden_layers": layer_count(shapes, "encoder.layer"),
        "num_attention_heads": width // head_width,
        "vocab_size": vocab_size,
        "max_position_embeddings": shapes["embeddings.position_embeddings.weight"][0],
        "type_vocab_size": shapes["embeddings.token_type_embeddings.weight"][0],
        "layer_norm_eps": 1e-5 if family == "roberta" else TEXT[family].defaults["layer_norm_eps"],
    }


def _hub_config(name: str) -> dict[str, Any] | None:
    if name.count("/") > 1 or name.startswith((".", "/", "~")):
        return None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    check_hub_endpoint()
    try:
        return _text_config(Path(hf_hub_download(name, "config.json")))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError):
        return None
