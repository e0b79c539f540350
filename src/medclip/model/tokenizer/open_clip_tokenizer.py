"""open_clip's tokenizers: its own (OpenAI CLIP's vocabulary) and transformers', both after cleaning the caption.

Its config (`text_cfg`) says which, with what cleaning and to what length. The folder's own files give the vocabulary;
open_clip itself has CLIP's built in.
"""

from __future__ import annotations

import dataclasses
import html
import re
import string
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from medclip.errors import UserError
from medclip.model.config import TextConfig
from medclip.model.tokenizer.text_tokenizer import TextTokenizer, check_has_tokenizer, fit_tokenizer
from medclip.model.tokenizer.tokenizer_classes import CLIP_WORDS, clip_tokenizer, frame_captions
from medclip.model.tokenizer.tokenizer_files import BuiltTokenizer, build_tokenizer, read_tokenizer_json
from medclip.model.tokenizer.vocab_files import END, START, Vocabulary, read_vocabulary

DEFAULT_CONTEXT_LENGTH = 77
_OWN_START, _OWN_END = "<start_of_text>", "<end_of_text>"
# Its words ignore case, for which "ſ" is an s.
_OWN_WORDS = f"(?i:<(?:start|end)_of_text>|'ſ|{CLIP_WORDS})"
_SPECIAL_OR_PUNCTUATION = re.compile(r"<(?:start|end)_of_text>|(?:[^\w\s]|_)+(?=(?:start|end)_of_text>)")
_UNCHANGED_BY_FTFY = re.compile(r"[ -%'-~\n\t]*")  # no "&", which may begin an HTML entity
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


def load_open_clip_tokenizer(folder: Path, config: TextConfig, raw: Mapping[str, Any]) -> TextTokenizer:
    """The tokenizer of a folder as `open_clip.get_tokenizer` gives it for `open_clip_config.json` (`raw`).

    Padding is zeros, or the Hugging Face tokenizer's own. Raises UserError for what it has and we do not.
    """
    check_has_tokenizer(folder, config)
    text_cfg = raw["model_cfg"]["text_cfg"]
    options = _options(text_cfg)
    length = text_cfg.get("context_length", DEFAULT_CONTEXT_LENGTH)
    if not isinstance(length, int) or isinstance(length, bool) or not 3 <= length <= config.max_length:
        raise UserError(
            f"open_clip_config.json: context_length is {length!r}; the text tower has positions for 3 to "
            f"{config.max_length} tokens."
        )
    if not text_cfg.get("hf_tokenizer_name"):
        clean = CLEANERS[options.get("clean", "lower")]
        tokenizer = fit_tokenizer(_own_tokenizer(folder), folder, config, length)
        return dataclasses.replace(tokenizer, clean=lambda caption: _split_after_punctuation(clean(caption)))
    clean, strip_sep = CLEANERS[options.pop("clean", "whitespace")], options.pop("strip_sep_token", False)
    built = build_tokenizer(folder, options)
    tokenizer = fit_tokenizer(built, folder, config, length)
    cleared = built.tokenizer.token_to_id(built.special_tokens.get("sep_token", "")) if strip_sep else None
    masked = config.pad_token_id if text_cfg.get("hf_model_name") else None
    return dataclasses.replace(tokenizer, clean=clean, cleared_id=cleared, masked_id=masked)


def clean_lower(caption: str) -> str:
    """Without mojibake, HTML entities and repeated spaces; in lower case."""
    return clean_whitespace(caption).lower()


def clean_whitespace(caption: str) -> str:
    """Without mojibake, HTML entities and repeated spaces."""
    return " ".join(_clean_basic(caption).split())


def clean_canonicalize(caption: str) -> str:
    """Without ASCII punctuation too, in lower case (big_vision's, for SigLIP)."""
    text = _clean_basic(caption).replace("_", " ").translate(_WITHOUT_PUNCTUATION)
    return " ".join(text.lower().split())


CLEANERS: Mapping[Any, Callable[[str], str]] = {
    "lower": clean_lower,
    "whitespace": clean_whitespace,
    "canonicalize": clean_canonicalize,
}
_PASSED_ON = ("do_lower_case", "strip_accents", "tokenize_chinese_chars", "padding_side", "truncation_side",
              "add_prefix_space", "extra_ids", "pad_token", "eos_token", "bos_token", "unk_token")  # fmt: skip


def _clean_basic(caption: str) -> str:
    if not _UNCHANGED_BY_FTFY.fullmatch(caption):
        import ftfy  # 0.1 s, and most captions do without

        caption = ftfy.fix_text(caption)
    return html.unescape(html.unescape(caption)).strip()


def _split_after_punctuation(text: str) -> str:
    """The text with special tokens only where open_clip finds them: punctuation before one takes its "<"."""
    if "_of_text>" not in text:
        return text
    return _SPECIAL_OR_PUNCTUATION.sub(lambda match: match[0] + " " * (match[0][-1] != ">"), text)


def _options(text_cfg: Mapping[str, Any]) -> dict[str, Any]:
    """`tokenizer_kwargs`, checked."""
    options = text_cfg.get("tokenizer_kwargs") or {}
    if not isinstance(options, Mapping):
        raise UserError("open_clip_config.json: tokenizer_kwargs is not an object.")
    if mode := text_cfg.get("tokenizer_mode"):
        raise UserError(f"open_clip_config.json: tokenizer_mode {mode!r} is not supported.")
    clean, strip_sep = options.get("clean", "lower"), options.get("strip_sep_token", False)
    if not isinstance(clean, str) or clean not in CLEANERS or not isinstance(strip_sep, bool):
        raise UserError(
            f"open_clip_config.json: tokenizer_kwargs with clean {clean!r} and strip_sep_token {strip_sep!r} is not "
            "supported."
        )
    own = not text_cfg.get("hf_tokenizer_name")
    known = {"clean", *(() if own else ("strip_sep_token", "use_fast", *_PASSED_ON))}
    if unknown := sorted(options.keys() - known):
        raise UserError(f"open_clip_config.json: tokenizer_kwargs with {unknown[0]} is not supported.")
    return {name: value for name, value in options.items() if name != "use_fast"}


def _own_tokenizer(folder: Path) -> BuiltTokenizer:
    """open_clip's SimpleTokenizer from the CLIP vocabulary of a folder, its two special tokens under its own names.

    It pads with zeros, and does not take CLIP's "<|endoftext|>" in a caption for the end.
    """
    vocabulary = read_vocabulary(folder, read_tokenizer_json(folder), "BPE")
    renamed = {START: _OWN_START, END: _OWN_END}
    ids = {renamed.get(token, token): i for token, i in vocabulary.ids.items()}
    if not {_OWN_START, _OWN_END} <= ids.keys():
        raise UserError(f"{folder} does not hold CLIP's vocabulary, which open_clip's own tokenizer takes.")
    tokenizer = clip_tokenizer(Vocabulary(ids, vocabulary.merges), _OWN_END, _OWN_WORDS, splits_again=False)
    tokenizer.add_tokens([AddedToken(token, special=True) for token in (_OWN_START, _OWN_END)])
    frame_captions(tokenizer, _OWN_START, _OWN_END)
    # What is saved opens in transformers as CLIP's class, which cleans less; "!", token 0, is no padding there.
    ends = dict.fromkeys(("eos_token", "unk_token", "pad_token"), _OWN_END)
    raw = {"tokenizer_class": "CLIPTokenizer", "bos_token": _OWN_START, **ends}
    return BuiltTokenizer(tokenizer, raw, {"pad_token": tokenizer.id_to_token(0) or ""})
