"""Makes the stored references: a tiny random CLIPModel folder and what transformers computes with it.

Run by hand where torch and transformers are (after `make parity`):
    .venv-parity/bin/python tests/model/references.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent / "clip-tiny"
CAPTIONS = [
    "Axial CT of the chest: a small nodule in the left upper lobe (arrow).",
    "T2",
    "Vue coronale – lésion hyperintense, 3 × 4 mm; no œdema. " * 6,
]


def pictures(side: int, seed: int) -> list[np.ndarray]:
    """Three u8 pictures (h, w, 3) of unequal sizes."""
    rng = np.random.default_rng(seed)
    sizes = [(side, side), (side * 2 + 3, side + 1), (side + 5, side * 3)]
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


def random_folder(folder: Path, seed: int, act: str = "quick_gelu", side: int = 32, squeeze: bool = True) -> None:
    """A random CLIPModel written by transformers itself, with a tokenizer and a preprocessor of ours."""
    import torch
    import transformers

    from medclip.model.hub import preprocessor_config
    from medclip.model.tokens import save_tokens, train_tokens

    tokens = train_tokens(CAPTIONS, 300, 24)
    special = {f"{name}_token_id": id for name, id in tokens.special.items()}
    towers = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "hidden_act": act}
    size = tokens.tokenizer.get_vocab_size()
    config = transformers.CLIPConfig(
        vision_config={**towers, "num_hidden_layers": 2, "image_size": side, "patch_size": 7},
        text_config={
            **towers,
            **special,
            "num_hidden_layers": 3,
            "vocab_size": size,
            "max_position_embeddings": tokens.length,
        },
        projection_dim=24,
    )
    torch.manual_seed(seed)
    model = transformers.CLIPModel(config)
    for tensor in model.parameters():  # biases and norms start at 0 and 1, where a mistake would not show
        if tensor.ndim == 1:
            tensor.data += 0.1 * torch.randn_like(tensor)
    model.save_pretrained(folder)
    save_tokens(tokens, folder)
    said = preprocessor_config(side)
    if not squeeze:
        said |= {"size": {"shortest_edge": side}, "do_center_crop": True, "crop_size": {"height": side, "width": side}}
    from medclip.files import write_json

    write_json(folder / "preprocessor_config.json", said)


def transformers_vectors(folder: Path, images: list[np.ndarray], captions: list[str]) -> dict[str, np.ndarray]:
    """Unit vectors and logits of every image with every caption, all of it by transformers: pixels, ids, towers."""
    import torch
    import transformers
    from PIL import Image

    model = transformers.CLIPModel.from_pretrained(folder).eval()
    processor = transformers.CLIPImageProcessorPil.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    pixels = processor([Image.fromarray(image) for image in images], return_tensors="pt")
    texts = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt")
    with torch.no_grad():
        out = model(
            input_ids=texts.input_ids,
            attention_mask=texts.attention_mask,
            pixel_values=pixels.pixel_values,
            return_loss=True,
        )
    return {
        "images": out.image_embeds.numpy(),
        "texts": out.text_embeds.numpy(),
        "logits": out.logits_per_image.numpy(),
        "loss": out.loss.numpy(),
        "pixels": pixels.pixel_values.numpy(),
        "ids": texts.input_ids.numpy(),
    }


if __name__ == "__main__":
    random_folder(FOLDER, seed=0)
    np.savez_compressed(FOLDER / "references.npz", **transformers_vectors(FOLDER, pictures(32, 0), CAPTIONS))
    print(f"wrote {FOLDER}")
