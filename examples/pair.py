# %% [markdown]
# # A pair, shown
#
# You learn what a dual encoder computes: a vector for an image, a vector for a text, and a cosine that says how well
# they fit. Research software, not for clinical use.

# %%
import pandas as pd

import medclip
import toy

rows = toy.dataset().split("validation")
images = [rows.image(row) for row in range(4)]
captions = rows.take("caption", range(4))
toy.show(images, captions)

# %% [markdown]
# One model reads both. `load` takes a folder, a run, or a name on the Hub.

# %%
model = medclip.load(toy.model())
model

# %% [markdown]
# Vectors have length 1, so a dot product is a cosine. Each row is an image and each column a caption: the model is
# right about an image where its own caption, on the diagonal, has the largest cosine of the row.

# %%
cosines = model.encode_image(images) @ model.encode_text(captions).T
pd.DataFrame(
    cosines, [f"image {n}" for n in range(4)], [f"caption {n}" for n in range(4)]
).round(3)

# %% [markdown]
# The same cosines tell classes apart by their names alone; probabilities compare these labels with each other.

# %%
labels = ["CT", "MRI", "ultrasound", "radiograph", "PET"]
pd.DataFrame(
    model.zero_shot(images, labels), [f"image {n}" for n in range(4)], labels
).round(3)
