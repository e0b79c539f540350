"""Captions to token ids, with the `tokenizers` library alone.

Reads `tokenizer.json`, or the vocabulary files of folders that have none: BERT's, CLIP's and RoBERTa's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int32
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from medclip.atomic_io import read_json, whole_file, write_json
from medclip.errors import UserError
from medclip.model.config import TextConfig

START, END = "<|startoftext|>", "<|endoftext|>"
# CLIP's pre-tokenization, as its published vocabulary was learned.
_CLIP_WORDS = r"""<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""


@dataclass(frozen=True)
class TextTokenizer:
    """A tokenizer, the context length it is used at, and its `tokenizer_config.json`."""

    tokenizer: Tokenizer
    context_length: int
    raw_config: dict[str, Any]

    def encode(self, captions: Sequence[str]) -> tuple[Int32[np.ndarray, "b t"], Bool[np.ndarray, "b t"]]:
        """Token ids, and True at real tokens; a long caption is cut, its special tokens kept."""
        encodings = self.tokenizer.encode_batch(list(captions))
        shape = (len(encodings), self.context_length)
        ids = np.array([encoding.ids for encoding in encodings], np.int32).reshape(shape)
        valid = np.array([encoding.attention_mask for encoding in encodings], bool).reshape(shape)
        return ids, valid


def with_length(tokenizer: TextTokenizer, length: int) -> TextTokenizer:
    """The same tokenizer at another context length."""
    # a copy: the setting is the library tokenizer's own
    copy = Tokenizer.from_str(tokenizer.tokenizer.to_str())
    padding = copy.padding or {}
    _set_length(copy, length, padding["pad_id"], padding["pad_token"])
    return replace(
        tokenizer,
        tokenizer=copy,
        context_length=length,
        raw_config=tokenizer.raw_config | {"model_max_length": length},
    )


def load_tokenizer(folder: Path, config: TextConfig) -> TextTokenizer:
    """The folder's tokenizer, at the length of its `tokenizer_config.json`, or the most the tower has.

    From `tokenizer.json`, or from `vocab.txt`, or from `vocab.json` with `merges.txt`. Raises UserError where there is
    none, where it is damaged or where it has more tokens than the tower.
    """
    path = folder / "tokenizer_config.json"
    raw = read_json(path, "a model folder") if path.is_file() else {}
    path = folder / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(path)) if path.is_file() else _from_vocabulary(folder, raw)
    except UserError:
        raise
    except Exception as error:  # the library raises plain Exception for a malformed file
        raise UserError(f"the tokenizer of {folder} is damaged: {error}.") from None
    if tokenizer.get_vocab_size() > config.vocab_size:
        raise UserError(
            f"the tokenizer of {folder} has {tokenizer.get_vocab_size()} tokens, its config room for "
            f"{config.vocab_size}."
        )
    length = min(int(raw.get("model_max_length") or config.max_length), config.max_length)
    pad_id, pad_token = _padding(tokenizer, raw, config)
    _set_length(tokenizer, length, pad_id, pad_token)
    return TextTokenizer(tokenizer, length, raw | {"model_max_length": length})


def save_tokenizer(tokenizer: TextTokenizer, folder: Path) -> None:
    """Write `tokenizer.json` and the `tokenizer_config.json` by which transformers finds it."""
    with whole_file(folder / "tokenizer.json") as partial:
        partial.write_text(tokenizer.tokenizer.to_str(pretty=True), encoding="utf-8")  # its own save hides a full disk
    # The files of slow tokenizers are gone; only the fast class reads tokenizer.json alone.
    write_json(folder / "tokenizer_config.json", {**tokenizer.raw_config, "tokenizer_class": "PreTrainedTokenizerFast"})


def train_tokenizer(captions: Iterable[str], vocab_size: int, length: int) -> tuple[TextTokenizer, dict[str, int]]:
    """A byte-level BPE vocabulary learned from `captions`, case-folded as CLIP's is; deterministic.

    Also returns pad_token_id, bos_token_id and eos_token_id; padding repeats the end-of-text token, as CLIP's does.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=True)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=[START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(captions, trainer)
    start, end = _frame_captions(tokenizer, START, END)
    _set_length(tokenizer, length, end, END)
    raw = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": START,
        "eos_token": END,
        "pad_token": END,
        "unk_token": END,
        "model_max_length": length,
    }
    return TextTokenizer(tokenizer, length, raw), {"pad_token_id": end, "bos_token_id": start, "eos_token_id": end}


def _set_length(tokenizer: Tokenizer, length: int, pad_id: int, pad_token: str) -> None:
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(pad_id=pad_id, pad_token=pad_token, length=length)


def _padding(tokenizer: Tokenizer, raw: Mapping[str, Any], config: TextConfig) -> tuple[int, str]:
    """Id and text of the padding token."""
    pad = raw.get("pad_token")
    pad = pad.get("content") if isinstance(pad, dict) else pad
    pad = pad or tokenizer.id_to_token(config.pad_token_id)
    if pad is None or (pad_id := tokenizer.token_to_id(pad)) is None:
        raise UserError(f"the tokenizer does not know its padding token {pad!r} (pad_token_id {config.pad_token_id}).")
    return pad_id, pad


def _from_vocabulary(folder: Path, raw: Mapping[str, Any]) -> Tokenizer:
    """A tokenizer from `vocab.txt`, or from `vocab.json` with `merges.txt`; `raw` is `tokenizer_config.json`."""
    if (folder / "vocab.txt").is_file():
        return _bert(folder / "vocab.txt", raw)
    if not (folder / "vocab.json").is_file() or not (folder / "merges.txt").is_file():
        raise UserError(f"{folder} has no tokenizer.json, no vocab.txt, and no vocab.json with merges.txt.")
    vocabulary = read_json(folder / "vocab.json", "a model folder")
    make_tokenizer = _clip if START in vocabulary else _roberta
    return make_tokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))


def _bert(path: Path, raw: Mapping[str, Any]) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece.from_file(str(path), unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=raw.get("tokenize_chinese_chars", True),
        strip_accents=raw.get("strip_accents"),
        lowercase=raw.get("do_lower_case", True),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(["[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]"])
    _frame_captions(tokenizer, "[CLS]", "[SEP]")
    return tokenizer


def _clip(vocabulary: str, merges: str) -> Tokenizer:
    model = models.BPE.from_file(
        vocabulary, merges, unk_token=END, end_of_word_suffix="</w>", continuing_subword_prefix="", fuse_unk=False
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_CLIP_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([START, END])
    _frame_captions(tokenizer, START, END)
    return tokenizer


def _roberta(vocabulary: str, merges: str) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE.from_file(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True), "<s>", "</s>", "<pad>", "<unk>"])
    _frame_captions(tokenizer, "<s>", "</s>")
    return tokenizer


def _frame_captions(tokenizer: Tokenizer, start: str, end: str) -> tuple[int, int]:
    """Let every caption begin with `start` and end with `end`; returns their ids."""
    start_id, end_id = tokenizer.token_to_id(start), tokenizer.token_to_id(end)
    assert start_id is not None and end_id is not None  # both were added as special tokens
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", special_tokens=[(start, start_id), (end, end_id)]
    )
    return start_id, end_id
