"""Tokenizer classes of transformers 5, built from a vocabulary as it builds them.

Its classes take the vocabulary, the merges and the added tokens of tokenizer.json and make the rest anew from
tokenizer_config.json: `do_lower_case` there wins over a tokenizer.json that says otherwise.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from medclip.model.tokenizer.sentencepiece_model import SentencePieceModel, parse_charsmap
from medclip.model.tokenizer.tokenizer_config import Side, TokenizerConfig
from medclip.model.tokenizer.vocab_files import END, START, ModelKind, Vocabulary

# CLIP's pre-tokenization, as its published vocabulary was learned.
CLIP_WORDS = r"""'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""

_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)
_SPACE = "▁"  # SentencePiece's
UNUSED = ("<s>NOTUSED", "</s>NOTUSED", "<unk>NOTUSED")
"""Of CamemBERT: fairseq's special tokens, beside which SentencePiece's are those used."""
_BREAK = "\ufdd0"  # no character; the tokenizer takes it away and joins no piece across it


class TokenizerClass(NamedTuple):
    """A tokenizer class of transformers."""

    build: Callable[[Vocabulary, TokenizerConfig, Mapping[str, str]], Tokenizer]
    """From the vocabulary, the config and the special tokens by name; without added tokens and frame."""
    model: ModelKind
    """The kind of model in its tokenizer.json."""
    special_tokens: Mapping[str, str]
    frame: tuple[str, str] | None = ("cls_token", "sep_token")
    """The special tokens around a caption, "" for none; None: as in tokenizer.json."""
    flags: Mapping[str, Mapping[str, bool]] = MappingProxyType({})
    """Of special tokens that the config gives as plain strings."""
    padding_side: Side = "right"
    max_length: int | None = None


def frame_captions(tokenizer: Tokenizer, start: str, end: str) -> None:
    """Let every caption begin with `start` and end with `end`, where not ""; they are tokens of the vocabulary."""
    frame = [(token, tokenizer.token_to_id(token)) for token in (start, end) if token]
    single = [*([start] if start else []), "$A", *([end] if end else [])]
    tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=frame)


def clip_tokenizer(vocabulary: Vocabulary, unk_token: str, words: str, splits_again: bool = True) -> Tokenizer:
    """CLIP's byte-level BPE over the words that a regular expression matches; no normalizer, no special tokens.

    transformers' class splits them again by GPT-2's expression (`splits_again`), open_clip's does not.
    """
    model = models.BPE(
        vocabulary.ids,
        vocabulary.merges,
        unk_token=unk_token,
        end_of_word_suffix="</w>",
        continuing_subword_prefix="",
        fuse_unk=False,
    )
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(words), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=splits_again),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _bert(vocabulary: Vocabulary, config: TokenizerConfig, special: Mapping[str, str]) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(vocabulary.ids, unk_token=special["unk_token"]))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=config.tokenize_chinese_chars is not False,
        strip_accents=config.strip_accents,
        lowercase=config.do_lower_case is not False,
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def _clip(vocabulary: Vocabulary, config: TokenizerConfig, special: Mapping[str, str]) -> Tokenizer:
    words = rf"<\|startoftext\|>|<\|endoftext\|>|{CLIP_WORDS}"
    tokenizer = clip_tokenizer(vocabulary, special["unk_token"], words)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    return tokenizer


def _roberta(vocabulary: Vocabulary, config: TokenizerConfig, special: Mapping[str, str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(vocabulary.ids, vocabulary.merges, fuse_unk=False))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=bool(config.add_prefix_space))
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _gemma(vocabulary: Vocabulary, config: TokenizerConfig, special: Mapping[str, str]) -> Tokenizer:
    model = models.BPE(
        vocabulary.ids, vocabulary.merges, unk_token=special["unk_token"], fuse_unk=True, byte_fallback=True
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


def _siglip2(vocabulary: Vocabulary, config: TokenizerConfig, special: Mapping[str, str]) -> Tokenizer:
    tokenizer = _gemma(vocabulary, config, special)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Replace(" ", "▁")])
    return tokenizer


def _xlm_roberta(vocabulary: Vocabulary, config: TokenizerConfig, special: Mapping[str, str]) -> Tokenizer:
    pieces = vocabulary.scores
    if vocabulary.sentencepiece:  # fairseq numbers four tokens anew and adds one
        first = [(special[name], 0.0) for name in ("bos_token", "pad_token", "eos_token", "unk_token")]
        pieces = [*first, *pieces[3:], (special["mask_token"], 0.0)]
    return _words_of_pieces(pieces, 3, vocabulary.charsmap, config.add_prefix_space is not False)


def _camembert(vocabulary: Vocabulary, config: TokenizerConfig, special: Mapping[str, str]) -> Tokenizer:
    pieces = vocabulary.scores
    if vocabulary.sentencepiece:  # fairseq puts five tokens before all pieces but the unknown one
        names = (UNUSED[0], special["pad_token"], UNUSED[1], special["unk_token"])
        pieces = [*((name, 0.0) for name in names), (UNUSED[2], -100.0), *pieces[1:], (special["mask_token"], 0.0)]
    unk_id = next((i for i, (token, _) in enumerate(pieces) if token == special["unk_token"]), 0)
    return _words_of_pieces(pieces, unk_id, vocabulary.charsmap, config.add_prefix_space is not False)


def _t5(vocabulary: Vocabulary, config: TokenizerConfig, special: Mapping[str, str]) -> Tokenizer:
    pieces = vocabulary.scores
    if vocabulary.sentencepiece:
        pieces = [*pieces, *((token, 0.0) for token in reversed(t5_sentinels(config)))]
    return _words_of_pieces(pieces, 2, vocabulary.charsmap, True)


def siglip_cleaner(
    model: SentencePieceModel, special_tokens: Iterable[str], eos_token: str, unk_token: str, lower: bool
) -> Callable[[str], str]:
    """What SigLIP does to a caption first: SentencePiece's normal form of it, special tokens left where they are.

    Between special tokens: lower case, no ASCII punctuation, single spaces, the model's own normalization; one space
    goes before the caption, none before what follows a special token. A caption that ends with `eos_token` loses it,
    since the tokenizer adds one.
    """
    charsmap = parse_charsmap(model.charsmap)
    special = "|".join(re.escape(token) for token in sorted(special_tokens, key=len, reverse=True))
    pattern = re.compile(f"({special})" if special else "(?!)()")
    letters = {piece.text for piece in model.pieces if len(piece.text) == 1}
    # transformers puts unk_token before such a part and drops its pieces; an unknown last one swallows unknown letters
    swallows = unk_token[-1:] not in letters and not model.byte_fallback

    def normalize(text: str) -> str:
        text = (text.lower() if lower else text).translate(_WITHOUT_PUNCTUATION)
        text = re.sub(r"\s+", " ", text).strip()
        if charsmap:  # which may make a special token of full-width letters; it is none
            text = pattern.sub(lambda match: match[0][:-1] + _BREAK + match[0][-1:], charsmap.apply(text))
        if not model.remove_extra_whitespaces:
            return text.replace(" ", _SPACE)
        return re.sub(" {2,}", " ", text).replace(" ", _SPACE).rstrip(_SPACE)

    def clean(caption: str) -> str:
        first, *others = pattern.split(_SPACE + caption.replace(_SPACE, " "))
        cleaned = [normalize(first)]
        for token, text in zip(others[::2], others[1::2], strict=True):
            text = normalize(text)
            known = (i for i, letter in enumerate(text) if letter in letters)
            cleaned += [token, text[next(known, len(text)) :] if swallows else text]
        return "".join(cleaned).removesuffix(eos_token)

    return clean


def t5_sentinels(config: TokenizerConfig) -> list[str]:
    """The tokens that T5 masks spans with, 100 unless the config says otherwise."""
    return [f"<extra_id_{i}>" for i in range(100 if config.extra_ids is None else config.extra_ids)]


def _words_of_pieces(pieces: list[tuple[str, float]], unk_id: int, charsmap: bytes, prefix_space: bool) -> Tokenizer:
    """Unigram within words, each with a space before it."""
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=unk_id, byte_fallback=False))
    if charsmap:
        tokenizer.normalizer = normalizers.Precompiled(charsmap)
    scheme = "always" if prefix_space else "never"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme=scheme)]
    )
    tokenizer.decoder = decoders.Metaspace(prepend_scheme=scheme)
    return tokenizer


def _siglip(vocabulary: Vocabulary, config: TokenizerConfig, special: Mapping[str, str]) -> Tokenizer:
    """SentencePiece's pieces of a text that `siglip_cleaner` has made ready."""
    model = vocabulary.sentencepiece
    assert model is not None  # this class reads spiece.model alone
    if model.is_bpe:
        ids = {piece.text: i for i, piece in enumerate(model.pieces)}
        unknown = model.pieces[model.unknown_id].text
        bpe = models.BPE(ids, model.merges(), unk_token=unknown, fuse_unk=True, byte_fallback=model.byte_fallback)
        tokenizer = Tokenizer(bpe)
    else:
        unigram = models.Unigram(vocabulary.scores, unk_id=model.unknown_id, byte_fallback=model.byte_fallback)
        tokenizer = Tokenizer(unigram)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(_BREAK, "removed")
    return tokenizer


_FAIRSEQ = {"bos_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "cls_token": "<s>", "pad_token": "<pad>",
            "unk_token": "<unk>", "mask_token": "<mask>"}  # fmt: skip
_GEMMA = {
    "bos_token": "<bos>",
    "eos_token": "<eos>",
    "pad_token": "<pad>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
}
_STRIPPED = {"lstrip": True, "rstrip": True, "normalized": False, "special": True}
CLASSES = {
    "BertTokenizer": TokenizerClass(
        _bert,
        "WordPiece",
        {
            "unk_token": "[UNK]",
            "sep_token": "[SEP]",
            "pad_token": "[PAD]",
            "cls_token": "[CLS]",
            "mask_token": "[MASK]",
        },
    ),
    "MPNetTokenizer": TokenizerClass(
        _bert,
        "WordPiece",
        _FAIRSEQ | {"unk_token": "[UNK]"},
        flags={name: {"lstrip": name == "mask_token"} for name in _FAIRSEQ},
    ),
    "CLIPTokenizer": TokenizerClass(
        _clip,
        "BPE",
        {"bos_token": START, "eos_token": END, "pad_token": END, "unk_token": END},
        frame=("bos_token", "eos_token"),
    ),
    "RobertaTokenizer": TokenizerClass(_roberta, "BPE", _FAIRSEQ),
    "XLMRobertaTokenizer": TokenizerClass(_xlm_roberta, "Unigram", _FAIRSEQ, frame=("bos_token", "eos_token")),
    "CamembertTokenizer": TokenizerClass(
        _camembert,
        "Unigram",
        _FAIRSEQ,
        frame=("bos_token", "eos_token"),
        flags={"mask_token": {"lstrip": True, "special": True}},
    ),
    "T5Tokenizer": TokenizerClass(
        _t5,
        "Unigram",
        {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"},
        frame=("", "eos_token"),
    ),
    "SiglipTokenizer": TokenizerClass(
        _siglip,
        "Unigram",
        {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "</s>"},
        frame=("", "eos_token"),
        flags=dict.fromkeys(("eos_token", "unk_token", "pad_token"), _STRIPPED),
        max_length=64,
    ),
    "GemmaTokenizer": TokenizerClass(_gemma, "BPE", _GEMMA, frame=None, padding_side="left"),
    "Siglip2Tokenizer": TokenizerClass(_siglip2, "BPE", _GEMMA, frame=None, padding_side="left"),
}
"""The classes of transformers that build anew what tokenizer.json says; others take it as it is."""
