"""The whole path on synthetic phantoms, with nothing to download."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

from medclip.cli.args import Seed
from medclip.cli.data import dataset_tables
from medclip.cli.evaluation_tables import evaluation_tables
from medclip.cli.format import Output
from medclip.data.prepare_config import PrepareConfig
from medclip.errors import StoppedError, UserError
from medclip.folder_kinds import folder_kind
from medclip.progress import console
from medclip.require import require
from medclip.training.config import TrainConfig

PAIRS = 5000
CONFIG = TrainConfig(preset="tiny", steps=1100, batch_size=128, lr=3e-3, hard_negatives=("left-right",), num_evals=5)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quickstart:
    """Synthetic phantoms -> prepare -> train -> evaluate -> index -> app. No download; minutes on a laptop.

    The same command goes on after it was stopped, and opens the app again after it has ended.
    """

    out: Path = Path("runs/quickstart")
    """Folder for everything it makes."""
    app: bool = True
    """End by serving the app; --no-app stops before."""
    seed: Seed = 0
    """Seed of the phantoms and of training."""
    output: Output

    def run(self) -> None:
        from medclip.app.run import AppConfig, launch
        from medclip.data.stats.report import write_report
        from medclip.evaluation.compositionality import evaluate_compositionality
        from medclip.evaluation.config import EvalConfig
        from medclip.evaluation.report import write_report as write_evaluation
        from medclip.evaluation.retrieval import evaluate_retrieval
        from medclip.search.curate import build_index
        from medclip.search.manifest import MANIFEST_FILE

        data, run, index, evaluation = (self.out / name for name in ("data", "run", "index", "evaluation"))
        start = time.monotonic()
        require("optax", extra="train")  # before anything is drawn
        dataset = self._prepare(data)
        self.output.show(dataset, dataset_tables(dataset, data))
        write_report(data, self.seed, near_images=False)
        console.print(f"statistics of the data: {data / 'report.html'}", soft_wrap=True)
        self._train(data, run)
        config = EvalConfig(model=str(run), data=str(data), out=evaluation, seed=self.seed)
        retrieval, compositionality = evaluate_retrieval(config), evaluate_compositionality(config)
        console.print(f"results: {write_evaluation(evaluation)}", soft_wrap=True)
        if not (index / MANIFEST_FILE).exists():
            build_index(run, data, index, "validation")
        for results in (retrieval, compositionality):
            self.output.show(results.to_json(), evaluation_tables(results))
        console.print(f"all of it took {time.monotonic() - start:.0f} s", soft_wrap=True)
        console.print(f'try: medclip search --index {index} "axial T1-weighted MRI of the knees"', soft_wrap=True)
        if self.app:
            launch(AppConfig((index,), evaluation=evaluation))

    def _prepare(self, data: Path) -> dict[str, Any]:
        """The phantoms of this seed, drawn unless they lie there."""
        from medclip.data.dataset import is_prepared, read_dataset
        from medclip.data.prepare import prepare

        source = f"phantoms:{PAIRS}"
        dataset = read_dataset(data) if is_prepared(data) else {}
        drawn = dataset.get("source"), dataset.get("seed")
        if folder_kind(self.out) or (dataset and drawn != (source, self.seed)):
            raise UserError(f"{self.out} holds something else than this quickstart; choose another with --out.")
        console.rule("synthetic phantoms: drawn, not patients")
        if dataset:
            console.print(f"what is complete in {self.out} is used again", soft_wrap=True)
        return dataset or prepare(source, data, PrepareConfig(seed=self.seed))

    def _train(self, data: Path, run: Path) -> None:
        from medclip.training.log import CONFIG_FILE
        from medclip.training.loop import train

        try:
            config = dataclasses.replace(CONFIG, seed=self.seed)
            train(data, run, config, resume=(run / CONFIG_FILE).exists())
        except StoppedError as error:
            raise StoppedError("stopped in training, and saved; the same command goes on.", error.signal) from error
