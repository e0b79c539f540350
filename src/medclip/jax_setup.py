"""Settings of JAX, made before its first import."""

from __future__ import annotations

import ctypes
import functools
import os
import sys
import traceback
import warnings
import zlib
from contextlib import suppress
from pathlib import Path

from medclip.errors import LockedError
from medclip.folder_locks import lock_folder
from medclip.user_folders import cache_folder

# Measured on 2 CPU cores with these towers: together about 1.3 times the training speed of XLA's defaults. Fusing
# element-wise operations too (LIBRARY_FUSION_TYPE_ELTWISE) stores every step of an exact gelu: BERT then takes 1.5
# times as long and twice the memory, and sharded layouts fail.
_CPU_FLAGS = (
    "--xla_cpu_enable_concurrency_optimized_scheduler=false",
    "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_DOT",
)
# mallopt(3): M_ARENA_MAX, M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD
_KEEP_MEMORY = ((-8, 1), (-4, 0), (-1, 2**31 - 1), (-2, 2**27))
_RETURN_MEMORY = ((-4, 2**16), (-1, 2**17))  # glibc's defaults
MAX_RETAINED_BYTES = 4e9
_CACHE_VARIABLE, _CACHE_CHECKED = "JAX_COMPILATION_CACHE_DIR", ".checked"  # a file of the time of the last look
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"  # what zstandard wrote, where that is installed, is not read here


def start() -> None:
    """Set XLA's flags and the persistent compilation cache, unless the environment sets them."""
    flags = os.environ.get("XLA_FLAGS", "").split()
    # a flag set twice, by this process and by the one that started it, would be another key in the cache
    os.environ["XLA_FLAGS"] = " ".join([*(flag for flag in _CPU_FLAGS if flag not in flags), *flags])
    if (cache := cache_folder()) and os.environ.setdefault(_CACHE_VARIABLE, str(cache / "xla")) == str(cache / "xla"):
        remove_cut_entries(cache / "xla")
    # small programs too: the forty of a second start of training take a fifteenth of its processor time
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    # where it cannot be kept, JAX tells of each function and does without
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")
    _keep_memory()


def remove_cut_entries(folder: Path) -> None:
    """Remove compiled programs, written since the last call, that a killed process left half-written.

    JAX writes them in place, compiles one that is cut again, and never replaces it: so each process would, silently.
    """
    with suppress(OSError, LockedError):  # another process looks
        if not folder.is_dir():
            return
        with lock_folder(folder):
            marker = folder / _CACHE_CHECKED
            last = marker.stat().st_mtime_ns if marker.exists() else 0
            new = [path for path in folder.glob("*-cache") if path.stat().st_mtime_ns >= last]
            marker.touch()  # before they are read: one that grows meanwhile is looked at again
            for path in new:
                if not _is_whole(path.read_bytes()):
                    path.unlink(missing_ok=True)


def _is_whole(content: bytes) -> bool:
    """Whether a stream of zlib ends, with the checksum of what it holds."""
    if content.startswith(_ZSTD_MAGIC):
        return True
    stream = zlib.decompressobj()
    try:
        stream.decompress(content)
    except zlib.error:
        return False
    return stream.eof


def describe_platform_error(error: BaseException) -> str | None:
    """What is wrong with JAX_PLATFORMS where JAX could not open what it names, which JAX tells by a traceback."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    platforms = os.environ.get("JAX_PLATFORMS")
    if not platforms or not frames or frames[-1].f_globals.get("__name__") != "jax._src.xla_bridge":
        return None
    return (
        f"JAX_PLATFORMS is {platforms!r}, which JAX cannot open here. An NVIDIA GPU needs its driver and the package "
        "jax[cuda13] (an older driver: jax[cuda12]), a TPU jax[tpu]; unset, JAX takes what there is."
    )


def _keep_memory() -> None:
    """Let glibc keep the memory that XLA frees after each step and allocates again at the next.

    By default it goes back to the kernel, which clears 120 MB of pages each step of the tiny preset: a quarter of the
    time. One arena, as the others cannot hold a block above 64 MB without mmap.
    """
    if libc := _glibc():
        for option, value in _KEEP_MEMORY:
            libc.mallopt(option, value)


def limit_retained_memory(max_bytes: float = MAX_RETAINED_BYTES) -> None:
    """Keep no freed memory any more where this process has over `max_bytes`.

    XLA asks for one block for all of a step, of another size for each shape of packed captions. Those of gigabytes do
    not fit into each other's gaps: kept, they add up, and a step of 5 GB once filled 20.
    """
    if _glibc() and anonymous_bytes() > max_bytes:
        _return_memory()


@functools.cache
def _return_memory() -> None:
    """Undo `_keep_memory` for what is freed from now on, and give back what is free: once, as each time takes long."""
    if libc := _glibc():
        for option, value in _RETURN_MEMORY:
            libc.mallopt(option, value)
        libc.malloc_trim(0)


def anonymous_bytes() -> int:
    """Resident memory of this process without mapped files (Linux, proc(5))."""
    _, resident, shared, *_ = Path("/proc/self/statm").read_text().split()
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


def _glibc() -> ctypes.CDLL | None:
    """The C library, where it is one that these settings are for."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    return libc if libc is not None and hasattr(libc, "mallopt") else None
