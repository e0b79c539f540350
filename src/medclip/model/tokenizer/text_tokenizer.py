"""Captions to token ids, with the `tokenizers` library alone.

Which files of a folder say what is in `tokenizer_files`; open_clip's ways are in `open_clip_tokenizer`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int32
from tokenizers import Encoding, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from medclip.atomic_io import whole_file, write_json, write_text
from medclip.errors import UserError, WorkError
from medclip.model.config import TextConfig
from medclip.model.tokenizer.tokenizer_classes import frame_captions
from medclip.model.tokenizer.tokenizer_config import CONFIG_FILE, Side
from medclip.model.tokenizer.tokenizer_files import BuiltTokenizer, build_tokenizer, tokenizer_error
from medclip.model.tokenizer.vocab_files import END, JSON_FILE, SIGLIP_FILE, START, has_tokenizer
from medclip.plain_text import is_unicode

_TOKENIZERS = {31090: "allenai/scibert_scivocab_uncased"}
"""By vocabulary size: those of models that were published without one (flax-community/medclip-roco)."""
_PROBES = ("", "CT of the chest", "\u80f8\u90e8 \U0001fa7b \U0010ffff")
"""Captions of known and of unknown characters."""


@dataclass(frozen=True)
class TextTokenizer:
    """A tokenizer and the context length it is used at."""

    tokenizer: Tokenizer
    context_length: int
    raw_config: dict[str, Any]
    """`tokenizer_config.json`, whose class takes the saved tokenizer.json as it is."""
    clean: Callable[[str], str] | None = None
    """What is done to a caption first (open_clip)."""
    cleared_id: int | None = None
    """The token whose id becomes 0 (open_clip's strip_sep_token)."""
    masked_id: int | None = None
    """The id that marks padding wherever it is (open_clip's Hugging Face towers); None: padding alone does."""
    sentencepiece: bytes = b""
    """`spiece.model`, which transformers reads in place of tokenizer.json (SigLIP)."""

    def encode(self, captions: Sequence[str]) -> tuple[Int32[np.ndarray, "b t"], Bool[np.ndarray, "b t"]]:
        """Token ids, and True at real tokens; a long caption is cut, its special tokens kept.

        UserError for a text that is not Unicode, WorkError where the tokenizer fails on one.
        """
        texts = list(captions) if self.clean is None else [self.clean(caption) for caption in captions]
        try:
            encodings = self.tokenizer.encode_batch(texts)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # the library's own, or its panic: of an expression that tries too many ways
            raise _text_error(texts, error) from None
        shape = (len(encodings), self.context_length)
        ids = np.array([encoding.ids for encoding in encodings], np.int32).reshape(shape)
        valid = np.array([encoding.attention_mask for encoding in encodings], bool).reshape(shape)
        if self.cleared_id is not None:
            ids = np.where(ids == self.cleared_id, 0, ids)
        return ids, valid if self.masked_id is None else ids != self.masked_id

    def is_cut(self, caption: str) -> bool:
        """Whether a caption has more tokens than the context, so that `encode` leaves some out."""
        return bool(self.tokenizer.encode(caption if self.clean is None else self.clean(caption)).overflowing)


def _text_error(texts: Sequence[object], error: BaseException) -> BaseException:
    """What it means that the library could not encode texts; nothing of them is quoted."""
    if not all(isinstance(text, str) for text in texts):
        return error
    if not all(is_unicode(str(text)) for text in texts):
        return UserError("a text is not Unicode.")
    return WorkError("the model's tokenizer fails on a text: its files are damaged, or made to fail.")


def with_length(tokenizer: TextTokenizer, length: int) -> TextTokenizer:
    """The same tokenizer at another context length."""
    raw = tokenizer.raw_config | {"model_max_length": length}
    return _with_padding(tokenizer, length, (tokenizer.tokenizer.padding or {})["direction"], raw)


def padding_right(tokenizer: TextTokenizer) -> TextTokenizer:
    """The same tokenizer, which pads on the right: tokens are numbered as in a caption without padding."""
    raw = tokenizer.raw_config | {"padding_side": "right"}
    return _with_padding(tokenizer, tokenizer.context_length, "right", raw)


def _with_padding(tokenizer: TextTokenizer, length: int, side: Side, raw: dict[str, Any]) -> TextTokenizer:
    # a copy: the setting is the library tokenizer's own
    copy = Tokenizer.from_str(tokenizer.tokenizer.to_str())
    copy.encode_special_tokens = tokenizer.tokenizer.encode_special_tokens
    padding, truncation = copy.padding or {}, copy.truncation or {}
    _set_length(copy, length, padding["pad_id"], padding["pad_token"], side, truncation["direction"])
    return replace(tokenizer, tokenizer=copy, context_length=length, raw_config=raw)


def load_tokenizer(folder: Path, config: TextConfig) -> TextTokenizer:
    """The folder's tokenizer, at the length of its `tokenizer_config.json`, or the most the tower has.

    It gives the ids of transformers' `AutoTokenizer`. Raises UserError where there is none, where it is damaged or
    where it has more tokens than the tower.
    """
    check_has_tokenizer(folder, config)
    built = build_tokenizer(folder)
    length = min(built.max_length or config.max_length, config.max_length)
    return fit_tokenizer(built, folder, config, length)


def check_has_tokenizer(folder: Path, config: TextConfig) -> None:
    """Raise UserError that names --tokenizer where a folder holds none."""
    if not has_tokenizer(folder):
        known = _TOKENIZERS.get(config.vocab_size)
        raise UserError(
            f"{folder} has no tokenizer: no tokenizer.json, vocab.txt, vocab.json with merges.txt, spiece.model or "
            "sentencepiece.bpe.model; give another model's: --tokenizer MODEL of medclip train and medclip export, or "
            f"medclip.load(…, tokenizer=MODEL)"
            + (f" ({known} has the {config.vocab_size} tokens of this text tower)." if known else ".")
        )


def fit_tokenizer(built: BuiltTokenizer, folder: Path, config: TextConfig, length: int) -> TextTokenizer:
    """A tokenizer that cuts and pads to `length`. Raises UserError where it has more tokens than the tower."""
    tokenizer = built.tokenizer
    size = 1 + max(tokenizer.get_vocab().values(), default=-1)
    if size > config.vocab_size:
        raise UserError(f"the tokenizer of {folder} has {size} tokens, its config room for {config.vocab_size}.")
    pad_token = built.special_tokens.get("pad_token") or tokenizer.id_to_token(config.pad_token_id)
    if pad_token is None or (pad_id := tokenizer.token_to_id(pad_token)) is None:
        raise UserError(
            f"the tokenizer of {folder} does not know its padding token {pad_token!r} "
            f"(pad_token_id {config.pad_token_id})."
        )
    _set_length(tokenizer, length, pad_id, pad_token, built.padding_side, built.truncation_side)
    try:
        encodings = tokenizer.encode_batch(_PROBES)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # the library's own, of a vocabulary without its unknown token, or its panic
        raise tokenizer_error(folder, error) from None
    if any(len(encoding) != length for encoding in encodings):
        raise UserError(f"{folder / CONFIG_FILE}: model_max_length {length} leaves no room for the special tokens.")
    if built.padding_side == "left" and any(_pools_padding(encoding, config) for encoding in encodings):
        raise UserError(
            f"{folder / CONFIG_FILE}: padding_side is left, so the first {pad_token}, which the text tower pools, is "
            "padding, and short captions have one and the same embedding: set padding_side to right."
        )
    raw = {"pad_token": pad_token} | built.raw_config
    raw |= {"model_max_length": length, "padding_side": built.padding_side, "truncation_side": built.truncation_side}
    raw = dict(sorted(raw.items()))
    return TextTokenizer(tokenizer, length, raw, clean=built.clean, sentencepiece=built.sentencepiece)


def _pools_padding(encoding: Encoding, config: TextConfig) -> bool:
    """Whether the token that a tower takes for the end of a caption is one that nothing attends to."""
    if config.family.pool not in ("end", "argmax"):
        return False
    ids = np.array(encoding.ids)
    end = ids if config.family.pool == "argmax" else ids == config.eos_token_id
    return not encoding.attention_mask[int(end.argmax())]


def save_tokenizer(tokenizer: TextTokenizer, folder: Path) -> None:
    """Write `tokenizer.json`, or `spiece.model` for SigLIP, and the `tokenizer_config.json` that names its class."""
    if tokenizer.sentencepiece:
        with whole_file(folder / SIGLIP_FILE) as partial:
            partial.write_bytes(tokenizer.sentencepiece)
    else:  # the library's own save hides a full disk
        write_text(folder / JSON_FILE, tokenizer.tokenizer.to_str(pretty=True))
    write_json(folder / CONFIG_FILE, tokenizer.raw_config)


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
    frame_captions(tokenizer, START, END)
    start, end = tokenizer.token_to_id(START), tokenizer.token_to_id(END)
    assert start is not None and end is not None  # both were added as special tokens
    _set_length(tokenizer, length, end, END, "right", "right")
    raw = {
        "bos_token": START,
        "eos_token": END,
        "model_max_length": length,
        "pad_token": END,
        "padding_side": "right",
        "tokenizer_class": "PreTrainedTokenizerFast",
        "truncation_side": "right",
        "unk_token": END,
    }
    return TextTokenizer(tokenizer, length, raw), {"pad_token_id": end, "bos_token_id": start, "eos_token_id": end}


def _set_length(
    tokenizer: Tokenizer, length: int, pad_id: int, pad_token: str, padding_side: Side, truncation_side: Side
) -> None:
    tokenizer.enable_truncation(length, direction=truncation_side)
    tokenizer.enable_padding(direction=padding_side, pad_id=pad_id, pad_token=pad_token, length=length)
