"""Text towers as published: BERT and its successors."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from support import gallery_tokenizers as tokenizers
from support.gallery import example_weight
from support.gallery_peer import (
    BERT,
    TINY,
    layout,
    model_folder,
    position_ids,
    published_names,
    write_bin,
    write_safetensors,
)
from support.gallery_tokenizers import write_json


def bert_folder(
    folder: Path, config: dict[str, Any], files: Callable[[Path], int] = tokenizers.bert_files, legacy: bool = False,
    gamma: bool = False, made: str = "BertForPreTraining", left_out: tuple[str, ...] = (), safetensors: bool = False,
) -> Path:  # fmt: skip
    """BERT under `bert.`, with its heads, as torch.save wrote it."""
    import transformers

    model = model_folder(folder)
    config = {name: value for name, value in config.items() if name not in left_out}
    config["vocab_size"] = files(model)
    write_json(model / "config.json", config)
    kind = getattr(transformers, made)
    shapes = published_names(kind(kind.config_class.from_dict(config)))
    names = {name: name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
             if gamma else name for name in shapes}  # fmt: skip
    tensors = {new: example_weight(new, shapes[name]) for name, new in names.items()}
    if safetensors:
        write_safetensors(tensors, model)
        return model
    words = next(name for name in tensors if name.endswith("word_embeddings.weight"))
    tied = {"cls.predictions.decoder.weight": words} if "cls.predictions.bias" in tensors else {}
    tied |= {"lm_head.decoder.weight": words} if "lm_head.bias" in tensors else {}
    write_bin(position_ids(tensors), model, tied, legacy)
    return model


def cxr_bert(folder: Path) -> None:
    """A masked language model without a pooler and with a head of its own code, which the peer does not run."""
    config = {
        **BERT, "architectures": ["CXRBertModel"], "classifier_dropout": None, "gradient_checkpointing": False,
        "auto_map": {"AutoConfig": "configuration_cxrbert.CXRBertConfig",
                     "AutoModel": "modeling_cxrbert.CXRBertModel"},
        "model_type": "cxr-bert", "position_embedding_type": "absolute", "projection_size": 16,
        "torch_dtype": "float32", "transformers_version": "4.17.0", "use_cache": True,
    }  # fmt: skip
    plain = {**config, "model_type": "bert", "architectures": ["BertForMaskedLM"]}
    fields = {"do_lower_case": True, "unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]",
              "cls_token": "[CLS]", "mask_token": "[MASK]", "tokenize_chinese_chars": True, "strip_accents": None,
              "model_max_length": 512, "never_split": None, "do_basic_tokenize": True,
              "auto_map": {"AutoTokenizer": ["configuration_cxrbert.CXRBertTokenizer", None]},
              "tokenizer_class": "CXRBertTokenizer"}  # fmt: skip
    files = partial(tokenizers.bert_files, fast=True, special_map=True, **fields)
    model = bert_folder(folder, plain, files, made="BertForMaskedLM")
    import torch

    tensors = {name: value.numpy() for name, value in torch.load(model / "pytorch_model.bin").items()}
    width = TINY["hidden_size"]
    head = {"dense_to_hidden.weight": (16, width), "dense_to_hidden.bias": (16,), "LayerNorm.weight": (16,),
            "LayerNorm.bias": (16,), "dense_to_output.weight": (16, 16), "dense_to_output.bias": (16,)}  # fmt: skip
    tensors |= {f"cls_projection_head.{name}": example_weight(name, shape) for name, shape in head.items()}
    write_bin(tensors, model)
    write_json(model / "config.json", {**config, "vocab_size": len(tokenizers.bert_vocabulary())})
    for code in ("configuration_cxrbert.py", "modeling_cxrbert.py"):
        (model / code).write_text("raise SystemExit('the code of a repository was run')\n")


PUBMEDBERT = {**BERT, "architectures": ["BertForMaskedLM"]}
CASED = partial(tokenizers.bert_files, cased=True)
ROBERTA = {
    **BERT, "architectures": ["RobertaForMaskedLM"], "model_type": "roberta", "bos_token_id": 0, "eos_token_id": 2,
    "layer_norm_eps": 1e-05, "max_position_embeddings": 514, "pad_token_id": 1, "type_vocab_size": 1,
}  # fmt: skip
ROBERTA_TOKENIZER = {
    "add_prefix_space": False, "bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "errors": "replace",
    "mask_token": "<mask>", "model_max_length": 512, "pad_token": "<pad>", "sep_token": "</s>",
    "tokenizer_class": "RobertaTokenizer", "trim_offsets": True, "unk_token": "<unk>",
}  # fmt: skip


def contradicting_files(folder: Path) -> int:
    """tokenizer.json keeps case and accents, tokenizer_config.json does not: transformers takes the latter."""
    size = tokenizers.bert_files(folder, fast=True, do_lower_case=False, strip_accents=False)
    fields = {"do_lower_case": True, "strip_accents": True, "model_max_length": 512,
              "tokenizer_class": "BertTokenizer"}  # fmt: skip
    write_json(folder / "tokenizer_config.json", fields)
    return size


LAYOUTS = (
    layout(
        "bert-base",
        "google-bert/bert-base-uncased",
        "text",
        partial(
            bert_folder,
            config=PUBMEDBERT,
            gamma=True,
            safetensors=True,
            files=partial(tokenizers.bert_files, fast=True, do_lower_case=True, model_max_length=512),
        ),
    ),
    layout(
        "pubmedbert",
        "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract-fulltext",
        "text",
        partial(
            bert_folder,
            config=PUBMEDBERT,
            files=partial(tokenizers.bert_files, do_lower_case=True, model_max_length=512),
        ),
    ),
    layout(
        "scibert",
        "allenai/scibert_scivocab_uncased",
        "text",
        partial(bert_folder, config=BERT, left_out=("layer_norm_eps", "pad_token_id")),
    ),
    layout(
        "scibert-legacy",
        "allenai/scibert_scivocab_uncased, torch format before 1.6",
        "text",
        partial(bert_folder, config=BERT, left_out=("layer_norm_eps", "pad_token_id"), legacy=True, gamma=True),
    ),
    layout(
        "bio-clinicalbert",
        "emilyalsentzer/Bio_ClinicalBERT",
        "text",
        partial(bert_folder, config=BERT, files=CASED, left_out=("pad_token_id",)),
    ),
    layout(
        "biobert",
        "dmis-lab/biobert-v1.1",
        "text",
        partial(
            bert_folder,
            config={**BERT, "architectures": ["BertModel"]},
            made="BertModel",
            files=partial(CASED, special_map=True, do_lower_case=False, model_max_length=512),
        ),
    ),
    layout(
        "bert-contradicting",
        "BERT whose tokenizer_config.json contradicts its tokenizer.json",
        "text",
        partial(
            bert_folder, config={**BERT, "architectures": ["BertModel"]}, made="BertModel", files=contradicting_files
        ),
    ),
    layout(
        "radbert",
        "StanfordAIMI/RadBERT",
        "text",
        partial(
            bert_folder,
            config={**PUBMEDBERT, "architectures": ["BertForPreTraining"]},
            files=partial(
                CASED,
                fast=True,
                special_map=True,
                do_lower_case=False,
                model_max_length=512,
                tokenizer_class="BertTokenizer",
                strip_accents=None,
            ),
        ),
    ),
    layout("cxr-bert", "microsoft/BiomedVLP-CXR-BERT-specialized", "text", cxr_bert, pooler=False),
    layout(
        "radbert-roberta",
        "zzxslp/RadBERT-RoBERTa-4m",
        "text",
        partial(
            bert_folder,
            config=ROBERTA,
            made="RobertaForMaskedLM",
            files=partial(tokenizers.roberta_files, **ROBERTA_TOKENIZER),
        ),
        pooler=False,
    ),
    layout(
        "roberta-pooler",
        "RobertaModel with its pooler",
        "text",
        partial(
            bert_folder,
            config={**ROBERTA, "architectures": ["RobertaModel"]},
            made="RobertaModel",
            files=partial(tokenizers.roberta_files, fast=True, model_max_length=512),
        ),
    ),
    layout(
        "xlm-roberta-base",
        "FacebookAI/xlm-roberta-base",
        "text",
        partial(
            bert_folder,
            config={**ROBERTA, "model_type": "xlm-roberta", "architectures": ["XLMRobertaModel"]},
            made="XLMRobertaModel",
            files=tokenizers.xlm_roberta_files,
            safetensors=True,
        ),
    ),
)
