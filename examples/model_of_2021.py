# %% [markdown]
# # The 2021 model today
#
# You learn how `flax-community/medclip-roco`, whose library is gone, opens, answers and is carried on. Research
# software, not for clinical use.
#
# Without a network a toy takes its place, named by MEDCLIP_2021: the examples' own small model in the files of 2021.
# Its answers are a toy's.

# %%
import os

import numpy as np
import pandas as pd

import medclip
import toy
from medclip.modeling_hybrid_clip import FlaxHybridCLIP

name = os.environ.get("MEDCLIP_2021", "flax-community/medclip-roco")
tokenizer = os.environ.get(
    "MEDCLIP_2021", "allenai/scibert_scivocab_uncased"
)  # it came without one

# %% [markdown]
# The snippet of its model card runs as it was written in 2021, without Flax:

# %%
founding = FlaxHybridCLIP.from_pretrained(name)
(
    founding.config.to_dict()["model_type"],
    sum(value.size for value in founding.params.values()),
)

# %% [markdown]
# Today one line opens weights, image preparation and tokenizer together.

# %%
model = medclip.load(name, tokenizer=tokenizer)
rows = toy.dataset().split("validation")
images, captions = (
    [rows.image(row) for row in range(3)],
    rows.take("caption", range(3)),
)
toy.show(images, captions)

# %%
labels = ["CT", "MRI", "ultrasound", "radiograph"]
pd.DataFrame(
    model.zero_shot(images, labels), [f"image {n}" for n in range(3)], labels
).round(3)

# %% [markdown]
# Saved, it is a `VisionTextDualEncoderModel` in safetensors, which transformers opens; nothing has changed on the way.

# %%
today = toy.new_folder("model_of_2021") / "today"
FlaxHybridCLIP.from_pretrained(name, tokenizer=tokenizer).save_pretrained(today)
again = medclip.load(today)
print(sorted(path.name for path in today.iterdir()))
print(np.abs(again.encode_text(captions) - model.encode_text(captions)).max())

# %% [markdown]
# It is measured as any other model, and `TrainConfig(init=…)` trains it on. The results say what is known of its
# training data.

# %%
medclip.evaluate(again, toy.dataset(), max_samples=100)
