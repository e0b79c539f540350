"""The documentation site: python docs/build.py OUT writes OUT/site. A warning is an error; nothing is fetched.

Links to what is no part of the site, as code and tests are, serve readers of a checkout: the site has their text alone.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parent


def main(out: Path) -> None:
    """Copy the pages to OUT/docs, and build them there."""
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(DOCS, out / "docs", ignore=shutil.ignore_patterns("*.py", "*.toml", "results", "__pycache__"))
    shutil.copy(DOCS / "zensical.toml", out)
    (out / "src").symlink_to(DOCS.parent.resolve() / "src")  # the docstrings
    files = {str(file.relative_to(out / "docs")) for file in (out / "docs").rglob("*")}

    def keep_link(match: re.Match[str]) -> str:
        text, path = match.groups()
        return match[0] if path in files or re.match("https?:|$", path) else text

    for page in (out / "docs").glob("*.md"):
        page.write_text(re.sub(r"\[([^]]+)\]\(([^)#]*)[^)]*\)", keep_link, page.read_text("utf-8")), "utf-8")
    command = [Path(sys.executable).parent / "zensical", "build", "--strict"]
    sys.exit(subprocess.run(command, cwd=out).returncode)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
