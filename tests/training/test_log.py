"""A run's log: curves that show what was measured, lines that survive a kill, callbacks that hear each of them."""

import numpy as np
import pytest
from PIL import Image

from medclip.atomic_io import write_json
from medclip.errors import UserError
from medclip.training.log import MetricsLog, draw_curves, open_run, quality

RECALLS = {"R@1": 0.1, "R@5": 0.2, "R@10": 0.3, "mean_recall": 0.2}
STEPS = [{"step": step, "loss": 3 - 0.2 * step} for step in range(1, 9)]
EVALUATIONS = [
    {"step": step, "validation_loss": 3 - 0.1 * step, "num_candidates": 12}
    | {name: value * step / 8 for name, value in RECALLS.items()}
    for step in (0, 4, 8)
]
EVALUATION = {name: value for name, value in EVALUATIONS[1].items() if name != "step"}


def curves(folder, records):
    """The drawn page as RGB; nothing else is left in the folder."""
    draw_curves(records, folder / "curves.png", 8)
    assert [path.name for path in folder.iterdir()] == ["curves.png"]
    with Image.open(folder / "curves.png") as image:
        return np.asarray(image.convert("RGB")).astype(int)


def is_colored(pixels):
    """Which pixels are neither black nor white nor between: lines and markers, no axes and no text."""
    return np.ptp(pixels, axis=2) > 60


@pytest.mark.parametrize("records", [[], STEPS[:1]], ids=["nothing yet", "one step"])
def test_curves_are_drawn_before_anything_was_measured(tmp_path, records):
    assert curves(tmp_path, records).shape[2] == 3


def test_each_curve_is_on_its_side_and_has_a_color_of_its_own(tmp_path):
    pixels = curves(tmp_path, STEPS + EVALUATIONS)
    left, right = np.array_split(pixels, 2, axis=1)
    for half, count in ((left, 2), (right, 3)):  # training and validation loss; R@1, R@5 and R@10
        tones, sizes = np.unique(half[is_colored(half)] // 32, axis=0, return_counts=True)
        assert (sizes > 200).sum() >= count, (tones, sizes)


def test_a_falling_loss_falls_and_a_rising_recall_rises(tmp_path):
    pixels = curves(tmp_path, [*STEPS, *EVALUATIONS])
    drawn = is_colored(pixels)
    height, width = drawn.shape
    parts = {"loss": slice(0, width // 2), "recall": slice(width // 2, width)}
    center = {}
    for name, columns in parts.items():
        used = np.flatnonzero(drawn[:, columns].any(axis=0))
        edge = (used[-1] - used[0]) // 10
        first, last = (drawn[:, columns][:, used[0] + a : used[0] + b].nonzero()[0].mean() for a, b in
                       ((0, edge), (used[-1] - used[0] - edge, used[-1] - used[0])))  # fmt: skip
        center[name] = last - first  # rows count downwards
    assert center["loss"] > height / 10
    assert center["recall"] < -height / 20


def test_with_hard_negatives_the_best_evaluation_is_good_at_both(tmp_path):
    """A little recall is given for many foils: recall alone would keep the weights from before they were learned."""
    shares = [(0.50, 0.50), (0.48, 0.90), (0.30, 0.95)]
    log = MetricsLog(tmp_path, 8)
    for step, (recall, accuracy) in enumerate(shares):
        log.write(step, EVALUATION | {"mean_recall": recall, "foil_accuracy": accuracy})
    assert [quality(record) for record in log.evaluations] == pytest.approx([0.50, 0.69, 0.625])
    assert (log.best["step"], log.evaluations_since_best) == (1, 1)
    assert quality(EVALUATION) == EVALUATION["mean_recall"]


def test_a_half_written_line_is_dropped_on_resume(tmp_path):
    lines = ['{"step": 1, "loss": 2.0}', '{"step": 2, "loss": 1.0}', '{"step": 3, "lo']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    log = MetricsLog(tmp_path, 8)
    log.rewind(1)
    assert (tmp_path / "metrics.jsonl").read_text() == lines[0] + "\n"
    assert log.records == [{"step": 1, "loss": 2.0}]


@pytest.mark.parametrize(
    "damaged", [b"\xff", b'{"step": 2, "lo', b"3", b"[" * 100_000, b'{"loss": 1}', b'{"step": "2"}']
)
def test_any_other_line_that_is_no_record_is_named(tmp_path, damaged):
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1, "loss": 2.0}\n' + damaged + b'\n{"step": 3, "loss": 1.0}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl is damaged: line 2 is not a record of a step"):
        MetricsLog(tmp_path, 8).rewind(3)


def test_only_the_first_process_writes_and_calls_back(tmp_path):
    calls = {True: [], False: []}
    for writes, folder in ((True, tmp_path / "first"), (False, tmp_path / "other")):
        folder.mkdir()
        log = MetricsLog(folder, 8, writes)
        log.callbacks = [lambda step, metrics, writes=writes: calls[writes].append((step, dict(metrics)))]
        log.write(1, {"loss": 2.0})
        log.write(4, EVALUATION)
        assert log.records == [{"step": 1, "loss": 2.0}, EVALUATIONS[1]]
        assert log.best == EVALUATIONS[1]
    assert calls[True] == [(1, {"loss": 2.0}), (4, EVALUATION)]
    assert calls[False] == []
    assert list((tmp_path / "other").iterdir()) == []


@pytest.mark.parametrize("software", [3, ["x"], {"a": 1}])
def test_software_of_another_form_is_named(tmp_path, software):
    write_json(tmp_path / "train_config.json", {"steps": 8, "software": software})
    with pytest.raises(UserError, match="its software is not a list"):
        open_run(tmp_path, {"steps": 8}, {"medclip": "0"}, resume=True)
