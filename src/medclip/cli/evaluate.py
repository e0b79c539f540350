"""Commands that measure models, compare measurements, and explain one image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from medclip.cli.args import (
    Cache,
    Data,
    MaybeData,
    MaybeModel,
    MaybeOutFile,
    Model,
    OutFile,
    Positional,
    Seed,
    SplitName,
    whole_number,
)
from medclip.cli.format import Output
from medclip.errors import UserError, WorkError
from medclip.evaluation.config import EvalConfig, LabelConfig, ProtocolChoice
from medclip.progress import console

if TYPE_CHECKING:
    from medclip.evaluation.results import Results


@dataclass(frozen=True, kw_only=True)
class EvalFlags:
    """Flags of every measurement."""

    split: SplitName = None
    max_samples: Annotated[int | None, whole_number(1)] = None
    """The first pairs only: fewer candidates, and so higher numbers."""
    out: Path | None = None
    """Folder for the results; several measurements may share it."""
    seed: Seed = 0
    """Seed of the bootstrap and of all other random draws."""
    cache: Cache = True
    output: Output

    def config(self, model: str | None, data: Path | None) -> EvalConfig:
        """These settings for a model and a dataset, either of which precomputed embeddings can replace."""
        return EvalConfig(
            model=model or "",
            data=str(data or ""),
            split=self.split,
            max_samples=self.max_samples,
            out=self.out,
            seed=self.seed,
            cache=self.cache,
        )

    def show(self, results: Results) -> None:
        """Print the results, and with --out write the page of all results in its folder."""
        from medclip.cli.evaluation_tables import evaluation_tables

        self.output.show(results.to_json(), evaluation_tables(results))
        if self.out is not None:
            from medclip.evaluation.report import write_report

            console.print(f"all results in this folder, with charts: {write_report(self.out)}", soft_wrap=True)


@dataclass(frozen=True, kw_only=True)
class Retrieval:
    """How well captions find their images and images their captions: recall and ranks both ways.

    A repeated image or caption is one query and one candidate. Also without the query's own article, graded by UMLS
    concepts, and by group.
    """

    model: MaybeModel = None
    data: MaybeData = None
    embeddings: Annotated[tuple[Path, Path] | None, tyro.conf.arg(metavar="IMAGES.npy TEXTS.npy")] = None
    """In place of --model: embeddings of images and of texts made elsewhere; row i of both is pair i of the split, or
    without --data a pair of its own."""
    num_candidates: int | None = None
    """Also among so many pairs, drawn without replacement: to compare with figures of fewer candidates."""
    num_draws: int = 5
    """How many such draws."""
    settings: EvalFlags

    def run(self) -> Retrieval:
        from medclip.evaluation.retrieval import evaluate_retrieval

        if self.data is None and (self.settings.split or self.settings.max_samples):
            raise UserError("--split and --max-samples choose pairs of --data DATA: give that too.")
        config = self.settings.config(self.model, self.data)
        results = evaluate_retrieval(config, self.embeddings, self.num_candidates, self.num_draws)
        self.settings.show(results)
        return self


@dataclass(frozen=True, kw_only=True)
class ZeroShot:
    """How well classes are recognized by their names: accuracy, AUROC, confusions, calibration.

    --data is a prepared dataset with --label, a folder with labels.csv (file,label[,split][,article]), one with a
    folder for each class, or CheXpert, MIMIC-CXR-JPG, NIH ChestX-ray14, RSNA Pneumonia, VinDr-CXR or a MedMNIST
    .npz as published.
    """

    model: Model
    data: Data
    settings: EvalFlags
    labels: LabelConfig
    prompts: Path | None = None
    """Prompts for each class: a TOML file in the form of the package's own prompts/radiology.toml."""
    protocol: ProtocolChoice = "all"
    """Measure by the prompts and scores of CheXzero, BiomedCLIP, GLoRIA or MedCLIP (of Wang et al. 2022; medclip-max:
    its best prompt in place of their mean), with the names of --prompts. all: by this package's own prompts, with every
    protocol beside."""

    def run(self) -> ZeroShot:
        from medclip.evaluation.zero_shot import evaluate_zero_shot

        config = self.settings.config(self.model, self.data)
        results = evaluate_zero_shot(config, self.labels, self.prompts, self.protocol)
        self.settings.show(results)
        return self


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What a model's frozen image features hold: logistic regression and nearest neighbors on them.

    Trained on all of the split train and on 1, 4 and 16 images a class. --data as for zero-shot; of published sets with
    several findings an image, those with exactly one are used.
    """

    model: Model
    data: Data
    settings: EvalFlags
    labels: LabelConfig
    num_draws: int = 5
    """How often the few images a class are drawn."""

    def run(self) -> Probe:
        from medclip.evaluation.probe import evaluate_probe

        results = evaluate_probe(self.settings.config(self.model, self.data), self.labels, self.num_draws)
        self.settings.show(results)
        return self


@dataclass(frozen=True, kw_only=True)
class Compositionality:
    """How often an image prefers its caption over one changed in a single thing.

    Left and right exchanged, brain and lung, modality, plane, size, place; a finding denied or affirmed; words in
    another order.
    """

    model: Model
    data: Data
    settings: EvalFlags

    def run(self) -> Compositionality:
        from medclip.evaluation.compositionality import evaluate_compositionality

        results = evaluate_compositionality(self.settings.config(self.model, self.data))
        self.settings.show(results)
        return self


@dataclass(frozen=True, kw_only=True)
class Robustness:
    """Retrieval when images are compressed, blurred, noisy, flat, turned, cut, written on or coarse.

    Every image is embedded 25 times; --max-samples makes it quicker.
    """

    model: Model
    data: Data
    settings: EvalFlags

    def run(self) -> Robustness:
        from medclip.evaluation.robustness import evaluate_robustness

        results = evaluate_robustness(self.settings.config(self.model, self.data))
        self.settings.show(results)
        return self


@dataclass(frozen=True, kw_only=True)
class Compare:
    """Is one model better than another on the same items, or is it noise?

    DIR is what `medclip evaluate … --out DIR` wrote; the first is the baseline. Differences have paired 95 % intervals,
    p-values are corrected for the number of metrics (Holm).
    """

    dirs: Annotated[Positional[tuple[Path, ...]], tyro.conf.arg(metavar="DIR DIR …")]
    """Folders of evaluations."""
    metric: tuple[str, ...] = ()
    """Which metrics to compare, by name or the last parts of it (R@10, text_to_image/R@10); left out: all. Fewer are
    corrected less."""
    out: MaybeOutFile = None
    """Write the comparison as a page to this file."""
    max_regression: float | None = None
    """End with exit code 1 where a metric has fallen by more than this (0.01: one point) beyond noise: those of
    --metric, or R@10 over all candidates and accuracies."""
    output: Output

    def run(self) -> None:
        from medclip.cli.evaluation_tables import comparison_tables
        from medclip.evaluation.compare import as_json, compare
        from medclip.html_page import check_page_name

        if self.out is not None:
            check_page_name(self.out)
        comparison = compare(self.dirs, self.metric)
        worse = comparison.regressions(self.max_regression) if self.max_regression is not None else []
        if self.out is not None:
            from medclip.evaluation.report import write_comparison

            write_comparison(comparison, self.out, worse)
        self.output.show(as_json(comparison) | {"regressions": worse}, comparison_tables(comparison))
        if self.out is not None:
            console.print(f"with charts: {self.out}", soft_wrap=True)
        if worse:
            raise WorkError(" ".join(worse))


@dataclass(frozen=True, kw_only=True)
class Explain:
    """Draw over an image where it speaks for a text (orange) and where against it (blue).

    Each region is blurred in turn; its relevance is the loss in cosine of image and text. The map shows what the model
    uses, which need not be what a reader would look at. Word the text as in training: on phantoms "a left-sided mass"
    pointed at the mass in six of ten images, "mass" in fewer than two.
    """

    model: Model
    image: Path
    """The image to explain: PNG, JPEG, DICOM, …"""
    text: str
    """The text, for example "CT of the chest with a mass on the left"."""
    out: OutFile
    """The new image, a .png."""
    output: Output

    def run(self) -> None:
        from medclip.atomic_io import whole_file
        from medclip.data.decode_workers import isolate
        from medclip.data.images import decode
        from medclip.folder_locks import LOCK_WAIT_S, lock_folder
        from medclip.model.checkpoint import check_model, load
        from medclip.saliency import MIN_CHANGE, overlay_saliency, saliency_map

        if self.out.suffix.lower() != ".png":
            raise UserError(f"--out {self.out} is not a .png.")
        check_model(self.model)
        saliency = saliency_map(load(self.model), self.image, self.text)
        with lock_folder(self.out.parent, wait_s=LOCK_WAIT_S), whole_file(self.out) as partial:
            overlay_saliency(isolate(decode, self.image), saliency).save(partial, "PNG")
        low, high = (float(value) if abs(value) >= MIN_CHANGE else 0.0 for value in (saliency.min(), saliency.max()))
        self.output.show(
            {"out": str(self.out), "max_cosine": high, "min_cosine": low},
            [f"{self.out}: cosine at most {high:+.3f} for the text and {low:+.3f} against it in one region"],
        )
