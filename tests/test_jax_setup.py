"""Memory that XLA frees and asks for again."""

import sys

import pytest

from support.material import in_new_process

# Freed blocks of ten sizes, each with something small behind it that stays, as between the steps of a training.
SCRIPT = """
import numpy as np
from medclip import jax_setup

jax_setup.start()
pins = []
for size in range(100, 200, 10):
    block = np.ones(size * 2**17)
    pins.append(np.ones(2**10))
    del block
    {after_each}
print(jax_setup.anonymous_bytes())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="settings of glibc")
def test_freed_blocks_of_many_sizes_do_not_add_up():
    without, limited = (
        int(in_new_process("-c", SCRIPT.format(after_each=line)).stdout)
        for line in ("pass", "jax_setup.limit_retained_memory(max_bytes=2e8)")
    )
    assert limited < 2e8 < without
