"""Memory that XLA frees and asks for again, and what it has compiled."""

import sys

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from medclip.jax_setup import remove_cut_entries
from support.material import in_new_process
from support.writers import lock_elsewhere

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


SMALL_PROGRAM = """
from medclip import jax_setup

jax_setup.start()
import jax
import numpy as np

print(jax.jit(lambda x: 3 * x + 1)(np.float32(2)))
"""


@pytest.mark.slow
def test_a_small_program_is_compiled_once_for_all_processes(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
        monkeypatch.delenv(name, raising=False)
    assert in_new_process("-c", SMALL_PROGRAM).stdout == "7.0\n"
    assert list((tmp_path / "medclip" / "xla").glob("*-cache"))


@pytest.fixture
def compile_cache(tmp_path):
    """A cache of compiled programs, however small, of this test alone."""
    options = {"jax_compilation_cache_dir": str(tmp_path), "jax_persistent_cache_min_compile_time_secs": 0}
    before = {name: getattr(jax.config, name) for name in options}
    for settings in (options, before):
        for name, value in settings.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
        if settings is options:
            yield tmp_path


@pytest.mark.parametrize("size", [0, 100])
def test_what_was_cut_off_in_the_cache_is_compiled_anew(compile_cache, size):
    """As a killed process or a full disk leaves it: JAX warns, which is an error in these tests."""
    for _ in range(2):
        assert float(jax.jit(lambda x: 3 * x + 1)(np.float32(2))) == 7
        (entry,) = compile_cache.iterdir()
        entry.write_bytes(entry.read_bytes()[:size])


def test_entries_that_a_killed_process_cut_are_removed_once_and_whole_ones_stay(compile_cache):
    """JAX never replaces them: each process would compile them again."""
    jax.jit(lambda x: 5 * x + 1)(np.float32(2))
    (whole,) = compile_cache.iterdir()
    cut, flipped = compile_cache / "a-cache", compile_cache / "b-cache"
    content = whole.read_bytes()
    cut.write_bytes(content[:-1])
    flipped.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
    remove_cut_entries(compile_cache)
    assert whole.exists() and not cut.exists() and not flipped.exists()
    cut.write_bytes(b"")
    remove_cut_entries(compile_cache)
    assert not cut.exists()
    with lock_elsewhere(compile_cache):
        remove_cut_entries(compile_cache)
    remove_cut_entries(compile_cache / "absent")
    assert sorted(path.name for path in compile_cache.iterdir()) == sorted([".checked", whole.name])
