"""Runs and evaluations, as files, for the tables of results; and the script that writes these."""

import json

import numpy as np
from safetensors.numpy import save_file

from medclip.model.checkpoint import model_hash
from support import handmade_results
from support.benchmarks import load_benchmark

BENCHMARK = load_benchmark("results_table")
VALIDATION = "d" * 64
CONFIG = {
    "vision_model": "/home/somebody/towers/dinov2-small",
    "text_model": "sentence-transformers/all-MiniLM-L6-v2",
    "tokenizer": "",
    "context_length": 128,
    "steps": 91,
    "batch_size": 256,
    "micro_batch_size": 256,
    "lr": 1e-3,
    "vision_lr": 3e-4,
    "text_lr": 1e-3,
    "freeze": ["vision_model.encoder.layer.[0-7].*"],
    "fsdp": True,
    "weight_decay": 0.2,
    "max_samples": None,
    "software": [{"medclip": "0.2.0", "jax": "0.10.2"}],
    "data": {"train": "c" * 64, "validation": VALIDATION},
}


def make_root(folder):
    """A checkout that has no results yet."""
    (folder / "docs" / "results").mkdir(parents=True)
    (folder / "README.md").write_text(f"# x\n\n{BENCHMARK.START}\nold\n{BENCHMARK.END}\n\n## Tests\n")
    return folder


def write(root, *arguments):
    """Run the script; what it stops with."""
    try:
        BENCHMARK.main([*map(str, arguments), "--root", str(root)])
    except SystemExit as stopped:
        return str(stopped)
    return ""


def make_run(folder, seed=0, **settings):
    """A run that has ended."""
    (folder / "model").mkdir(parents=True)
    (folder / "train_config.json").write_text(json.dumps(CONFIG | {"seed": seed} | settings))
    summary = {"best": {"step": 70 + seed}, "wise_ft": [], "medclip_version": "0.2.0", "commit": f"c0ffee{seed}"}
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "model" / "config.json").write_text("{}")
    (folder / "model" / "README.md").write_text("---\nlicense: mit\n---\n# toy\n\n## License\n\nNone.\n")
    save_file({"logit_scale": np.full(1, seed, np.float32)}, folder / "model" / "model.safetensors")
    return folder


def set_software(run, **versions):
    """Change the software that a run says made it."""
    file = run / "train_config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | {"software": [config["software"][0] | versions]}))


def tell_command(folder, kind="retrieval", **settings):
    lines = {"model": "../runs/model", "data": "/home/somebody/roco", "out": "x", "split": "validation", "seed": 0}
    text = "".join(f"{name} = {json.dumps(value)}\n" for name, value in (lines | settings).items())
    (folder / f"evaluate-{kind}.toml").write_text(f"# medclip evaluate {kind}\n{text}")
    return folder


def make_retrieval(folder, run, ranks, articles, **origin):
    """An evaluation of a run: these ranks of images and, one later each, of captions."""
    folder.mkdir(parents=True)
    ranks = np.array(ranks)
    origin = {"data": "roco", "data_sha256": VALIDATION, "model": model_hash(run), "commit": "feedface"} | origin
    handmade_results.retrieval(folder, ranks, ranks + 1, articles=articles, **origin)
    return tell_command(folder)


def make_seeds(folder):
    """Two runs and their evaluations. R@10 of article a is 1 for both, of article b 1/2 for seed 0 and 0 for seed 1."""
    runs = [make_run(folder / f"run{seed}", seed) for seed in (0, 1)]
    ranks = [[1, 2, 3, 50], [2, 4, 20, 60]]
    articles = ["a", "a", "b", "b"]
    return [*runs, *(make_retrieval(folder / f"eval{s}", run, ranks[s], articles) for s, run in enumerate(runs))]
