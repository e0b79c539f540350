"""Tokenizer files of the published repositories, with vocabularies of a few hundred tokens."""

from __future__ import annotations

import io
import json
import re
import string
from pathlib import Path
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from support.gallery import TEXTS

CORPUS = (
    "CT of the chest, axial view, shows a right pleural effusion",
    "MRI of the left knee with a tear of the medial meniscus",
    "Échographie rénale à gauche, x-ray of the pelvis, T2-weighted STIR sequence",
    "Kienböck's disease; UPPER case of the lower lobe, 5–10 mm & 50% ground-glass",
    "Literal tokens, the patient's abdominal ultrasound after contrast",
    *TEXTS,
) * 2
START, END = "<|startoftext|>", "<|endoftext|>"
_CLIP_WORDS = r"""<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def added_token(content: str, **fields: bool) -> dict[str, Any]:
    """An added token as tokenizer_config.json wrote it in 2021."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True} | fields
    return {"content": content, **flags, "__type": "AddedToken"}


def clip_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """CLIP's order: bytes, bytes that end a word, merges, the two special tokens.

    Merges build every second word from its left end: learned ones differ from run to run.
    """
    split = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_CLIP_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    words = sorted({word for text in CORPUS for word, _ in split.pre_tokenize_str(text.lower())})
    merges: dict[tuple[str, str], None] = {}
    for word in words[::2]:
        symbols = [*word[:-1], f"{word[-1]}</w>"]
        for end in range(1, len(symbols)):
            merges["".join(symbols[:end]), symbols[end]] = None
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*letters, *(letter + "</w>" for letter in letters), *("".join(m) for m in merges), START, END]
    return {token: i for i, token in enumerate(dict.fromkeys(tokens))}, list(merges)


def open_clip_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """CLIP's whole vocabulary, which open_clip carries and takes for every tower of its own."""
    from open_clip.tokenizer import SimpleTokenizer

    simple = SimpleTokenizer()
    names = {"<start_of_text>": START, "<end_of_text>": END}
    vocabulary = {names.get(token, token): i for token, i in simple.encoder.items()}
    return vocabulary, sorted(simple.bpe_ranks, key=simple.bpe_ranks.__getitem__)


def clip_files(folder: Path, slow: bool = True, fast: bool = True, whole: bool = False) -> int:
    """The vocabulary, tokenizer.json of 2021 (merges as strings) and both configs; gives the number of tokens."""
    vocabulary, merges = open_clip_vocabulary() if whole else clip_vocabulary()
    if slow:
        write_json(folder / "vocab.json", vocabulary)
        lines = ["#version: 0.2", *(" ".join(m) for m in merges)]
        (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    if fast:
        end, start = vocabulary[END], vocabulary[START]
        special = [
            {"id": i, "special": True, "content": token, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False}
            for token, i in ((START, start), (END, end))
        ]  # fmt: skip
        tokenizer = Tokenizer(
            models.BPE(vocabulary, merges, unk_token=END, continuing_subword_prefix="", end_of_word_suffix="</w>")
        )
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
        )
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(_CLIP_WORDS), behavior="removed", invert=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        )
        tokenizer.post_processor = processors.RobertaProcessing((END, end), (START, start), False, False)
        tokenizer.decoder = decoders.ByteLevel()
        raw = json.loads(tokenizer.to_str())
        raw["added_tokens"] = special
        raw["model"]["merges"] = [" ".join(m) for m in merges]
        write_json(folder / "tokenizer.json", raw)
    write_json(
        folder / "tokenizer_config.json",
        {
            "unk_token": added_token(END), "bos_token": added_token(START), "eos_token": added_token(END),
            "pad_token": END, "add_prefix_space": False, "errors": "replace", "do_lower_case": True,
            "name_or_path": "openai/clip-vit-base-patch32", "model_max_length": 77,
            "special_tokens_map_file": "./special_tokens_map.json", "tokenizer_class": "CLIPTokenizer",
        },
    )  # fmt: skip
    special_map = {name: {k: v for k, v in added_token(token).items() if k != "__type"}
                   for name, token in (("bos_token", START), ("eos_token", END), ("unk_token", END))}  # fmt: skip
    write_json(folder / "special_tokens_map.json", {**special_map, "pad_token": END})
    return len(vocabulary)


def bert_vocabulary(cased: bool = False) -> list[str]:
    """Special tokens, letters, every third word and the ends of words: learned ones differ from run to run."""
    normalizer = normalizers.BertNormalizer(lowercase=not cased)
    split = pre_tokenizers.BertPreTokenizer().pre_tokenize_str
    words = sorted({word for text in CORPUS for word, _ in split(normalizer.normalize_str(text))})
    letters = sorted({letter for word in words for letter in word})
    ends = sorted({f"##{word[-3:]}" for word in words if len(word) > 5})
    pieces = [*letters, *(f"##{letter}" for letter in letters), *words[::3], *ends]
    return ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys(pieces)]


def bert_files(folder: Path, cased: bool = False, fast: bool = False, special_map: bool = False, **config: Any) -> int:
    """vocab.txt; tokenizer.json, special_tokens_map.json and tokenizer_config.json on request."""
    tokens = bert_vocabulary(cased)
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    if fast:
        tokenizer = Tokenizer(models.WordPiece({t: i for i, t in enumerate(tokens)}, unk_token="[UNK]"))
        lower = config.get("do_lower_case", not cased)
        tokenizer.normalizer = normalizers.BertNormalizer(True, True, config.get("strip_accents"), lower)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        tokenizer.add_special_tokens(tokens[:5])
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS]:0 $A:0 [SEP]:0", pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
            special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
        )  # fmt: skip
        tokenizer.save(str(folder / "tokenizer.json"))
    if config:
        write_json(folder / "tokenizer_config.json", config)
    if special_map:
        names = {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]",
                 "mask_token": "[MASK]"}  # fmt: skip
        write_json(folder / "special_tokens_map.json", names)
    return len(tokens)


def mpnet_files(folder: Path) -> int:
    """vocab.txt and tokenizer.json of all-mpnet-base-v2: BERT's pieces between RoBERTa's special tokens."""
    pieces = [piece for piece in bert_vocabulary() if not piece.startswith("[")]
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *pieces, "[UNK]", "<mask>"]
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    tokenizer = Tokenizer(models.WordPiece({token: i for i, token in enumerate(tokens)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(True, True, None, True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    mask = AddedToken("<mask>", lstrip=True, normalized=False)
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", "[UNK]", mask])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), True, False)
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "mask_token": "<mask>",
               "pad_token": "<pad>", "sep_token": "</s>", "unk_token": "[UNK]"}  # fmt: skip
    write_json(folder / "special_tokens_map.json", special)
    config = {"do_lower_case": True, "model_max_length": 512, "strip_accents": None, "tokenize_chinese_chars": True,
              "tokenizer_class": "MPNetTokenizer", **special}  # fmt: skip
    write_json(folder / "tokenizer_config.json", config)
    return len(tokens)


def roberta_files(folder: Path, fast: bool = False, **config: Any) -> int:
    """vocab.json with merges.txt; tokenizer.json on request."""
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=letters, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    merges = [tuple(m) for m in json.loads(tokenizer.to_str())["model"]["merges"]]
    tokens = dict.fromkeys([*special, *letters, *("".join(m) for m in merges), "<mask>"])
    vocabulary = {token: i for i, token in enumerate(tokens)}
    write_json(folder / "vocab.json", vocabulary)
    lines = ["#version: 0.2", *(" ".join(m) for m in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    if fast:
        tokenizer = Tokenizer(models.BPE(vocabulary, merges))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.add_special_tokens([*special, AddedToken("<mask>", lstrip=True, normalized=False)])
        tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), True, False)
        tokenizer.save(str(folder / "tokenizer.json"))
    if config:
        write_json(folder / "tokenizer_config.json", config)
    return len(vocabulary)


def sentencepiece_model(path: Path, normalization: str = "nmt_nfkc", **options: Any) -> int:
    """A unigram model that sentencepiece learns; T5's special tokens unless `options` say others."""
    import sentencepiece

    fields = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1} | options
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([text.lower() for text in CORPUS] * 3 + list(CORPUS)),
        model_writer=out,
        vocab_size=180,
        model_type="unigram",
        normalization_rule_name=normalization,
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
        **fields,
    )
    path.write_bytes(out.getvalue())
    return sentencepiece.SentencePieceProcessor(model_proto=out.getvalue()).get_piece_size()


def siglip_files(folder: Path, fast: bool = True) -> int:
    """spiece.model, and the tokenizer.json that the Hub's repositories carry beside it."""
    size = sentencepiece_model(folder / "spiece.model")
    flags = {"lstrip": True, "normalized": False, "rstrip": True, "single_word": False, "special": True}
    write_json(
        folder / "tokenizer_config.json",
        {
            "added_tokens_decoder": {"1": {"content": "</s>", **flags}, "2": {"content": "<unk>", **flags}},
            "additional_special_tokens": [], "clean_up_tokenization_spaces": True, "do_lower_case": True,
            "eos_token": "</s>", "model_input_names": ["input_ids"], "model_max_length": 64, "pad_token": "</s>",
            "processor_class": "SiglipProcessor", "sp_model_kwargs": {}, "tokenizer_class": "SiglipTokenizer",
            "unk_token": "<unk>",
        },
    )  # fmt: skip
    special = {name: {"content": token} | {k: v for k, v in flags.items() if k != "special"}
               for name, token in (("eos_token", "</s>"), ("pad_token", "</s>"), ("unk_token", "<unk>"))}  # fmt: skip
    write_json(folder / "special_tokens_map.json", special)
    if fast:
        _siglip_tokenizer(folder / "spiece.model").save(str(folder / "tokenizer.json"))
    return size


def open_clip_siglip_files(folder: Path) -> int:
    """SigLIP's in open_clip's layout: T5's pieces without sentinels, `</s>` for padding, tokenizer.json alone."""
    import transformers

    size = sentencepiece_model(folder / "spiece.model")
    tokenizer = transformers.T5TokenizerFast.from_pretrained(folder, extra_ids=0, legacy=False)
    tokenizer.pad_token_id = tokenizer.eos_token_id = 1
    tokenizer.save_pretrained(folder)
    special = {"eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>"}
    write_json(folder / "special_tokens_map.json", special)
    config = {"additional_special_tokens": [], "clean_up_tokenization_spaces": True, "extra_ids": 0, "legacy": False,
              "model_max_length": 64, "tokenizer_class": "T5Tokenizer", **special}  # fmt: skip
    write_json(folder / "tokenizer_config.json", config)
    (folder / "spiece.model").unlink()
    return size


def _siglip_tokenizer(path: Path) -> Tokenizer:
    """After the converter of transformers.js, whose files SigLIP's repositories carry."""
    pieces, charsmap = read_sentencepiece(path)
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Lowercase(),
            normalizers.Replace(Regex("[" + re.escape(string.punctuation) + "]"), ""),
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Strip(),
            normalizers.Precompiled(charsmap),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    flags = {"lstrip": True, "rstrip": True, "normalized": False}
    tokenizer.add_special_tokens([AddedToken("</s>", **flags), AddedToken("<unk>", **flags)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=["$A", "</s>"], pair=["$A", "</s>", "$B", "</s>"], special_tokens=[("</s>", 1)]
    )
    return tokenizer


def read_sentencepiece(path: Path) -> tuple[list[tuple[str, float]], bytes]:
    """Pieces with their scores, and the compiled normalization."""
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto.FromString(path.read_bytes())
    return [(piece.piece, piece.score) for piece in proto.pieces], proto.normalizer_spec.precompiled_charsmap


def gemma_files(folder: Path, tokenizer_class: str = "GemmaTokenizer") -> int:
    """Gemma's tokenizer as SigLIP 2's repositories hold it: BPE with bytes as a fallback, no pre-tokenization."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    letters = sorted({*"".join(CORPUS).lower().replace(" ", "▁")} - {"é"})  # which its bytes then spell
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    trainer = trainers.BpeTrainer(vocab_size=150, show_progress=False)
    tokenizer.train_from_iterator([text.lower() for text in CORPUS], trainer)
    merges = [tuple(m) for m in json.loads(tokenizer.to_str())["model"]["merges"] if "é" not in "".join(m)]
    tokens = [*special, *(f"<0x{i:02X}>" for i in range(256)), *letters, *("".join(m) for m in merges)]
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    model = models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <eos>", pair="$A <eos> $B:1 <eos>:1", special_tokens=[("<eos>", 1)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    write_json(
        folder / "tokenizer_config.json",
        {
            "add_bos_token": False, "add_eos_token": True,
            "added_tokens_decoder": {str(i): {"content": token, **flags} for i, token in enumerate(special)},
            "bos_token": "<bos>", "clean_up_tokenization_spaces": False, "do_lower_case": True, "eos_token": "<eos>",
            "extra_special_tokens": {}, "mask_token": "<mask>", "model_input_names": ["input_ids"],
            "model_max_length": 64, "pad_token": "<pad>", "padding_side": "right",
            "processor_class": "SiglipProcessor", "sp_model_kwargs": {}, "spaces_between_special_tokens": False,
            "tokenizer_class": tokenizer_class, "unk_token": "<unk>", "use_default_system_prompt": False,
        },
    )  # fmt: skip
    return len(vocabulary)


def xlm_roberta_files(folder: Path, **config: Any) -> int:
    """sentencepiece.bpe.model (a unigram model, whatever its name) and tokenizer.json; ids as in fairseq."""
    path = folder / "sentencepiece.bpe.model"
    sentencepiece_model(path, pad_id=-1, unk_id=0, bos_id=1, eos_id=2)
    pieces, charsmap = read_sentencepiece(path)
    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *pieces[3:], ("<mask>", 0.0)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3))
    tokenizer.normalizer = normalizers.Precompiled(charsmap)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")]
    )
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    mask = AddedToken("<mask>", lstrip=True, normalized=False)
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", mask])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", {"model_max_length": 512, **config})
    return len(pieces)
