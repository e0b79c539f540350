"""What towers gave, on the disk: an image or a caption goes through the same frozen tower once.

A store holds the features of one tower, with the image processor before it, in this machine's cache folder. Its
segments are .npy files that are written whole, named by their own SHA-256 and never changed: a reader sees a segment
entirely or not at all. Rows are found by a hash of what the tower was given; nothing in a file names an image or holds
a caption.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax
import jaxlib.version
import numpy as np
from jaxtyping import Float32

from medclip.atomic_io import sha256, whole_file
from medclip.encode.decode import pixel_software
from medclip.errors import LockedError, UserError
from medclip.folder_locks import LOCK_WAIT_S, lock_folder
from medclip.model.config import TextConfig, VisionConfig
from medclip.model.image_processor import ImageProcessor
from medclip.model.shapes_init import in_tower
from medclip.model.towers import Params
from medclip.user_folders import cache_folder
from medclip.versions import processor_models, source_digest

LOG = logging.getLogger("medclip.encode")
SIZE_VARIABLE = "MEDCLIP_FEATURE_CACHE_GB"
DEFAULT_GB = 8.0
SAVE_EVERY_S = 5.0
KEY_BYTES = 32
_MODULES = (
    *(f"medclip.model.{name}" for name in ("towers", "layers", "positions", "resnet", "onnx_graph")),
    *(f"medclip.encode.{name}" for name in ("caption_lengths", "encoder", "inference_backends")),
)
"""What decides the features of given pixels: another version of any of these has stores of its own."""


def digest_of(*parts: bytes | np.ndarray) -> bytes:
    """The key of a row: SHA-256 of what decides its features, each part after its length."""
    digest = hashlib.sha256()
    for part in parts:
        data = np.ascontiguousarray(part).data if isinstance(part, np.ndarray) else part
        digest.update(memoryview(data).nbytes.to_bytes(8, "little"))
        digest.update(data)
    return digest.digest()


def tower_digest(
    params: Params, tower: VisionConfig | TextConfig, processor: ImageProcessor | None = None, engine: str = "jax"
) -> str:
    """The name of a tower's store: its tensors and its config, whatever its projection; its image processor.

    Also the backend and its version, this version of JAX, its device, this processor and what else may change the last
    bit.
    """
    config = dataclasses.replace(tower, prefix="", projection=(), projection_hidden_size=0)
    digest = hashlib.sha256(repr((config, processor, engine, _environment())).encode())
    for name in sorted(params):
        if in_tower(name, tower):
            tensor = np.ascontiguousarray(params[name])
            digest.update(repr((name.removeprefix(tower.prefix), tensor.dtype.str, tensor.shape)).encode())
            digest.update(tensor.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()[:32]


@functools.cache
def _environment() -> tuple[str, ...]:
    device = jax.devices()[0]
    return (
        *(jax.__version__, jaxlib.version.__version__, *pixel_software(), source_digest(*_MODULES)),
        *(device.platform, device.device_kind, device.client.platform_version, os.environ.get("XLA_FLAGS", "")),
        *processor_models(),  # a home folder may be that of several machines
        *(str(jax.config.values[f"jax_{name}"]) for name in ("default_matmul_precision", "disable_most_optimizations")),
    )


class FeatureStore:
    """The features f32 (w,) of one tower by key. Without a folder it writes nothing, and holds what `keep` gave alone.

    Rows on the disk are memory-mapped. Nothing that goes wrong with the disk ends the work: it goes on without the
    cache, with a warning.
    """

    def __init__(self, folder: Path | None = None, max_bytes: int = 0):
        self.folder, self.max_bytes = folder, max_bytes
        self._rows: dict[bytes, np.ndarray] = {}
        self._new: list[tuple[bytes, np.ndarray]] = []
        self._last_save = time.monotonic()
        if folder is not None:
            try:
                self._read(folder)
            except OSError as error:
                self._give_up("read", error)

    def __contains__(self, key: bytes) -> bool:
        return key in self._rows

    def __getitem__(self, key: bytes) -> Float32[np.ndarray, " w"]:
        return self._rows[key]

    def keep(
        self,
        keys: Sequence[bytes],
        inputs: Sequence[Any],
        compute: Callable[[list[Any]], Float32[np.ndarray, "m w"]],
    ) -> None:
        """Have the features of a batch in the store, to be read by key; arguments as of `complete`."""
        if new := self._compute_missing(keys, inputs, compute):
            self._add((keys[i], row) for i, row in new.items())

    def complete(
        self,
        keys: Sequence[bytes],
        inputs: Sequence[Any],
        compute: Callable[[list[Any]], Float32[np.ndarray, "m w"]],
    ) -> Float32[np.ndarray, "n w"]:
        """The features of a batch; `compute` gives those of the inputs that the store lacks, whose rows are saved.

        An input may be None where the store has its key.
        """
        new = self._compute_missing(keys, inputs, compute)
        features = np.stack([new[i] if i in new else self._rows[key] for i, key in enumerate(keys)])
        if self.folder is not None and new:
            self._add((keys[i], row) for i, row in new.items())
        return features

    def _compute_missing(
        self, keys: Sequence[bytes], inputs: Sequence[Any], compute: Callable[[list[Any]], np.ndarray]
    ) -> dict[int, np.ndarray]:
        """The rows that the store lacks, by their place in the batch."""
        missing = [i for i, key in enumerate(keys) if key not in self._rows]
        return dict(zip(missing, compute([inputs[i] for i in missing]), strict=True)) if missing else {}

    def _add(self, rows: Iterable[tuple[bytes, np.ndarray]]) -> None:
        for key, row in rows:
            if key not in self._rows:
                self._rows[key] = row
                if self.folder is not None:
                    self._new.append((key, row))
        if time.monotonic() - self._last_save >= SAVE_EVERY_S:
            self.save()

    def save(self) -> None:
        """Write the rows that are not on the disk yet; they become one segment."""
        new, self._new, self._last_save = self._new, [], time.monotonic()
        if self.folder is None or not new:
            return
        segment = np.empty(len(new), _row_type(len(new[0][1])))
        segment["key"] = np.frombuffer(b"".join(key for key, _ in new), np.uint8).reshape(-1, KEY_BYTES)
        segment["features"] = [row for _, row in new]
        buffer = io.BytesIO()
        np.save(buffer, segment)
        name = hashlib.sha256(buffer.getbuffer()).hexdigest()
        try:
            for folder in (self.folder.parent, self.folder):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = lock_folder(self.folder, wait_s=LOCK_WAIT_S)
            with lock, whole_file(self.folder / f"{name}.npy", mode=0o600) as partial:
                partial.write_bytes(buffer.getbuffer())
            self._map(self.folder / f"{name}.npy")
            _evict(self.folder.parent, self.max_bytes)
        except LockedError:  # another process takes long over its own rows
            self._new = [*new, *self._new]
        except OSError as error:
            self._give_up("written", error)

    def _read(self, folder: Path) -> None:
        for path in sorted(folder.glob("*.npy")):
            try:
                if sha256(path) != path.stem:
                    LOG.warning("a part of the feature cache was damaged: what it held is computed again.")
                    with suppress(OSError):
                        path.unlink()
                    continue
                with suppress(OSError):  # of a cache that this user may only read
                    os.utime(path)  # the least recently used are removed first
                self._map(path)
            except FileNotFoundError:  # removed by another process meanwhile
                continue

    def _map(self, path: Path) -> None:
        """Read the rows of a segment from the disk when they are wanted."""
        segment = np.load(path, mmap_mode="r")
        self._rows.update(zip(map(bytes, segment["key"]), segment["features"], strict=True))

    def _give_up(self, action: str, error: OSError) -> None:
        LOG.warning(
            f"the feature cache {self.folder and self.folder.parent} cannot be {action} ({error.strerror or error}): "
            "the work goes on without it."
        )
        self.folder = None


def open_store(name: Callable[[], str], enabled: bool) -> FeatureStore:
    """The store of a tower's name (see `tower_digest`), which is not asked for where nothing is cached.

    It lies below `$XDG_CACHE_HOME/medclip/features` (`~/.cache/medclip/features`). All stores together have at most
    MEDCLIP_FEATURE_CACHE_GB (8) GB, 10^9 bytes; 0 disables. UserError where that is not a number.
    """
    text = os.environ.get(SIZE_VARIABLE, str(DEFAULT_GB))
    try:
        max_bytes = int(float(text) * 1e9)
        if max_bytes < 0:
            raise ValueError
    except (ValueError, OverflowError):
        raise UserError(f"{SIZE_VARIABLE} {text!r} is not a number of GB from 0 on.") from None
    if not (enabled and max_bytes):
        return FeatureStore()
    if (cache := cache_folder()) is None:
        LOG.warning("no feature cache: this user has no home folder, and XDG_CACHE_HOME names none.")
        return FeatureStore()
    return FeatureStore(cache / "features" / name(), max_bytes)


def _row_type(width: int) -> np.dtype:
    return np.dtype([("key", "u1", (KEY_BYTES,)), ("features", "<f4", (width,))])


def _evict(root: Path, max_bytes: int) -> None:
    """Remove the least recently used segments until all stores together have at most `max_bytes`."""
    files = []
    for path in root.glob("*/*"):
        try:
            stat = path.stat()
        except FileNotFoundError:
            continue
        files.append((stat.st_mtime_ns, stat.st_size, path))
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= max_bytes:
            break
        path.unlink(missing_ok=True)
        total -= size
