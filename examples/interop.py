# %% [markdown]
# # One model in four libraries
#
# You learn that a model folder of medclip opens in transformers and sentence-transformers unchanged, in open_clip after
# an export, and gives the same vectors there. Research software, not for clinical use.
#
# Needs `pip install torch torchvision transformers sentence-transformers open_clip_torch`, none of which medclip itself
# depends on.

# %%
import io
from pathlib import Path

import numpy as np
import open_clip
import pandas as pd
import torch
import transformers
from PIL import Image
from sentence_transformers import SentenceTransformer

import medclip
import toy
from medclip.model.open_clip.to_open_clip import export_open_clip

model = medclip.load(toy.model())
rows = toy.dataset().split("validation")
images = [Image.open(io.BytesIO(rows.image(row))).convert("RGB") for row in range(4)]
captions = rows.take("caption", range(4))
vectors = {"medclip": (model.encode_image(images), model.encode_text(captions))}


def unit(features: torch.Tensor) -> np.ndarray:
    """Rows of length 1."""
    return torch.nn.functional.normalize(features, dim=-1).detach().numpy()


# %% [markdown]
# ## transformers

# %%
theirs = transformers.AutoModel.from_pretrained(model.folder).eval()
processor = transformers.AutoImageProcessor.from_pretrained(
    model.folder, backend="pil"
)
tokenizer = transformers.AutoTokenizer.from_pretrained(model.folder)
length = model.model.tokenizer.context_length
tokens = tokenizer(
    captions,
    padding="max_length",
    truncation=True,
    max_length=length,
    return_tensors="pt",
)
out = theirs(**tokens, **processor(images, return_tensors="pt"))
vectors["transformers"] = (unit(out.image_embeds), unit(out.text_embeds))

# %% [markdown]
# ## sentence-transformers

# %%
sentences = SentenceTransformer(
    str(model.folder), device="cpu", processor_kwargs={"backend": "pil"}
)
vectors["sentence-transformers"] = tuple(
    sentences.encode(items, normalize_embeddings=True) for items in (images, captions)
)

# %% [markdown]
# ## open_clip
#
# open_clip cleans captions before it reads them, which changes few.

# %%
folder = toy.new_folder("interop") / "open_clip"
export_open_clip(Path(model.folder), folder)
theirs, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
theirs.eval()
tokenize = open_clip.get_tokenizer(f"local-dir:{folder}")
pixels = torch.stack([preprocess(image) for image in images])
vectors["open_clip"] = (
    unit(theirs.encode_image(pixels)),
    unit(theirs.encode_text(tokenize(captions))),
)

# %% [markdown]
# The largest difference of any number from medclip's own:

# %%
ours = vectors["medclip"]
differences = {
    library: {
        kind: np.abs(theirs - mine).max()
        for kind, theirs, mine in zip(("images", "texts"), pair, ours, strict=True)
    }
    for library, pair in vectors.items()
}
pd.DataFrame(differences).T
