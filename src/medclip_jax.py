"""The command `medclip`, after a check that `medclip` is this project's.

PyPI's MedCLIP (https://github.com/RyanWangZf/MedCLIP) is another project with the same import name. Installed beside
this one it writes over our `__init__.py`, or comes before a checkout on the path. So the check lies outside of it.
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

_AGAIN = "install medclip-jax again with --force-reinstall --no-deps"  # pip takes it for installed


def main() -> None:
    """Run the command line; exit code 2 where `medclip` is not, or not wholly, this project's."""
    if conflict := import_conflict():
        print(f"medclip: {conflict}", file=sys.stderr)
        raise SystemExit(2)
    from medclip.cli.main import main as run_command

    # for each Python that is started: `-c` and `-m` would import from the working folder, which may be a stranger's
    os.environ["PYTHONSAFEPATH"] = "1"
    run_command()


def import_conflict() -> str:
    """Why `import medclip` is not this project alone, with the remedy; empty where it is. Imports nothing of it."""
    spec = find_spec("medclip")
    if spec is None or spec.origin is None:
        return f"the package medclip is not there: {_AGAIN}."
    package = Path(spec.origin).parent
    for folder in package.parent.glob("*.dist-info"):
        name, _, version = folder.name.removesuffix(".dist-info").partition("-")
        if name.lower() == "medclip" and _holds_package(folder):
            return (
                f"{name} {version}, another project with the same import name, lies in the same folder: run "
                f"pip uninstall medclip, then {_AGAIN}."
            )
    if package != Path(__file__).with_name("medclip"):
        return f"another medclip comes first on Python's path: {spec.origin}."
    return ""


def _holds_package(dist_info: Path) -> bool:
    """Whether that distribution installed `medclip/__init__.py`; an editable one did not."""
    from importlib.metadata import Distribution  # 20 ms

    return any(file.as_posix() == "medclip/__init__.py" for file in Distribution.at(dist_info).files or ())
