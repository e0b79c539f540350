"""The parts of benchmarks/soak.py."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "tests"))  # `support`, which is in no package
