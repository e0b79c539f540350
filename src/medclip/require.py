"""Optional packages: imported where they are needed, named with their remedy where they are absent."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from medclip.errors import UserError


def require(package: str, *, extra: str = "", install: str = "") -> ModuleType | Any:
    """The module `package` (also dotted, "pydicom.pixels"), imported now.

    Raises UserError where it is not installed, with the command that installs it: medclip's own `extra`, or what
    `install` names where no extra holds it. A package that is there and breaks on import raises its own error.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        top = package.split(".")[0]
        if (error.name or top).split(".")[0] != top:
            raise
        remedy = f"'medclip[{extra}]'" if extra else install or top
        raise UserError(f"{top} is not installed: pip install {remedy}.") from None
