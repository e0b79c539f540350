"""Metrics by name: a measured number with its interval, and how people read both."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from medclip.metrics import Estimate

Role = Literal["gated", "compared", "reported"]

_WORDS = {
    "text_to_image": "text→image",
    "image_to_text": "image→text",
    "few_shot": "few images a class",
    "auroc": "AUROC",
    "ece": "calibration error",
    "f1": "F1",
    "macro_f1": "macro F1",
    "article_disjoint": "own article left out",
    "concepts": "graded by concepts",
    "chexzero": "CheXzero",
    "biomedclip": "BiomedCLIP",
    "gloria": "GLoRIA",
    "medclip": "MedCLIP, prompt ensemble",
    "medclip-max": "MedCLIP, best prompt",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A measured number with its 95 % interval; value, low and high are None where they are not defined."""

    name: str
    """Its path in the results file: parts joined by "/" (see `metric_name`), such as image_to_text/R@10."""
    value: float | None
    low: float | None
    high: float | None
    chance: float | None = None
    """What a model that cannot tell would get."""
    column: str | None = None
    """The column of the items that it is computed from; None: of no single column, or of part of its rows."""
    statistic: str | None = None
    """How: a key of `significance.STATISTICS`, or another that cannot be compared item by item."""
    role: Role = "reported"
    """"compared": `medclip compare` tests differences of it. "gated": and --max-regression judges by it."""
    draws: tuple[float, ...] = ()
    """The value in each random draw, where `value` is their mean."""

    @property
    def is_share(self) -> bool:
        """Whether it lies between 0 and 1 (a change of it: -1 and 1) and is read in percent."""
        last = self.name.rpartition("/")[2]
        return "rank" not in last and "cosine" not in last


def metric_name(*parts: str) -> str:
    """The name of a path: parts joined by "/", which within a part is written "~1" (RFC 6901)."""
    return "/".join(part.replace("~", "~0").replace("/", "~1") for part in parts)


def name_parts(name: str) -> list[str]:
    """The path of a name."""
    return [part.replace("~1", "/").replace("~0", "~") for part in name.split("/")]


def to_metric(
    name: str,
    estimate: Estimate | None,
    chance: float | None = None,
    column: str | None = None,
    statistic: str | None = None,
    role: Role = "reported",
) -> Metric:
    """A metric of an estimate; None: it is not defined. Ends of the interval that are NaN are None."""
    value, *ends = (estimate.value, estimate.low, estimate.high) if estimate else (None, None, None)
    low, high = (None if end is None or math.isnan(end) else end for end in ends)
    return Metric(
        name=name, value=value, low=low, high=high, chance=chance, column=column, statistic=statistic, role=role
    )


def format_value(metric: Metric, value: float | None) -> str:
    """A value, chance or end of the interval of a metric, for people."""
    if value is None or not math.isfinite(value):
        return "–"
    if metric.is_share:
        return percent(value)
    text = f"{value:,.1f}".removesuffix(".0") if "rank" in metric.name else f"{value:.3f}"
    return text.replace("-", "−")


def percent(share: object) -> str:
    """A share in percent; "–" where it is not a number."""
    return f"{100 * share:.1f}\u00a0%".replace("-", "−") if isinstance(share, int | float) else "–"


def format_interval(metric: Metric) -> str:
    """The interval of a metric, for people; "" without one."""
    if metric.low is None or metric.high is None:
        return ""
    low, high = (format_value(metric, end).removesuffix("\u00a0%") for end in (metric.low, metric.high))
    return f"{low} to {high}" if "−" in low else f"{low}–{high}"


def to_words(name: str) -> str:
    """A metric's name for people."""
    return " · ".join(_WORDS.get(part, part.replace("_", " ")) for part in name_parts(name))
