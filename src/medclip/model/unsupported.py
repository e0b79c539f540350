"""What a folder holds or its `config.json` asks for and medclip does not compute: refused in one sentence, or named.

A model that opens must give its own numbers, so a type is refused with its reason, a field that changes numbers is
refused by its name, and a field that nobody here knows is named.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

from medclip.errors import UserError

LOG = logging.getLogger("medclip.model")

_CONVOLUTIONS = "it is a convolutional network, not a ViT"
_STAGES = "it merges patches from stage to stage, as a ViT does not"
_NO_POOL = "it pools no token, so a join of it opens in no other library"
_GENERATES = "it generates text and pools no token"
_LAYERS = "its layers differ from BERT's"
_REASONS: dict[str, tuple[str, ...]] = {
    _CONVOLUTIONS: ("bit", "convnext", "convnextv2", "densenet", "dinov3_convnext", "efficientnet", "mobilenet_v1",
                    "mobilenet_v2", "regnet", "resnet"),
    _STAGES: ("cvt", "dinat", "focalnet", "hiera", "levit", "mobilevit", "mobilevitv2", "poolformer", "pvt", "pvt_v2",
              "swiftformer", "swin", "swinv2"),
    "it adds relative positions to attention": ("beit", "data2vec-vision"),
    "it drops patches at random, and pools none": ("vit_mae",),
    _NO_POOL: ("convbert", "deberta", "deberta-v2", "distilbert", "electra", "eurobert", "funnel", "ijepa",
               "modernbert", "roformer", "vit_msn", "xlnet"),
    _LAYERS: ("albert", "big_bird", "longformer", "megatron-bert", "mobilebert", "nomic_bert", "nystromformer",
              "reformer", "squeezebert", "yoso"),
    _GENERATES: ("bart", "biogpt", "bloom", "gemma", "gemma2", "gemma3", "gpt2", "gpt_neo", "gpt_neox", "gptj", "llama",
                 "mbart", "mistral", "mt5", "opt", "phi", "phi3", "qwen2", "qwen3", "t5", "umt5"),
    "its image tower is an EfficientNet": ("align",),
    "its text tower is an XLM-R with a head of its own": ("altclip",),
    "its text tower is a BERT without its pooler": ("chinese_clip",),
    "its text tower can attend to the image": ("blip", "blip-2", "blip_2", "bridgetower", "flava", "instructblip",
                                               "lxmert", "vilt", "visual_bert"),
    "it is made to find regions, not to embed images": ("clipseg", "groupvit", "owlv2", "owlvit", "sam"),
    "it embeds videos": ("videomae", "vivit", "xclip"),
    "it embeds sounds": ("clap",),
    "it generates text from images": ("git", "idefics2", "idefics3", "llava", "llava_next", "paligemma", "qwen2_vl",
                                      "qwen2_5_vl", "vision-encoder-decoder"),
    "its NaFlex tower takes any number of patches; SigLIP 2 of fixed resolution, which says siglip, opens": (
        "siglip2", "siglip2_vision_model", "siglip2_text_model"),
    "its code comes with the repository and is not run": ("coca", "eva_clip", "jina_clip", "longclip"),
}  # fmt: skip
_WHY = {kind: why for why, kinds in _REASONS.items() for kind in kinds}

_OTHER_FORMS = {".onnx": "ONNX", ".gguf": "GGUF", ".mlmodel": "Core ML", ".tflite": "TensorFlow Lite",
                ".h5": "TensorFlow", "saved_model.pb": "TensorFlow", "openvino_model.xml": "OpenVINO"}  # fmt: skip
_MAX_SHOWN = 4
_ADAPTER = (
    " It holds an adapter of PEFT (adapter_config.json): merge it into its base model with merge_and_unload(), save "
    "that model with its processor, and give that folder."
)
_SHARDED_STATES = {
    "_model_states.pt": " It holds a checkpoint of DeepSpeed: the zero_to_fp32.py in it writes pytorch_model.bin; give "
    "a folder with that beside config.json, tokenizer and image processor.",
    ".distcp": " It holds a checkpoint of FSDP: accelerate merge-weights writes model.safetensors; give a folder with "
    "that beside config.json, tokenizer and image processor.",
}
_CHECKPOINTS = (".bin", ".ckpt", ".pt", ".pth", ".safetensors", ".msgpack", ".npz")

# Fields with the values at which they change nothing; any other is not computed.
_FIXED: dict[str, tuple[Any, ...]] = {
    "add_cross_attention": (False,),
    "cross_attention_hidden_size": (),
    "is_decoder": (False,),
    "num_channels": (3,),
    "pooler_act": ("tanh",),
    "position_embedding_type": ("absolute",),
    "pruned_heads": ({},),
    "quantization_config": (),
    "relative_attention_num_buckets": (32,),
    "rope_scaling": (),
    "vision_use_head": (True,),
}
# Fields of training, of generation and of the file itself, which change no embedding.
_HARMLESS = frozenset((
    "_attn_implementation", "_attn_implementation_autoset", "_commit_hash", "_from_model_config", "_name_or_path",
    "_num_labels", "_out_features", "_out_indices", "add_pooling_layer", "apply_layernorm", "architectures",
    "attention_dropout", "attention_probs_dropout_prob", "auto_map", "bad_words_ids", "begin_suppress_tokens",
    "bos_token_id", "chunk_size_feed_forward", "classifier_dropout", "cls_token_id", "decoder_start_token_id",
    "directionality", "diversity_penalty", "do_sample", "drop_path_rate", "dropout", "dtype", "early_stopping",
    "encoder_no_repeat_ngram_size", "encoder_stride", "eos_token_id", "exponential_decay_length_penalty",
    "finetuning_task", "forced_bos_token_id", "forced_eos_token_id", "gradient_checkpointing",
    "gradient_checkpointing_kwargs", "hidden_dropout", "hidden_dropout_prob", "id2label", "initializer_factor",
    "initializer_range", "interpolate_antialias", "interpolate_offset", "is_encoder_decoder", "label2id",
    "language", "layerscale_value", "length_penalty", "logit_scale_init_value", "mask_token_id", "max_length",
    "min_length", "model_type", "no_repeat_ngram_size", "num_beam_groups", "num_beams", "num_labels",
    "num_return_sequences", "out_features", "out_indices", "output_attentions", "output_hidden_states",
    "output_past", "output_scores", "pad_token_id", "pooler_fc_size", "pooler_num_attention_heads",
    "pooler_num_fc_layers", "pooler_size_per_head", "pooler_type", "pos_embed_jitter", "pos_embed_rescale",
    "pos_embed_shift", "prefix", "problem_type", "projection_dim", "remove_invalid_values", "repetition_penalty",
    "reshape_hidden_states", "return_dict", "return_dict_in_generate", "seed", "sep_token_id", "stage_names",
    "summary_activation", "summary_type", "summary_use_proj", "suppress_tokens", "task_specific_params",
    "temperature", "text_config", "text_config_dict", "tf_legacy_loss", "tie_encoder_decoder",
    "tie_word_embeddings", "tokenizer_class", "top_k", "top_p", "torch_dtype", "torchscript",
    "transformers.js_config", "transformers_version", "type_vocab_size", "typical_p", "unk_token_id",
    "use_bfloat16", "use_cache", "vision_config", "vision_config_dict",
))  # fmt: skip
# What the families read, their variants' flags included (`config`).
_READ = frozenset((
    "embedding_size", "hidden_act", "hidden_size", "image_size", "intermediate_size", "key_bias", "layer_norm_eps",
    "max_position_embeddings", "mlp_bias", "mlp_ratio", "num_attention_heads", "num_hidden_layers",
    "num_register_tokens", "patch_size", "pooler_output_size", "projection_size", "proj_bias", "qkv_bias",
    "query_bias", "rope_theta", "use_gated_mlp", "use_mask_token", "use_swiglu_ffn", "value_bias", "vocab_size",
))  # fmt: skip


def describe_other_files(files: Iterable[str]) -> str:
    """What a folder without a model that opens holds instead, as a sentence after a space; "" for nothing known."""
    names = sorted({PurePath(file).name for file in files})
    if "adapter_config.json" in names:
        return _ADAPTER
    for suffix, kind in _OTHER_FORMS.items():
        if any(name.endswith(suffix) for name in names):
            return f" It holds {kind} files, which are not read; give the model that they were made from."
    for suffix, sentence in _SHARDED_STATES.items():
        if any(name.endswith(suffix) for name in names):
            return sentence
    checkpoints = [name for name in names if name.endswith(_CHECKPOINTS)]
    if checkpoints and "config.json" not in names:
        return (
            f" It holds {checkpoints[0]} without the config.json that says what it is: open it with the code that it "
            "came with, save it with save_pretrained of transformers, and give that folder; open_clip's own needs its "
            "open_clip_config.json beside it."
        )
    if others := [name for name in names if name.endswith(".safetensors")]:
        return f" It holds {others[0]}: if that is all of its weights, rename it to model.safetensors."
    return ""


def describe_inner_models(folder: Path) -> str:
    """Which folders in one without a model hold one, as a Trainer leaves its checkpoints; a sentence, or ""."""
    names = [path.parent.name for path in folder.glob("*/config.json")]
    names.sort(key=lambda name: (len(name), name))  # checkpoint-500 before checkpoint-1000
    shown = ", ".join(names[-_MAX_SHOWN:])
    return f" It holds model folders: give one of them ({shown})." if names else ""


def dual_encoder_error(kind: object, side: str = "") -> UserError:
    """The error for a `config.json` of that type where a dual encoder is wanted.

    `side` is "vision" or "text" for a tower that opens in a join.
    """
    if side:
        other = "text" if side == "vision" else "vision"
        return UserError(
            f"config.json is of type {kind!r}, a {side} tower alone: give it to medclip train as --{side}-model, "
            f"with a --{other}-model to join it with."
        )
    return UserError(
        f"config.json is of type {kind!r}{_because(kind)}: CLIP, SigLIP, MetaCLIP 2, VisionTextDualEncoder and "
        "open_clip models open, and two towers are joined with --vision-model and --text-model."
    )


def tower_error(kind: object, families: Mapping[str, Any]) -> UserError:
    """The error for a `config.json` of that type where a tower of one of the `families` is wanted."""
    supported = ", ".join(
        name for name in families if not name.startswith(("timm", "open_clip")) and "pooled" not in name
    )
    return UserError(f"config.json: a tower of type {kind!r} is not supported{_because(kind)}; supported: {supported}.")


def refuse_adapter(folder: Path) -> None:
    """Raise UserError for a folder with a LoRA adapter, which would change the numbers of the model beside it."""
    if (folder / "adapter_config.json").is_file():
        raise UserError(f"{folder} is not a model alone.{_ADAPTER}")


def refuse_timm(raw: Mapping[str, Any], folder: Path) -> None:
    """Raise UserError for the `config.json` of a classifier of timm, which names its architecture and no type."""
    if isinstance(name := raw.get("architecture"), str) and raw.get("model_type") is None:
        raise UserError(
            f"{folder} holds timm's {name[:80]}, which opens as the tower of an open_clip model alone; give a vision "
            "tower that transformers saved, such as google/vit-base-patch16-224-in21k or facebook/dinov2-base."
        )


def check_fields(raw: Mapping[str, Any], width: int) -> None:
    """Raise UserError for a field of a tower of that width that changes its numbers in a way that is not computed."""
    wanted = {**_FIXED, "pooler_output_size": (width,), "embedding_size": (width,)}
    for name, values in wanted.items():
        if raw.get(name) is not None and raw[name] not in values:
            raise UserError(f"config.json: {name} = {raw[name]!r} is not supported, and would change the embeddings.")


def warn_unread(raw: Mapping[str, Any], source: object) -> None:
    """Name the fields of a config, and of its towers, that are set and that medclip knows nothing of."""
    if names := list(_unread(raw)):
        LOG.warning("%s: config.json sets %s, which medclip does not know and does not read.", source, ", ".join(names))


def _unread(raw: Mapping[str, Any]) -> Iterator[str]:
    for name, value in raw.items():
        if name not in _HARMLESS and name not in _READ and name not in _FIXED and value:
            yield name
    for tower in ("vision_config", "text_config"):
        if isinstance(raw.get(tower), Mapping):
            yield from (f"{tower}.{name}" for name in _unread(raw[tower]))


def _because(kind: object) -> str:
    if kind is None:
        return ', since it has no model_type (if the model is a BERT, add "model_type": "bert")'
    return f", since {_WHY[kind]}" if isinstance(kind, str) and kind in _WHY else ""
