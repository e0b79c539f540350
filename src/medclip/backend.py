"""How JAX is started: one place, before its first import."""

from __future__ import annotations

import os
from pathlib import Path

# Measured on 2 CPU cores with these towers: together about 1.3 times the training speed of XLA's defaults.
_CPU_FLAGS = (
    "--xla_cpu_enable_concurrency_optimized_scheduler=false",
    "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_DOT,LIBRARY_FUSION_TYPE_ELTWISE",
)


def start() -> None:
    """Set XLA's flags and the persistent compilation cache, unless the environment already chose."""
    os.environ["XLA_FLAGS"] = " ".join((*_CPU_FLAGS, os.environ.get("XLA_FLAGS", ""))).strip()
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "medclip" / "xla"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "1")
