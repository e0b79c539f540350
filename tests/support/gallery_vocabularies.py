"""Tokenizers of the gallery in the published files of their kinds, small where the vocabulary is free to choose."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from support.gallery import TEXTS

CORPUS = [*TEXTS, "lungs are clear, no pleural effusion", "coronal T1 image of the left knee", "Röntgen, œdema"] * 8
BERT_VOCABULARY = 400
PIECES = 150
"""Entries of a small vocabulary, at most; the tables of the towers have BERT_VOCABULARY rows."""


def _write(folder: Path, name: str, value: Any) -> None:
    (folder / name).write_text(json.dumps(value, ensure_ascii=False, indent=2), encoding="utf-8")


def _write_fast(folder: Path) -> None:
    """`tokenizer.json` beside a slow vocabulary, as transformers converts it; the config stays as published."""
    import transformers

    config = (folder / "tokenizer_config.json").read_text(encoding="utf-8")
    transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
    (folder / "tokenizer_config.json").write_text(config, encoding="utf-8")


def clip_tokenizer(folder: Path) -> None:
    """CLIP's own 49,408 entries, slow and fast files, from the merges that open_clip installs."""
    from open_clip.tokenizer import SimpleTokenizer

    simple = SimpleTokenizer()
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    _write(folder, "vocab.json", {names.get(token, token): i for token, i in simple.encoder.items()})
    merges = (" ".join(pair) for pair in sorted(simple.bpe_ranks, key=simple.bpe_ranks.__getitem__))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>",
               "unk_token": "<|endoftext|>"}  # fmt: skip
    _write(folder, "special_tokens_map.json", special)
    config = {"add_prefix_space": False, "do_lower_case": True, "errors": "replace", "model_max_length": 77,
              "tokenizer_class": "CLIPTokenizer", **special}  # fmt: skip
    _write(folder, "tokenizer_config.json", config)
    _write_fast(folder)


def bert_tokenizer(folder: Path, max_length: int = 1000000000000000019884624838656) -> None:
    """An uncased WordPiece vocabulary with vocab.txt and tokenizer.json (PubMedBERT's layout)."""
    from tokenizers import BertWordPieceTokenizer

    pieces = BertWordPieceTokenizer(lowercase=True)
    pieces.train_from_iterator(CORPUS, vocab_size=BERT_VOCABULARY, show_progress=False)
    pieces.save_model(str(folder))
    special = {"cls_token": "[CLS]", "mask_token": "[MASK]", "pad_token": "[PAD]", "sep_token": "[SEP]",
               "unk_token": "[UNK]"}  # fmt: skip
    _write(folder, "special_tokens_map.json", special)
    config = {
        "do_lower_case": True,
        "do_basic_tokenize": True,
        "model_max_length": max_length,
        "never_split": None,
        "strip_accents": None,
        "tokenize_chinese_chars": True,
        "tokenizer_class": "BertTokenizer",
        **special,
    }
    _write(folder, "tokenizer_config.json", config)
    _write_fast(folder)


def mpnet_tokenizer(folder: Path) -> None:
    """MPNet's: BERT's pieces with RoBERTa's special tokens first, as all-mpnet-base-v2 holds them."""
    bert_tokenizer(folder, 512)
    pieces = (folder / "vocab.txt").read_text(encoding="utf-8").split("\n")
    rest = [piece for piece in pieces if piece and piece not in ("[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]")]
    pieces = ["<s>", "<pad>", "</s>", "<unk>", *rest, "[UNK]", "<mask>"]
    (folder / "vocab.txt").write_text("\n".join([*pieces, ""]), encoding="utf-8")
    (folder / "tokenizer.json").unlink()
    special = {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "mask_token": "<mask>",
               "pad_token": "<pad>", "sep_token": "</s>", "unk_token": "[UNK]"}  # fmt: skip
    _write(folder, "special_tokens_map.json", special)
    config = {"do_lower_case": True, "model_max_length": 512, "strip_accents": None, "tokenize_chinese_chars": True,
              "tokenizer_class": "MPNetTokenizer", **special}  # fmt: skip
    _write(folder, "tokenizer_config.json", config)
    _write_fast(folder)


def roberta_tokenizer(folder: Path) -> None:
    """Byte-level BPE with vocab.json, merges.txt and tokenizer.json."""
    from tokenizers import ByteLevelBPETokenizer

    pieces = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    pieces.train_from_iterator(CORPUS, vocab_size=BERT_VOCABULARY, special_tokens=special, show_progress=False)
    pieces.save_model(str(folder))
    _write(folder, "tokenizer_config.json", {"model_max_length": 512, "tokenizer_class": "RobertaTokenizer"})
    _write_fast(folder)


def _sentence_pieces(**options: Any) -> bytes:
    import sentencepiece

    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS), model_writer=out, vocab_size=PIECES, hard_vocab_limit=False, minloglevel=2,
        **options,
    )  # fmt: skip
    return out.getvalue()


def xlm_roberta_tokenizer(folder: Path) -> None:
    """A unigram model of sentencepiece with tokenizer.json, as xlm-roberta-base and xlm-v-base hold them."""
    (folder / "sentencepiece.bpe.model").write_bytes(_sentence_pieces())
    config = {"model_max_length": 512, "tokenizer_class": "XLMRobertaTokenizer"}
    _write(folder, "tokenizer_config.json", config)
    _write_fast(folder)


def c4_tokenizer(folder: Path) -> None:
    """SigLIP's in open_clip's layout: T5's pieces without sentinels, `</s>` for padding, tokenizer.json alone."""
    import transformers

    (folder / "spiece.model").write_bytes(_sentence_pieces(pad_id=0, eos_id=1, unk_id=2, bos_id=-1))
    tokenizer = transformers.T5TokenizerFast.from_pretrained(folder, extra_ids=0, legacy=False)
    tokenizer.pad_token_id = tokenizer.eos_token_id = 1
    tokenizer.save_pretrained(folder)
    special = {"eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>"}
    _write(folder, "special_tokens_map.json", special)
    config = {"additional_special_tokens": [], "clean_up_tokenization_spaces": True, "extra_ids": 0, "legacy": False,
              "model_max_length": 64, "tokenizer_class": "T5Tokenizer", **special}  # fmt: skip
    _write(folder, "tokenizer_config.json", config)
    (folder / "spiece.model").unlink()


def gemma_tokenizer(folder: Path) -> None:
    """SigLIP 2's in open_clip's layout: a BPE over spaces written as "▁", `<eos>` added, right padding."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    pieces = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    pieces.normalizer = normalizers.Replace(" ", "▁")
    pieces.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    pieces.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=PIECES + 256, special_tokens=[*special, *bytes_], show_progress=False)
    )
    pieces.post_processor = processors.TemplateProcessing(
        single="$A <eos>", pair="$A <eos> $B <eos>", special_tokens=[("<eos>", 1)]
    )
    raw = json.loads(pieces.to_str())
    raw["added_tokens"] = [token for token in raw["added_tokens"] if not token["content"].startswith("<0x")]
    _write(folder, "tokenizer.json", raw)
    tokens = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
    _write(folder, "special_tokens_map.json", tokens)
    config = {
        "add_bos_token": False,
        "add_eos_token": True,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 64,
        "padding_side": "right",
        "tokenizer_class": "GemmaTokenizer",
        **tokens,
    }
    _write(folder, "tokenizer_config.json", config)
