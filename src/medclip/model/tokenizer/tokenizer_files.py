"""A folder's tokenizer as `AutoTokenizer` of transformers 5 opens it."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from tokenizers import AddedToken, Tokenizer

from medclip.atomic_io import read_optional
from medclip.errors import UserError
from medclip.model.tokenizer.sentencepiece_model import PieceKind
from medclip.model.tokenizer.tokenizer_classes import (
    CLASSES,
    UNUSED,
    TokenizerClass,
    frame_captions,
    siglip_cleaner,
    t5_sentinels,
)
from medclip.model.tokenizer.tokenizer_config import (
    CONFIG_FILE,
    SPECIAL_TOKENS,
    Side,
    Token,
    TokenizerConfig,
    read_tokenizer_config,
)
from medclip.model.tokenizer.tokenizer_steps import check_steps
from medclip.model.tokenizer.vocab_files import (
    JSON_FILE,
    SIGLIP_FILE,
    TOKENIZER_FILES,
    Vocabulary,
    class_of_files,
    read_vocabulary,
)

LOG = logging.getLogger("medclip.model")
_SIGLIP = "SiglipTokenizer"
_EMPTY = {
    "version": "1.0",
    "added_tokens": [],
    "normalizer": None,
    "pre_tokenizer": None,
    "decoder": None,
    "model": {"type": "BPE", "vocab": {}, "merges": []},
}
"""A tokenizer.json without a vocabulary."""
_OBJECT, _LIST, _TEXT = (dict, "an object"), (list, "a list"), (str, "text")
_JSON_FIELDS = {
    **dict.fromkeys(("model", "normalizer", "pre_tokenizer", "post_processor", "decoder"), _OBJECT),
    **{"padding": _OBJECT, "truncation": _OBJECT, "added_tokens": _LIST},
}
_JSON_MODEL_FIELDS = {"type": _TEXT, "vocab": (dict | list, "an object or a list"), "merges": _LIST}


class BuiltTokenizer(NamedTuple):
    """A tokenizer that neither cuts nor pads yet, and how its class and its config do."""

    tokenizer: Tokenizer
    raw_config: dict[str, Any]
    """The `tokenizer_config.json` of the tokenizer as it will be saved, but for length and sides."""
    special_tokens: Mapping[str, str]
    """By name (`pad_token`), with the class's own."""
    padding_side: Side = "right"
    truncation_side: Side = "right"
    max_length: int | None = None
    clean: Callable[[str], str] | None = None
    """What is done to a caption first."""
    sentencepiece: bytes = b""
    """`spiece.model`, which is saved in place of tokenizer.json (SigLIP)."""


def build_tokenizer(folder: Path, overrides: Mapping[str, Any] = MappingProxyType({})) -> BuiltTokenizer:
    """A folder's tokenizer; `overrides` win over tokenizer_config.json.

    Raises UserError where there is none, or where a file is damaged or of a kind that is not supported.
    """
    raw = read_tokenizer_json(folder)
    config = read_tokenizer_config(folder, raw.get("added_tokens") or [], overrides)
    try:
        name = _class_name(folder, config, raw)
        return _build(folder, name, config, raw) if name else _as_it_is(folder, config, raw)
    except (UserError, KeyboardInterrupt):
        raise
    except BaseException as error:  # the library raises plain Exception for a malformed file, or panics
        raise tokenizer_error(folder, error) from None


def tokenizer_error(folder: Path, error: BaseException) -> UserError:
    """What the library finds wrong with a folder's tokenizer, as an error that names its files."""
    files = [name for name in (*TOKENIZER_FILES, "merges.txt") if (folder / name).is_file()]
    reason = " ".join(str(error).split())[:200]
    return UserError(f"{folder}: {', '.join(files)} and {CONFIG_FILE} make no tokenizer: {reason}.")


def read_tokenizer_json(folder: Path) -> dict[str, Any]:
    """`tokenizer.json` with its outer fields and its vocabulary checked; {} where there is none."""
    path = folder / JSON_FILE
    raw = read_optional(path, "a model folder")
    for fields, place, names in ((raw, "", _JSON_FIELDS), (raw.get("model") or {}, "model.", _JSON_MODEL_FIELDS)):
        for name, (kind, what) in names.items() if isinstance(fields, Mapping) else ():
            if not isinstance(fields.get(name), kind | None):
                raise UserError(f"{path}: {place}{name} is {str(fields[name])[:80]!r}, not {what}.")
    vocab, merges = ((raw.get("model") or {}).get(name) or () for name in ("vocab", "merges"))
    if isinstance(vocab, Mapping):
        wrong = next((item for item in vocab.items() if type(item[1]) is not int or not 0 <= item[1] < 2**31), None)
    else:
        wrong = next((entry for entry in vocab if not _is_scored(entry)), None)
    if wrong is not None:
        raise UserError(f"{path}: model.vocab has {str(wrong)[:80]!r}, which is not a token with its number.")
    if (pair := next((merge for merge in merges if not _is_merge(merge)), None)) is not None:
        raise UserError(f"{path}: model.merges has {str(pair)[:80]!r}, which is not two tokens.")
    return raw


def _is_scored(entry: Any) -> bool:
    """Whether this is a token of Unigram with its log probability."""
    match entry:
        case [str(), int() | float() as score]:
            return math.isfinite(score)
    return False


def _is_merge(merge: Any) -> bool:
    parts = merge.split(" ") if isinstance(merge, str) else merge
    return isinstance(parts, list) and len(parts) == 2 and all(isinstance(part, str) for part in parts)


def _class_name(folder: Path, config: TokenizerConfig, raw: Mapping[str, Any]) -> str:
    """The class of CLASSES to build, or "" to take tokenizer.json as it is."""
    name, has_json = config.class_name, (folder / JSON_FILE).is_file()
    if name == _SIGLIP and not (folder / SIGLIP_FILE).is_file():
        name = ""  # transformers does not open such a folder; tokenizer.json says what is meant
    if not name and not has_json:
        name = class_of_files(folder)
    if name and name not in CLASSES:
        if not has_json:
            raise UserError(f"{folder}: tokenizer_class {name} without a tokenizer.json is not supported.")
        LOG.warning("%s: tokenizer_class %s is not known; its tokenizer.json is used as it is.", folder, name)
        return ""
    if name and name != _SIGLIP and has_json:
        kind = (raw.get("model") or {}).get("type", CLASSES[name].model)
        if kind != CLASSES[name].model:
            raise UserError(f"{folder}: tokenizer_class {name} does not take the {kind} vocabulary of tokenizer.json.")
    return name


def _as_it_is(folder: Path, config: TokenizerConfig, raw: Mapping[str, Any]) -> BuiltTokenizer:
    check_steps(raw, folder / JSON_FILE)
    tokenizer = Tokenizer.from_str(json.dumps(raw))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    _add_tokens(tokenizer, config.special_tokens, config, config.extra_special_tokens)
    return _with_settings(tokenizer, config, config.special_tokens, raw)


def _build(folder: Path, name: str, config: TokenizerConfig, raw: Mapping[str, Any]) -> BuiltTokenizer:
    kind, raw = CLASSES[name], {} if name == _SIGLIP else raw  # transformers reads SigLIP's spiece.model alone
    vocabulary = read_vocabulary(folder, raw, kind.model)
    special = {
        name: AddedToken(token, **kind.flags[name]) if isinstance(token, str) and name in kind.flags else token
        for name, token in {**kind.special_tokens, **config.special_tokens}.items()
    }
    tokenizer = kind.build(vocabulary, config, {name: str(token) for name, token in special.items()})
    _add_tokens(tokenizer, special, config, [*config.extra_special_tokens, *_further_tokens(name, vocabulary, config)])
    if kind.frame:
        frame_captions(tokenizer, *(str(special[end]) if end else "" for end in kind.frame))
    else:
        whole = _EMPTY | {"post_processor": raw.get("post_processor")}
        check_steps(whole, folder / JSON_FILE)
        tokenizer.post_processor = Tokenizer.from_str(json.dumps(whole)).post_processor
    built = _with_settings(tokenizer, config, special, raw, kind)
    if name != _SIGLIP:
        return built
    assert vocabulary.sentencepiece is not None  # raw is {}
    matched = () if config.split_special_tokens else tokenizer.get_added_tokens_decoder().values()
    clean = siglip_cleaner(
        vocabulary.sentencepiece,
        [token.content for token in matched],
        str(special["eos_token"]),
        str(special["unk_token"]),
        config.do_lower_case is not False,
    )
    content = (folder / SIGLIP_FILE).read_bytes()
    own_config = config.raw | {"tokenizer_class": _SIGLIP}
    return built._replace(raw_config=own_config, clean=clean, sentencepiece=content)


def _with_settings(
    tokenizer: Tokenizer,
    config: TokenizerConfig,
    special: Mapping[str, Token],
    raw: Mapping[str, Any],
    kind: TokenizerClass | None = None,
) -> BuiltTokenizer:
    tokenizer.encode_special_tokens = config.split_special_tokens
    padding, truncation = raw.get("padding") or {}, raw.get("truncation") or {}
    names = {name: str(token) for name, token in special.items() if name in SPECIAL_TOKENS}
    if isinstance(padding.get("pad_token"), str):
        names = {"pad_token": padding["pad_token"], **names}
    # A class of its own would make the tokenizer anew; this one takes the saved tokenizer.json as it is.
    own_config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", **names}
    if config.split_special_tokens:
        own_config["split_special_tokens"] = True
    if isinstance(config.raw.get("model_input_names"), list):  # SigLIP's leave out the mask, which its tower would heed
        own_config["model_input_names"] = config.raw["model_input_names"]
    return BuiltTokenizer(
        tokenizer,
        own_config,
        names,
        config.padding_side or _direction(padding) or (kind.padding_side if kind else "right"),
        config.truncation_side or _direction(truncation) or "right",
        config.max_length or (kind.max_length if kind else None),
    )


def _further_tokens(name: str, vocabulary: Vocabulary, config: TokenizerConfig) -> list[Token]:
    """Special tokens that the class adds of itself."""
    tokens: list[Token] = []
    if name == _SIGLIP or config.names_extra_tokens:
        return tokens
    if model := vocabulary.sentencepiece:
        marked = [piece for piece in model.pieces if piece.kind in (PieceKind.CONTROL, PieceKind.USER_DEFINED)]
        tokens += [AddedToken(p.text, normalized=False, special=p.kind == PieceKind.CONTROL) for p in marked]
    if name == "CamembertTokenizer" and not vocabulary.sentencepiece:
        tokens += UNUSED
    return tokens + t5_sentinels(config) if name == "T5Tokenizer" else tokens


def _add_tokens(
    tokenizer: Tokenizer, special: Mapping[str, Token], config: TokenizerConfig, extra: Sequence[Token]
) -> None:
    """Add the tokens that the vocabulary does not already treat as such, in transformers' order."""
    present = tokenizer.get_added_tokens_decoder().values()
    flags = {repr(token) for token in present}
    tokens: list[Token] = [token for token in config.added_tokens if repr(token) not in flags]
    known = {str(token) for token in (*present, *tokens)}
    names = sorted(special, key=lambda name: SPECIAL_TOKENS.index(name) if name in SPECIAL_TOKENS else len(special) + 7)
    tokens += [token for token in (*(special[name] for name in names), *extra) if str(token) not in known]
    contents = {str(token) for token in special.values()}
    added = [AddedToken(token, special=True) if isinstance(token, str) else token for token in tokens]
    for token in added:
        token.special = token.special or token.content in contents
    tokenizer.add_tokens(added)


def _direction(setting: Mapping[str, Any]) -> Side | None:
    """The side of tokenizer.json's own padding or truncation."""
    side = str(setting.get("direction") or "").lower()
    return side if side in ("left", "right") else None
