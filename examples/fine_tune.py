# %% [markdown]
# # Fine-tune from a DataFrame
#
# You learn how a table of images and captions becomes a dataset, and a model a better one. Research software, not for
# clinical use.
#
# A DataFrame needs a column of images and one of captions. A column of patients keeps a patient out of two splits.
# `PrepareConfig(columns=Columns(…))` names columns that are called otherwise.

# %%
import matplotlib.pyplot as plt
import pandas as pd

import medclip
import toy

out = toy.new_folder("fine_tune")
rows = toy.dataset().split("train")
chosen = range(min(len(rows), 400))
frame = pd.DataFrame(
    {"image": rows.take("image", chosen), "caption": rows.take("caption", chosen)}
)
frame["patient_id"] = rows.take("article", chosen)
frame[["caption", "patient_id"]].head(3)

# %% [markdown]
# Rows that cannot be used are counted with their reasons; a tenth of the patients becomes the validation split.

# %%
dataset = medclip.prepare(frame, out / "data")
dataset.num_pairs, dataset.dropped

# %% [markdown]
# Start from a model, with a small learning rate: `init` is a folder, a run or a name such as
# `openai/clip-vit-base-patch32`. Validation is measured before the first step, and by default a run that falls
# significantly below that is stopped; here it only warns.

# %%
lines = []
config = medclip.TrainConfig(
    init=toy.model(),
    steps=max(2, toy.STEPS // 10),
    batch_size=32,
    lr=1e-4,
    num_evals=2,
    on_regression="warn",
)
run = medclip.train(
    dataset,
    out / "run",
    config,
    callbacks=[lambda step, metrics: lines.append({"step": step, **metrics})],
)
run.best

# %% [markdown]
# A callback gets every line of the log.

# %%
log = pd.DataFrame(lines).set_index("step")
figure, axes = plt.subplots(1, 2, figsize=(8, 2.5), layout="constrained")
log["loss"].dropna().plot(ax=axes[0], title="loss of the batch")
log["mean_recall"].dropna().plot(
    ax=axes[1], title="mean recall on validation", marker="o"
)

# %% [markdown]
# A number is read with its pool and its interval. This pool is small, so the interval is wide.

# %%
medclip.evaluate(run, dataset)
