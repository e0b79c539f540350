"""From synthetic phantoms to a model, its metrics and a search, in under a minute on a CPU.

    python examples/quickstart.py OUT

The recalls are those of a minute's training. `medclip quickstart` trains for longer and opens the search app.
"""

import sys
from pathlib import Path

import medclip

out = Path(sys.argv[1])

# 1. Prepare. A folder, a table, a URL, a DataFrame or a list of (image, caption) stand where "phantoms" does.
dataset = medclip.prepare("phantoms:500", out / "data")
print(dataset.num_pairs)


# 2. Train. A callback gets every line of metrics.jsonl.
def show_loss(step, metrics):
    """Print the training loss."""
    if "loss" in metrics and step % 10 == 0:
        print(f"step {step}: loss {metrics['loss']:.2f}")


config = medclip.TrainConfig(
    preset="tiny", steps=60, batch_size=64, lr=3e-3, num_evals=2
)
run = medclip.train(dataset, out / "run", config, callbacks=[show_loss])

# 3. Evaluate, with 95 % intervals and chance.
results = medclip.evaluate(run, dataset, out=out / "evaluation")
for name in ("image_to_text/R@10", "text_to_image/R@10"):
    recall = results[name]
    print(
        f"{name} {recall.value:.2f} ({recall.low:.2f} to {recall.high:.2f}, chance {recall.chance:.3f})"
    )

# 4. Search.
index = medclip.Index.build(run, dataset, out / "index")
for hit in index.search("CT of the chest", k=3):
    print(f"{hit.score:.2f} {hit.caption}")

# 5. Use the model: one call for files, bytes, PIL images or arrays.
model = run.load()
image = dataset.split("validation").image(0)
labels = ["CT", "MRI", "ultrasound", "radiograph"]
for label, probability in zip(
    labels, model.zero_shot(image, labels, templates="{} of the chest"), strict=True
):
    print(f"{label} {probability:.2f}")
