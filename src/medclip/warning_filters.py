"""Which libraries' warnings nobody sees, as they quote what a file says."""

from __future__ import annotations

import re
import warnings


def ignore_warnings(package: str) -> None:
    """Show no warning of `package` from now on, in any thread: decoders quote values of the headers they read.

    `warnings.catch_warnings` changes the filters of the whole process: one thread that leaves it shows those of others.
    """
    ignored = ("ignore", None, Warning, re.compile(rf"{package}(\.|$)"), 0)
    if ignored not in warnings.filters:
        warnings.filterwarnings("ignore", module=ignored[3].pattern)
