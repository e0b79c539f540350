"""Matplotlib's own settings. As it is imported it reads others from the working folder, which may be a stranger's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def default_style() -> Iterator[None]:
    """Draw by Matplotlib's own settings, the same everywhere."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        yield
