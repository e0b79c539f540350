"""The scripts of benchmarks/, docs/ and examples/, which are in no package."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]


def load_benchmark(name: str) -> ModuleType:
    """The benchmark of this name, as a module."""
    return load_script(f"benchmarks/{name}.py")


def load_script(path: str) -> ModuleType:
    """The script at this path in the repository, as a module."""
    file = ROOT / path
    if str(file.parent) not in sys.path:  # scripts import what lies beside them
        sys.path.append(str(file.parent))
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
