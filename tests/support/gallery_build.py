"""All layouts of the gallery, and their folders with the peers' embeddings.

cd tests && python -m support.gallery_build FOLDER [NAME…]   # builds them with the peer's embeddings
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np

from support import (
    gallery_clip,
    gallery_joins,
    gallery_open_clip,
    gallery_refused,
    gallery_sentence,
    gallery_text,
    gallery_vision,
)
from support.gallery import TEXTS, write_images
from support.gallery_tokenizers import write_json

_MODULES = (gallery_clip, gallery_joins, gallery_vision, gallery_text, gallery_open_clip, gallery_sentence,
            gallery_refused)  # fmt: skip
LAYOUTS = {layout.name: layout for module in _MODULES for layout in module.LAYOUTS}


if __name__ == "__main__":
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    out = Path(sys.argv[1])
    for name in sys.argv[2:] or LAYOUTS:
        layout, folder = LAYOUTS[name], out / f".{name}"
        shutil.rmtree(folder, ignore_errors=True)
        layout.build(folder)
        fields = {field: getattr(layout, field) for field in ("name", "repository", "opens", "refused", "tokenizer",
                  "image_tolerance", "text_tolerance", "reason", "pooler")}  # fmt: skip
        write_json(folder / "layout.json", fields)
        write_json(folder / "captions.json", list(TEXTS))
        images = write_images(folder / "images")
        if not layout.refused:
            np.savez_compressed(folder / "expected.npz", **layout.embed(folder, images, TEXTS))
        print(name, sorted(file.name for file in (folder / "model").iterdir()), flush=True)
        shutil.rmtree(out / name, ignore_errors=True)
        folder.rename(out / name)
