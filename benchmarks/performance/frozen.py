"""Projections trained over frozen towers, JPEG files and captions to a trained model: whole commands.

DINOv2-small and MiniLM of `real_towers.py`, the latter without its pooling, as transformers knows BERT's own alone. All
start from the same projections, with the same optimizer, batch size and number of steps, and measure validation at the
end; each has an order of its own. Ours prepares the files first; cold, it has no cache of anything, and goes through
the towers once, where the peers do so in every epoch, as their recipes have it.
"""

from __future__ import annotations

import csv
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from performance.models import choose_pairs
from performance.record import MEDCLIP, Bounds, Comparison, Result, Usage, in_new_process, in_turn, ratios, run

PAIRS, VALIDATION_PAIRS, BATCH_SIZE, EPOCHS = 128, 32, 32, 10
LR, WEIGHT_DECAY = 1e-3, 0.2
NOISE = 0.2
"""Of the validation loss, by the order of training and open_clip's random crops. A random order has ln 32 = 3.5, and
few pairs learned by heart have more."""
SETTINGS = {"batch": BATCH_SIZE, "epochs": EPOCHS, "lr": LR, "decay": WEIGHT_DECAY}
TRANSFORMERS = """
import csv, json, math, sys
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoTokenizer, VisionTextDualEncoderModel
folder, start, out, precision = sys.argv[1:5]
settings = json.loads(sys.argv[5])
torch.manual_seed(0)
model = VisionTextDualEncoderModel.from_pretrained(start)
tokenizer, processor = (kind.from_pretrained(start) for kind in (AutoTokenizer, AutoImageProcessor))
for tower in (model.vision_model, model.text_model):
    tower.requires_grad_(False)
rows = list(csv.DictReader(open(f"{folder}/pairs.csv")))
def collate(batch):
    images = [Image.open(f"{folder}/{row['image']}").convert("RGB") for row in batch]
    texts = [row["caption"] for row in batch]
    tokens = tokenizer(texts, padding=True, truncation=True, max_length=128, return_tensors="pt")
    return {**processor(images, return_tensors="pt"), **tokens}
def loader(split, **options):
    chosen = [row for row in rows if row["split"] == split]
    return torch.utils.data.DataLoader(chosen, settings["batch"], collate_fn=collate, **options)
def loss_of(batch):
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        return model(**batch, return_loss=True).loss
training = loader("train", shuffle=True, drop_last=True)
steps = settings["epochs"] * len(training)
trained = [p for p in model.parameters() if p.requires_grad]
groups = [{"params": [p for p in trained if p.ndim > 1], "weight_decay": settings["decay"]},
          {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0}]
optimizer = torch.optim.AdamW(groups, lr=settings["lr"], betas=(0.9, 0.98), fused=True)
warmup = round(0.1 * steps)
schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: step / warmup if step < warmup else
    0.01 + 0.99 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2)
for _ in range(settings["epochs"]):
    for batch in training:
        loss_of(batch).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
with torch.inference_mode():
    losses = [float(loss_of(batch)) for batch in loader("validation")]
model.save_pretrained(out)
print(json.dumps(sum(losses) / len(losses)))
"""
OPEN_CLIP = """
import csv, json, sys
from pathlib import Path
import torch
from open_clip_towers import make_towers, towers_config
from open_clip_train.main import main
from safetensors.torch import load_file
folder, start, out, precision = sys.argv[1:5]
settings = json.loads(sys.argv[5])
vision, text = map(Path, sys.argv[6:8])
logs = Path(out)
logs.mkdir()
model = make_towers(towers_config(text, "cls_pooler", 512), vision, logs)
tensors, state = load_file(f"{start}/model.safetensors"), model.state_dict()
state["visual.head.proj.weight"] = tensors["visual_projection.weight"]
state["text.proj.weight"] = tensors["text_projection.weight"]
torch.save({"state_dict": state}, logs / "start.pt")
tables = {}
for split in ("train", "validation"):
    rows = [row for row in csv.DictReader(open(f"{folder}/pairs.csv")) if row["split"] == split]
    tables[split] = str(logs / f"{split}.csv")
    with open(tables[split], "w", newline="") as file:
        csv.writer(file).writerows([("filepath", "title"), *((f"{folder}/{r['image']}", r["caption"]) for r in rows)])
    if split == "train":
        steps = settings["epochs"] * (len(rows) // settings["batch"])
words = ["--model", "towers", "--pretrained", logs / "start.pt", "--lock-image", "--lock-text",
    "--lock-text-freeze-layer-norm", "--dataset-type", "csv", "--csv-separator", ",", "--train-data", tables["train"],
    "--val-data", tables["validation"], "--val-frequency", settings["epochs"], "--save-frequency", settings["epochs"],
    "--epochs", settings["epochs"], "--batch-size", settings["batch"], "--lr", settings["lr"],
    "--wd", settings["decay"], "--beta1", 0.9, "--beta2", 0.98, "--eps", 1e-8, "--grad-clip-norm", 1.0,
    "--warmup", round(0.1 * steps), "--workers", 0, "--precision", "amp_bf16" if precision == "bfloat16" else "fp32",
    "--image-mean", 0.485, 0.456, 0.406, "--image-std", 0.229, 0.224, 0.225, "--logs", logs, "--name", "run"]
main(list(map(str, words)))
lines = (logs / "run" / "checkpoints" / "results.jsonl").read_text().splitlines()
print(json.dumps(json.loads(lines[-1])["clip_val_loss"]))
"""


class Work(NamedTuple):
    """What all are given."""

    source: Path
    """Folder of images and `pairs.csv`."""
    vision: Path
    text: Path
    start: Path
    """Both towers with the first projections, for transformers."""


def measure(bounds: Bounds) -> Iterator[Result]:
    work = _write_work(bounds)
    for script in (TRANSFORMERS, OPEN_CLIP):
        _theirs(bounds, work, script, "bfloat16", epochs=1)  # compiles modules
    first = tempfile.mkdtemp(dir=bounds.folder)
    expected = _loss_of(_ours(bounds, work, first))
    runs = {
        "cold": lambda: _ours(bounds, work),
        "cached": lambda: _ours(bounds, work, first),
        "transformers, bfloat16": lambda: _theirs(bounds, work, TRANSFORMERS, "bfloat16"),
        "open_clip's trainer, both towers locked, bfloat16": lambda: _theirs(bounds, work, OPEN_CLIP, "bfloat16"),
    }
    usages = in_turn(bounds.rounds, runs)
    losses = {name: _loss_of(own[0]) for name, own in usages.items()}
    assert all(abs(loss - expected) < NOISE for loss in losses.values()), losses
    yield from _compare(bounds, usages, losses)


def _compare(bounds: Bounds, usages: dict[str, list[Usage]], losses: dict[str, float]) -> Iterator[Result]:
    pairs = bounds.size(PAIRS)
    for cache, goal, words in (("cold", 2, "nothing cached"), ("cached", 10, "the towers' features cached")):
        for peer in (name for name in usages if name not in ("cold", "cached")):
            theirs, ours = usages[peer], usages[cache]
            yield Comparison(
                f"JPEG files to trained projections over frozen DINOv2-S and MiniLM, {pairs} pairs, {EPOCHS} epochs, "
                f"{words}", peer, ratios(theirs, ours), goal=goal,
                checked=f"validation loss: {losses[cache]:.2f} beside {losses[peer]:.2f}",
                limit=f"images through DINOv2-S, 11 GFLOP each: {images(cache, bounds)} beside {images(peer, bounds)}",
            )  # fmt: skip


def images(name: str, bounds: Bounds) -> int:
    """How many images go through the vision tower."""
    pairs, validation = bounds.size(PAIRS), bounds.size(VALIDATION_PAIRS)
    return {"cold": pairs + validation, "cached": 0}.get(name, pairs * EPOCHS + validation)


def _loss_of(usage: Usage) -> float:
    return json.loads(usage.output.splitlines()[-1])


def _write_work(bounds: Bounds) -> Work:
    if not bounds.towers:
        raise SystemExit("frozen needs --towers: the folder that real_towers.py wrote.")
    work = Work(
        bounds.folder / "source", bounds.towers / "dinov2-small", bounds.folder / "text", bounds.folder / "start"
    )
    pairs, validation = bounds.size(PAIRS), bounds.size(VALIDATION_PAIRS)
    chosen = choose_pairs(bounds, pairs + validation)
    (work.source / "images").mkdir(parents=True)
    with (work.source / "pairs.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("id", "image", "caption", "split"))
        for number, (path, caption) in enumerate(chosen):
            shutil.copyfile(path, work.source / "images" / f"{number}.jpg")
            split = "train" if number < pairs else "validation"
            table.writerow((number, f"images/{number}.jpg", caption, split))
    _write_text_tower(bounds.towers / "all-MiniLM-L6-v2", work.text)
    in_new_process(_write_start, work)
    return work


def _write_text_tower(minilm: Path, folder: Path) -> None:
    """MiniLM without its pooling and, as all loops but ours would apply it to frozen layers, without dropout."""
    folder.mkdir()
    for path in minilm.iterdir():
        if path.is_file() and path.name != "modules.json":
            shutil.copyfile(path, folder / path.name)
    config = json.loads((folder / "config.json").read_text())
    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config | no_dropout))


def _write_start(work: Work) -> None:
    from medclip.model.adapt import join_towers
    from medclip.model.checkpoint import save

    save(join_towers(work.vision, work.text, seed=0), work.start)


def _ours(bounds: Bounds, work: Work, cache: str | None = None) -> Usage:
    """Both commands, with that cache folder or with an empty one."""
    with tempfile.TemporaryDirectory(dir=bounds.folder) as name:
        folder = Path(name)
        medclip = ("env", f"XDG_CACHE_HOME={cache or folder / 'cache'}", *MEDCLIP)
        towers = ("--vision-model", work.vision, "--text-model", work.text)
        frozen = ("--freeze", "vision_model.*", "text_model.*", "--num-evals", 1, "--on-regression", "warn")
        rates = ("--lr", LR, "--weight-decay", WEIGHT_DECAY, "--batch-size", BATCH_SIZE, "--epochs", EPOCHS)
        commands: Sequence[Sequence[object]] = (
            ("prepare", work.source / "pairs.csv", "--out", folder / "data", "--num-workers", 1),
            ("train", "--data", folder / "data", "--out", folder / "run", *towers, *frozen, *rates),
        )
        usages = [run([*medclip, *command]) for command in commands]
        lines = map(json.loads, (folder / "run" / "metrics.jsonl").read_text().splitlines())
        loss = [line["validation_loss"] for line in lines if "validation_loss" in line][-1]
    return Usage(sum(usage.seconds for usage in usages), max(usage.peak_mb for usage in usages), json.dumps(loss))


def _theirs(bounds: Bounds, work: Work, script: str, precision: str, epochs: int = EPOCHS) -> Usage:
    with tempfile.TemporaryDirectory(dir=bounds.folder) as out:
        arguments = (work.source, work.start, f"{out}/made", precision, json.dumps(SETTINGS | {"epochs": epochs}))
        return run([bounds.peers, "-c", script, *arguments, work.vision, work.text])
