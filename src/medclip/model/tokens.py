"""Captions to token ids, with the `tokenizers` library alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from medclip.errors import UserError
from medclip.files import whole_file, write_json
from medclip.model.config import TextConfig

START, END = "<|startoftext|>", "<|endoftext|>"


@dataclass(frozen=True)
class Tokens:
    """A tokenizer with the context length it is used at; padding repeats the end-of-text token, as CLIP's does."""

    tokenizer: Tokenizer
    length: int

    def encode(self, captions: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Ids i32 (b, length) and valid bool (b, length); a long caption is cut, its special tokens kept."""
        encoded = self.tokenizer.encode_batch(list(captions))
        ids = np.array([e.ids for e in encoded], np.int32).reshape(len(encoded), self.length)
        valid = np.array([e.attention_mask for e in encoded], bool).reshape(len(encoded), self.length)
        return ids, valid

    @property
    def special(self) -> dict[str, int]:
        """Ids of pad, bos and eos."""
        start, end = self.tokenizer.token_to_id(START), self.tokenizer.token_to_id(END)
        return {"pad": end, "bos": start, "eos": end}


def _sized(tokenizer: Tokenizer, length: int) -> Tokens:
    end = tokenizer.token_to_id(END)
    if end is None or tokenizer.token_to_id(START) is None:
        raise UserError(f"tokenizer.json has no {START} and {END}: it is not a CLIP tokenizer.")
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(pad_id=end, pad_token=END, length=length)
    return Tokens(tokenizer, length)


def train_tokens(captions: Iterable[str], vocab_size: int, length: int) -> Tokens:
    """A byte-level BPE vocabulary learnt from `captions`, case-folded as CLIP's is; deterministic."""
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
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}",
        special_tokens=[(t, tokenizer.token_to_id(t)) for t in (START, END)],
    )
    return _sized(tokenizer, length)


def load_tokens(folder: Path, config: TextConfig) -> Tokens:
    """The folder's `tokenizer.json`, at the text tower's context length."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise UserError(f"{folder} has no tokenizer.json.")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception for a malformed file
        raise UserError(f"{path} is damaged: {error}.") from None
    if tokenizer.get_vocab_size() > config.vocab_size:
        raise UserError(f"{path} has {tokenizer.get_vocab_size()} tokens, config.json room for {config.vocab_size}.")
    return _sized(tokenizer, config.max_position_embeddings)


def save_tokens(tokens: Tokens, folder: Path) -> None:
    """Write `tokenizer.json` and the `tokenizer_config.json` by which transformers finds it."""
    with whole_file(folder / "tokenizer.json") as partial:
        tokens.tokenizer.save(str(partial))
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": START,
            "eos_token": END,
            "pad_token": END,
            "unk_token": END,
            "model_max_length": tokens.length,
        },
    )
