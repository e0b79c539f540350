# %% [markdown]
# # A map of the embeddings
#
# You learn to look at a whole index at once: what lies together, what lies apart, and which captions fit another image
# better. Research software, not for clinical use.

# %%
import matplotlib.pyplot as plt
import pandas as pd

import toy

index = toy.index()
file = toy.new_folder("embedding_map") / "map.parquet"
points = index.export_map(file)
points.layout.variance_shares

# %% [markdown]
# Each image is a row: its place, its labels, its embedding. The two axes of PCA show only this share of all variance;
# `method="umap"` pulls groups apart, and then axes mean nothing.

# %%
frame = pd.read_parquet(file)
figure, ax = plt.subplots(figsize=(7, 5), layout="constrained")
for modality, group in frame.groupby(frame["label_modality"].fillna("unknown")):
    ax.scatter(group["x"], group["y"], s=14, label=modality)
ax.legend(fontsize=8)
ax.set_xticks([])
ax.set_yticks([])

# %% [markdown]
# The images farthest from their ten nearest. An outlier is not an error: look at it.

# %%
outliers = frame.nlargest(4, "outlier_score")
toy.show(
    [image["bytes"] for image in outliers["image"]], outliers["caption"].tolist()
)

# %% [markdown]
# Where another image's caption fits better than an image's own, the model or the pair is wrong.

# %%
frame["margin"] = frame["other_caption_cosine"] - frame["caption_cosine"]
frame.nlargest(5, "margin")[["id", "caption", "other_caption_of", "caption_rank"]]
