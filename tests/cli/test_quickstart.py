"""The quickstart at a small size: what was stopped goes on, what has ended is opened."""

import signal

import pytest

from medclip.cli import quickstart
from medclip.errors import StoppedError

pytestmark = pytest.mark.slow


def test_the_same_command_goes_on_wherever_it_was_stopped(tmp_path, medclip, monkeypatch, train_config):
    monkeypatch.setattr(quickstart, "PAIRS", 40)
    monkeypatch.setattr(quickstart, "CONFIG", train_config)
    command = "quickstart", "--no-app", "--out", tmp_path / "out"

    def stop(*arguments, **settings):
        raise StoppedError("stopped at step 2 of 4, saved; the same command with --resume goes on.", signal.SIGTERM)

    for function in ("training.loop.train", "evaluation.retrieval.evaluate_retrieval", "search.curate.build_index"):
        with monkeypatch.context() as patch:
            patch.setattr(f"medclip.{function}", stop)
            code, _, error = medclip(*command)
            assert code == 128 + signal.SIGTERM
            assert ("--resume" in error) == (function != "training.loop.train"), error
    weights = tmp_path / "out" / "run" / "model" / "model.safetensors"
    made = weights.stat().st_mtime_ns
    for _ in range(2):
        code, _, error = medclip(*command)
        assert code == 0 and "try: medclip search" in error
    assert weights.stat().st_mtime_ns == made
    code, _, error = medclip(*command, "--seed", "1")
    assert code == 2 and "holds something else than this quickstart" in error
