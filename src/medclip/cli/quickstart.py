"""The whole path on synthetic phantoms, with nothing to download."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

from medclip.app.run import AppConfig, launch
from medclip.cli.tables.data import show_dataset
from medclip.cli.tables.retrieval import show_retrieval, show_understanding
from medclip.data.prepare import prepare
from medclip.data.prepare_config import PrepareConfig
from medclip.data.stats.report import write_report
from medclip.errors import UserError
from medclip.evaluate.compositionality import evaluate_compositionality
from medclip.evaluate.config import EvalConfig
from medclip.evaluate.report import write_report as write_evaluation
from medclip.evaluate.retrieval import evaluate_retrieval
from medclip.progress import console
from medclip.search.curate import build_index
from medclip.train.config import TrainConfig
from medclip.train.loop import train

PAIRS = 5000
RECIPE = TrainConfig(preset="tiny", steps=1100, batch_size=128, lr=3e-3, hard_negatives=0.5, num_evals=5)


def quickstart(out: Path, app: bool, seed: int) -> None:
    """Make, train, measure and index under `out`; then serve the app unless `app` is False."""
    if (out / "data").exists():
        raise UserError(f"{out} is already there; delete it or choose another with --out.")
    start = time.monotonic()
    console.rule("synthetic phantoms: drawn, not patients")
    show_dataset(prepare(f"phantoms:{PAIRS}", out / "data", PrepareConfig(seed=seed)), out / "data")
    write_report(out / "data", seed, near_images=False)
    console.print(f"what the data hold: {out / 'data' / 'report.html'}")
    train(out / "data", out / "run", dataclasses.replace(RECIPE, seed=seed))
    subject = EvalConfig(model=str(out / "run"), data=str(out / "data"), out=out / "evaluation", seed=seed)
    results, understood = evaluate_retrieval(subject), evaluate_compositionality(subject)
    console.print(f"how good it is: {write_evaluation(out / 'evaluation')}")
    build_index(out / "run", out / "data", out / "index", "validation")
    show_retrieval(results)
    show_understanding(understood)
    console.print(f"all of it took {time.monotonic() - start:.0f} s")
    console.print(f'try: medclip search --index {out / "index"} "MRI of the left knee with a cyst"')
    if app:
        launch(AppConfig((out / "index",), evaluation=out / "evaluation"))
