# %% [markdown]
# # Compare two checkpoints, and gate a build
#
# You learn how to tell a better model from luck, and how to stop a build that would ship a worse one. Research
# software, not for clinical use.
#
# Both models are measured on the same items; `out` keeps the value of every item, without which differences could not
# be paired.

# %%
import medclip
import toy

out = toy.new_folder("compare")
dataset = toy.dataset()
shorter = toy.train(out / "run", max(2, toy.STEPS // 10))  # a tenth of the training
medclip.evaluate(toy.model(), dataset, out=out / "now")
medclip.evaluate(shorter, dataset, out=out / "candidate")

# %% [markdown]
# The first folder is the baseline. Intervals of single models may overlap where the difference is clear, so it has an
# interval of its own; p-values are corrected for the number of metrics that are looked at.

# %%
comparison = medclip.compare(out / "now", out / "candidate", metrics=["R@10"])
comparison

# %% [markdown]
# The gate: what fell by more than one point, beyond noise. An empty list passes; `medclip compare now candidate
# --metric R@10 --max-regression 0.01` ends with exit code 1 otherwise.

# %%
for sentence in comparison.regressions(0.01):
    print(sentence)
