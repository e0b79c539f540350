"""Tokenizers from the vocabulary files of folders that have no `tokenizer.json`: BERT's, CLIP's and RoBERTa's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from medclip.atomic_io import read_json
from medclip.errors import UserError

# What CLIP splits text into, as its published vocabulary was learnt.
_CLIP_WORDS = r"""<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""


def from_files(folder: Path, said: Mapping[str, Any]) -> Tokenizer:
    """A tokenizer from `vocab.txt`, or from `vocab.json` with `merges.txt`; `said` is `tokenizer_config.json`.

    UserError where there is neither.
    """
    if (folder / "vocab.txt").is_file():
        return _word_piece(folder / "vocab.txt", said)
    if not (folder / "vocab.json").is_file() or not (folder / "merges.txt").is_file():
        raise UserError(f"{folder} has no tokenizer.json, no vocab.txt, and no vocab.json with merges.txt.")
    vocabulary = read_json(folder / "vocab.json", "a model folder")
    merges = str(folder / "merges.txt")
    return (_clip if "<|startoftext|>" in vocabulary else _roberta)(str(folder / "vocab.json"), merges)


def _word_piece(path: Path, said: Mapping[str, Any]) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece.from_file(str(path), unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=said.get("tokenize_chinese_chars", True),
        strip_accents=said.get("strip_accents"),
        lowercase=said.get("do_lower_case", True),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return _between(tokenizer, "[CLS]", "[SEP]", ("[PAD]", "[UNK]", "[MASK]"))


def _clip(vocabulary: str, merges: str) -> Tokenizer:
    start, end = "<|startoftext|>", "<|endoftext|>"
    model = models.BPE.from_file(
        vocabulary, merges, unk_token=end, end_of_word_suffix="</w>", continuing_subword_prefix="", fuse_unk=False
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
    return _between(tokenizer, start, end, ())


def _roberta(vocabulary: str, merges: str) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE.from_file(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    return _between(tokenizer, "<s>", "</s>", ("<pad>", "<unk>"))


def _between(tokenizer: Tokenizer, start: str, end: str, others: tuple[str, ...]) -> Tokenizer:
    tokenizer.add_special_tokens([start, end, *others])
    ids = [(token, tokenizer.token_to_id(token)) for token in (start, end)]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{start} $A {end}", special_tokens=ids)
    return tokenizer
