"""Optional packages: imported where they are needed, named with their remedy where they are absent."""

from __future__ import annotations

import importlib
import shlex
from types import ModuleType
from typing import Any

from medclip.errors import UserError


def require(package: str, *, extra: str = "", install: str = "") -> ModuleType | Any:
    """The module `package` (also dotted, "pydicom.pixels"), imported now.

    Raises UserError where it is not installed, with the command that installs it: what medclip's own `extra` holds, or
    what `install` names where no extra holds it. A package that is there and breaks on import raises its own error.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        top = package.split(".")[0]
        if (error.name or top).split(".")[0] != top:
            raise
        remedy = install_command(extra) if extra else f"pip install {install or top}"
        raise UserError(f"{top} is not installed: {remedy}.") from None


def install_command(extra: str) -> str:
    """The command that installs what an extra of medclip holds.

    It names the packages, so that it works whether medclip was installed from a checkout, a wheel or an index.
    """
    from importlib.metadata import PackageNotFoundError, requires

    from packaging.requirements import Requirement

    try:
        requirements = requires("medclip-jax") or ()
    except PackageNotFoundError:  # run from a checkout that is not installed
        return f"pip install -e '.[{extra}]' in the checkout of medclip"
    words = []
    for requirement in map(Requirement, requirements):
        marker, requirement.marker = requirement.marker, None
        if marker and not marker.evaluate() and marker.evaluate({"extra": extra}):
            words.append(shlex.quote(str(requirement)))
    return f"pip install {' '.join(words)} (the extra {extra} of medclip-jax)"
