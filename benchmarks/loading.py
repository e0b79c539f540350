"""Time and peak memory of loading a full-size model, by medclip and by transformers in turn, in fresh processes.

    .venv-parity/bin/python benchmarks/loading.py --repeats 5

The folder is a VisionTextDualEncoderModel of CLIP ViT-B/32 and BERT-base with random weights, made by transformers.
Each process imports its library, opens the folder and encodes an image and a caption, so that nothing is left lazy.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

OURS = """
import time; start = time.perf_counter()
from medclip import jax_setup; jax_setup.start()
import sys, resource, numpy as np
from medclip.model.checkpoint import load
from medclip.encode.encoder import embed_pixels, embed_texts
imported = time.perf_counter(); model = load(sys.argv[1]); opened = time.perf_counter()
at_open = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
embed_pixels(model, np.zeros((1, 224, 224, 3), np.uint8)); embed_texts(model, ["CT of the chest"])
"""
THEIRS = """
import time; start = time.perf_counter()
import sys, resource, torch, transformers
imported = time.perf_counter(); model = transformers.VisionTextDualEncoderModel.from_pretrained(sys.argv[1]).eval()
opened = time.perf_counter(); at_open = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with torch.no_grad():
    model(pixel_values=torch.zeros(1, 3, 224, 224), input_ids=torch.zeros(1, 16, dtype=torch.long))
"""
REPORT = """
import json
done, peak = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"import_s": imported - start, "open_s": opened - imported, "first_answer_s": done - opened,
                  "open_MB": at_open / 1024, "peak_MB": peak / 1024}))
"""


def write_model(folder: Path) -> None:
    """Write the folder."""
    import torch
    import transformers

    from medclip.model.tokenizer.text_tokenizer import save_tokenizer, train_tokenizer

    torch.manual_seed(0)
    config = transformers.VisionTextDualEncoderConfig.from_vision_text_configs(
        transformers.CLIPVisionConfig(), transformers.BertConfig()
    )
    transformers.VisionTextDualEncoderModel(config).save_pretrained(folder)
    save_tokenizer(train_tokenizer(["CT of the chest"] * 2, 300, 64)[0], folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": "CLIPImageProcessor"}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        # in a process of its own: a child's peak memory starts from what its parent has used
        writer = multiprocessing.get_context("spawn").Process(target=write_model, args=(Path(folder),))
        writer.start()
        writer.join()
        runs: dict[str, list[dict[str, float]]] = {"medclip": [], "transformers": []}
        for _ in range(args.repeats):
            for name, script in (("medclip", OURS), ("transformers", THEIRS)):
                process = subprocess.run(
                    [sys.executable, "-c", script + REPORT, folder], capture_output=True, check=True
                )
                runs[name].append(json.loads(process.stdout.splitlines()[-1]))
    for key in runs["medclip"][0]:
        ours, theirs = (np.array([run[key] for run in runs[name]]) for name in ("medclip", "transformers"))
        ratio = ours / theirs
        print(
            f"{key:>15}: medclip {np.median(ours):8.2f}  transformers {np.median(theirs):8.2f}  "
            f"ratio {np.median(ratio):.2f} ({ratio.min():.2f}–{ratio.max():.2f})"
        )


if __name__ == "__main__":
    main()
