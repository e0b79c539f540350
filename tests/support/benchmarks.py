"""The scripts of benchmarks/, docs/ and examples/, which are in no package."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]


def load_benchmark(name: str) -> ModuleType:
    """The benchmark of this name, as a module."""
    return load_script(f"benchmarks/{name}.py")


def load_script(path: str) -> ModuleType:
    """The script at this path in the repository, as a module."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
