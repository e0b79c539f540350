"""Captions to token ids, with the `tokenizers` library alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from medclip.atomic_io import read_json, whole_file, write_json
from medclip.errors import UserError
from medclip.model.config import TextConfig
from medclip.model.vocabulary import from_files

START, END = "<|startoftext|>", "<|endoftext|>"


@dataclass(frozen=True)
class TextTokenizer:
    """A tokenizer, the context length it is used at, and its `tokenizer_config.json`."""

    tokenizer: Tokenizer
    length: int
    raw_config: dict[str, Any]

    def encode(self, captions: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Ids i32 (b, length) and valid bool (b, length); a long caption is cut, its special tokens kept."""
        encoded = self.tokenizer.encode_batch(list(captions))
        ids = np.array([e.ids for e in encoded], np.int32).reshape(len(encoded), self.length)
        valid = np.array([e.attention_mask for e in encoded], bool).reshape(len(encoded), self.length)
        return ids, valid


def with_length(tokens: TextTokenizer, length: int) -> TextTokenizer:
    """The same tokenizer at another context length."""
    # a copy: the setting is the tokenizer's own
    tokenizer = Tokenizer.from_str(tokens.tokenizer.to_str())
    padding = tokenizer.padding
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(pad_id=padding["pad_id"], pad_token=padding["pad_token"], length=length)
    return replace(
        tokens, tokenizer=tokenizer, length=length, raw_config=tokens.raw_config | {"model_max_length": length}
    )


def load_tokenizer(folder: Path, config: TextConfig) -> TextTokenizer:
    """The folder's tokenizer, at the length its `tokenizer_config.json` asks for, or the most the tower has.

    From `tokenizer.json`, or from `vocab.txt`, or from `vocab.json` with `merges.txt`. UserError where there is none,
    where it is damaged or where it has more tokens than the tower.
    """
    path = folder / "tokenizer_config.json"
    said = read_json(path, "a model folder") if path.is_file() else {}
    path = folder / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(path)) if path.is_file() else from_files(folder, said)
    except UserError:
        raise
    except Exception as error:  # the library raises plain Exception for a malformed file
        raise UserError(f"the tokenizer of {folder} is damaged: {error}.") from None
    if tokenizer.get_vocab_size() > config.vocab_size:
        raise UserError(
            f"the tokenizer of {folder} has {tokenizer.get_vocab_size()} tokens, its config room for "
            f"{config.vocab_size}."
        )
    asked = said.get("model_max_length")
    length = min(int(asked), config.max_length) if asked else config.max_length
    pad = _padding(tokenizer, said, config)
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(pad_id=tokenizer.token_to_id(pad), pad_token=pad, length=length)
    return TextTokenizer(tokenizer, length, said | {"model_max_length": length})


def _padding(tokenizer: Tokenizer, said: dict[str, Any], config: TextConfig) -> str:
    pad = said.get("pad_token")
    pad = pad.get("content") if isinstance(pad, dict) else pad
    pad = pad or tokenizer.id_to_token(config.pad_token_id)
    if pad is None or tokenizer.token_to_id(pad) is None:
        raise UserError(f"the tokenizer does not know its padding token {pad!r} (pad_token_id {config.pad_token_id}).")
    return pad


def save_tokenizer(tokens: TextTokenizer, folder: Path) -> None:
    """Write `tokenizer.json` and the `tokenizer_config.json` by which transformers finds it."""
    with whole_file(folder / "tokenizer.json") as partial:
        tokens.tokenizer.save(str(partial))
    # The files of slow tokenizers are gone; only the fast class reads tokenizer.json alone.
    write_json(folder / "tokenizer_config.json", {**tokens.raw_config, "tokenizer_class": "PreTrainedTokenizerFast"})


def train_tokenizer(captions: Iterable[str], vocab_size: int, length: int) -> tuple[TextTokenizer, dict[str, int]]:
    """A byte-level BPE vocabulary learnt from `captions`, case-folded as CLIP's is; deterministic.

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
    start, end = (tokenizer.token_to_id(token) for token in (START, END))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, start), (END, end)]
    )
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(pad_id=end, pad_token=END, length=length)
    said = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": START,
        "eos_token": END,
        "pad_token": END,
        "unk_token": END,
        "model_max_length": length,
    }
    return TextTokenizer(tokenizer, length, said), {"pad_token_id": end, "bos_token_id": start, "eos_token_id": end}
