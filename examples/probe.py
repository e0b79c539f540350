# %% [markdown]
# # Linear probe and downstream task
#
# You learn how much of a task is already in the image features of a model, and how few labels it then takes. Research
# software, not for clinical use.
#
# A probe freezes the model and fits a classifier on its features, beside the same architecture with random weights:
# what those can do is no merit of the training.

# %%
import matplotlib.pyplot as plt
import numpy as np
from sklearn.linear_model import LogisticRegression

import medclip
import toy

dataset = toy.dataset()
medclip.evaluate(toy.model(), dataset, "probe", label="modality", max_samples=500)

# %% [markdown]
# Your own downstream task starts from the embeddings: encode once, and any library fits on them. Here it is the organ,
# with more and more labeled images.


# %%
def embed(name: str, label: str, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings (n, p) and labels (n,) of the first labeled images of a split."""
    rows = dataset.split(name)
    labels = [dict(pairs).get(label) for pairs in rows.column("labels")]
    labeled = [row for row, value in enumerate(labels) if value][:limit]
    return model.encode_image(map(rows.image, labeled)), np.array(
        [labels[row] for row in labeled]
    )


model = medclip.load(toy.model())
(train_x, train_y), (test_x, test_y) = (
    embed("train", "organ", 400),
    embed("validation", "organ", 300),
)
sizes = [size for size in (25, 50, 100, 200, 400) if size <= len(train_y)]
fitted = [
    LogisticRegression(C=10, max_iter=1000).fit(train_x[:size], train_y[:size])
    for size in sizes
]
accuracy = [classifier.score(test_x, test_y) for classifier in fitted]
chance = np.unique(test_y, return_counts=True)[1].max() / len(test_y)

figure, ax = plt.subplots(figsize=(5, 3), layout="constrained")
ax.plot(sizes, accuracy, "o-", label="logistic regression on embeddings")
ax.axhline(
    chance, color="gray", linestyle="--", label="always the most frequent organ"
)
ax.set(
    xlabel="labeled training images",
    ylabel=f"accuracy on {len(test_y)} images",
    ylim=(0, 1),
)
ax.legend()
