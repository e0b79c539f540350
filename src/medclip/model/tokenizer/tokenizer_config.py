"""What the files beside a vocabulary say of a tokenizer, every value checked, as transformers 5 reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from tokenizers import AddedToken

from medclip.atomic_io import read_optional
from medclip.errors import UserError

CONFIG_FILE = "tokenizer_config.json"
SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_EXTRA = ("extra_special_tokens", "additional_special_tokens")
Side = Literal["left", "right"]
Token = AddedToken | str
"""A plain string leaves the flags to the class."""
_NO_LIMIT = 2**31
_MAX_EXTRA_IDS = 10_000
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
_GENERIC = ("PreTrainedTokenizerFast", "PreTrainedTokenizer", "TokenizersBackend", "PythonBackend")
# The class that transformers takes where tokenizer_config.json names none, by the config's model_type.
_CLASS_OF_MODEL = {
    "bert": "BertTokenizer",
    "camembert": "CamembertTokenizer",
    "clip": "CLIPTokenizer",
    "distilbert": "BertTokenizer",
    "metaclip_2": "XLMRobertaTokenizer",
    "mpnet": "MPNetTokenizer",
    "roberta": "RobertaTokenizer",
    "siglip": "SiglipTokenizer",
    "siglip2": "Siglip2Tokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
}
_ALIASES = {
    "BartTokenizer": "RobertaTokenizer",
    "CXRBertTokenizer": "BertTokenizer",  # the repository's own code, which only renames BERT's
    "DistilBertTokenizer": "BertTokenizer",
    "ElectraTokenizer": "BertTokenizer",
    "LongformerTokenizer": "RobertaTokenizer",
    "MobileBertTokenizer": "BertTokenizer",
}


@dataclass(frozen=True)
class TokenizerConfig:
    """`tokenizer_config.json` with `special_tokens_map.json` and `added_tokens.json`; None where nothing is said."""

    class_name: str
    """transformers' class, without "Fast"; "" for one that takes tokenizer.json as it is."""
    raw: dict[str, Any]
    """`tokenizer_config.json`, as it is."""
    special_tokens: dict[str, Token]
    """By name (`pad_token`), a model's own among them."""
    added_tokens: tuple[AddedToken, ...]
    """In the order of their ids."""
    extra_special_tokens: tuple[Token, ...]
    names_extra_tokens: bool
    """Whether a file lists them, be it as none."""
    max_length: int | None
    padding_side: Side | None
    truncation_side: Side | None
    do_lower_case: bool | None
    strip_accents: bool | None
    tokenize_chinese_chars: bool | None
    add_prefix_space: bool | None
    split_special_tokens: bool
    extra_ids: int | None


def read_tokenizer_config(
    folder: Path, added_in_json: Sequence[Any] = (), overrides: Mapping[str, Any] = MappingProxyType({})
) -> TokenizerConfig:
    """The config of a folder; `added_in_json` are its tokenizer.json's added tokens, `overrides` win over the file.

    Raises UserError that names the file and the field whose value no tokenizer has.
    """
    raw = read_optional(folder / CONFIG_FILE, "a model folder") | dict(overrides)
    checked = _Checked(folder / CONFIG_FILE, raw)
    special, extra, added = _tokens(folder, checked, added_in_json)
    by_content = {token.content: token for token in added.values()}
    return TokenizerConfig(
        class_name=_class_name(checked, read_optional(folder / "config.json", "a model folder")),
        raw=raw,
        special_tokens={name: by_content.get(str(token), token) for name, token in special.items()},
        added_tokens=tuple(added[index] for index in sorted(added)),
        extra_special_tokens=tuple(extra),
        names_extra_tokens=bool(extra) or any(name in raw for name in _EXTRA),
        max_length=checked.length("model_max_length") or checked.length("max_len"),
        padding_side=checked.side("padding_side"),
        truncation_side=checked.side("truncation_side"),
        do_lower_case=checked.flag("do_lower_case"),
        strip_accents=checked.flag("strip_accents"),
        tokenize_chinese_chars=checked.flag("tokenize_chinese_chars"),
        add_prefix_space=checked.flag("add_prefix_space"),
        split_special_tokens=bool(checked.flag("split_special_tokens")),
        extra_ids=checked.count("extra_ids", _MAX_EXTRA_IDS),
    )


def _tokens(
    folder: Path, checked: _Checked, added_in_json: Sequence[Any]
) -> tuple[dict[str, Token], list[Token], dict[int, AddedToken]]:
    """Special tokens by name, further special tokens, and added tokens by id."""
    raw = checked.raw
    special = {name: value for name, value in raw.items() if name.endswith("_token") and not isinstance(value, bool)}
    extra = next((raw[name] for name in _EXTRA if raw.get(name)), [])
    added: dict[int, AddedToken] = {}
    if decoder := checked.object("added_tokens_decoder"):
        added = {checked.index(index): checked.added_token(token) for index, token in decoder.items()}
    else:  # the files of transformers before 4.34, which the decoder replaced
        special_map = read_optional(folder / "special_tokens_map.json", "a model folder")
        in_map = [special_map.pop(name, None) for name in _EXTRA]
        special, extra = special | special_map, in_map[0] or in_map[1] or extra
    if isinstance(extra, Mapping):  # names of a model's own tokens
        special, extra = {**special, **extra}, []
    named = {name: checked.token(name, value) for name, value in special.items() if value is not None}
    further = [checked.token("extra_special_tokens", token) for token in checked.array("extra_special_tokens", extra)]
    if not decoder:
        contents = {str(token) for token in (*named.values(), *further)}
        beside = _Checked(folder / "added_tokens.json", {})
        for content, index in read_optional(beside.path, "a model folder").items():
            is_special = content in contents
            added[beside.index(index)] = AddedToken(content, normalized=not is_special, special=is_special)
        in_json = _Checked(folder / "tokenizer.json", {})
        for token in added_in_json:
            added[in_json.index(token.get("id") if isinstance(token, Mapping) else token)] = in_json.added_token(token)
    return named, further, added


def _class_name(checked: _Checked, config: Mapping[str, Any]) -> str:
    """transformers' choice: tokenizer_config.json's class, else config.json's, else that of its model_type."""
    kind = config.get("model_type")
    registered = _CLASS_OF_MODEL.get(kind, "") if isinstance(kind, str) else ""
    name = checked.raw.get("tokenizer_class") or config.get("tokenizer_class") or registered
    if not isinstance(name, str):
        raise UserError(f"{checked.path}: tokenizer_class is {name!r}, not a name.")
    if kind == "siglip2":  # published with GemmaTokenizer, which does not lower-case; transformers takes its own
        return registered
    name = name if name in _GENERIC else name.removesuffix("Fast")
    return "" if name in _GENERIC else _ALIASES.get(name, name)


@dataclass(frozen=True)
class _Checked:
    """The fields of `tokenizer_config.json`, each checked as it is read."""

    path: Path
    raw: Mapping[str, Any]

    def object(self, name: str) -> Mapping[str, Any]:
        value = self.raw.get(name) or {}
        if not isinstance(value, Mapping):
            raise self._wrong(name, value, "an object")
        return value

    def array(self, name: str, value: Any) -> list[Any]:
        if not isinstance(value or [], list):
            raise self._wrong(name, value, "a list")
        return value or []

    def flag(self, name: str) -> bool | None:
        value = self.raw.get(name)
        if value is not None and not isinstance(value, bool):
            raise self._wrong(name, value, "true or false")
        return value

    def side(self, name: str) -> Side | None:
        value = self.raw.get(name)
        if value is not None and value not in ("left", "right"):
            raise self._wrong(name, value, "left or right")
        return value

    def length(self, name: str) -> int | None:
        """A number of tokens; "no limit" is written as 1e30."""
        value = self.raw.get(name)
        if value is not None and (not isinstance(value, (int, float)) or isinstance(value, bool) or not value >= 1):
            raise self._wrong(name, value, "a number of tokens")
        return None if value is None else int(min(value, _NO_LIMIT))

    def count(self, name: str, most: int) -> int | None:
        value = self.raw.get(name)
        if value is not None and (not isinstance(value, int) or not 0 <= value <= most):
            raise self._wrong(name, value, f"a number up to {most}")
        return value

    def index(self, value: Any) -> int:
        text = str(value)
        if isinstance(value, bool) or not text.isdecimal() or len(text) > 9:
            raise self._wrong("the id of an added token", value, "a token id")
        return int(text)

    def token(self, name: str, value: Any) -> Token:
        return value if isinstance(value, str) else self.added_token(value, name, special=True)

    def added_token(self, value: Any, name: str = "an added token", special: bool = False) -> AddedToken:
        content = value.get("content") if isinstance(value, Mapping) else None
        if not isinstance(content, str):
            raise self._wrong(name, value, "a token")
        flags = {flag: value[flag] for flag in _FLAGS if flag in value} | ({"special": True} if special else {})
        if not all(isinstance(flag, bool) for flag in flags.values()):
            raise self._wrong(name, value, "a token")
        return AddedToken(content, **flags)

    def _wrong(self, name: str, value: Any, what: str) -> UserError:
        return UserError(f"{self.path}: {name} is {str(value)[:80]!r}, not {what}.")
