"""The documentation site: python docs/build.py OUT [EXAMPLE …] writes OUT/site. A warning is an error.

The examples of these names (all, if none is given) run in OUT/examples, and their pages show what they print and draw;
"none" runs none. One that needs what is absent says so on its page; interop needs torch. Nothing is fetched: what they
share is made by examples/toy.py, or given in its variables.

Links to what is no part of the site, as code and tests are, serve readers of a checkout: the site has their text alone.
"""

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from flowchart import to_svg
from notebooks import NOTEBOOKS, read_cells, run, write_notebook, write_page

DOCS = Path(__file__).parent
WITH_ALL = "`make docs ENV=.venv-parity`"
RECORDS = ("decisions.md", "log.md", "results.md")
"""Their many headings came before the guides in the site's search."""


def main(out: Path, examples: Sequence[str]) -> None:
    """Copy the pages to OUT/docs, write those of the examples, and build them there."""
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(DOCS, out / "docs", ignore=shutil.ignore_patterns("*.py", "*.toml", "results", "__pycache__"))
    shutil.copy(DOCS / "zensical.toml", out)
    (out / "src").symlink_to(DOCS.parent.resolve() / "src")  # the docstrings
    write_examples(out, examples or [path.stem for path in NOTEBOOKS])
    files = {str(file.relative_to(out / "docs")) for file in (out / "docs").rglob("*")}

    def keep_link(match: re.Match[str]) -> str:
        text, path = match.groups()
        return match[0] if path in files or re.match("https?:|$", path) else text

    names = "|".join(path.stem for path in NOTEBOOKS)
    for page in (out / "docs").glob("*.md"):
        text = re.sub(rf"\]\(\.\./examples/({names})\.py\)", r"](examples/\1.md)", page.read_text("utf-8"))
        text = re.sub(r"```mermaid\n(.*?)```", lambda match: to_svg(match[1]), text, flags=re.S)
        text = re.sub(r"\[([^]]+)\]\(([^)#]*)[^)]*\)", keep_link, text)
        header = "---\nsearch:\n  exclude: true\n---\n\n" if page.name in RECORDS else ""
        page.write_text(header + text, "utf-8")
    show_thumbnails(out / "docs" / "gallery.md")
    command = [Path(sys.executable).parent / "zensical", "build", "--strict"]
    sys.exit(subprocess.run(command, cwd=out).returncode)


def write_examples(out: Path, names: Sequence[str]) -> None:
    """Write OUT/docs/examples: a page and a notebook of every example, with outputs where it runs."""
    for folder in (out / "docs" / "examples", out / "examples"):
        folder.mkdir()
    for path in NOTEBOOKS:
        note = "Not run for this page."
        cells = read_cells(path)
        if path.stem in names:
            print(f"examples/{path.name}", flush=True)
            if path.stem == "model_of_2021" and "MEDCLIP_2021" not in os.environ:
                _write_model_of_2021(out / "examples")
            try:
                cells, note = run(path, out / "examples"), ""
            except ModuleNotFoundError as error:
                note = f"Not run for this page: {error.name} is absent. {WITH_ALL} shows what it prints."
        page = out / "docs" / "examples" / f"{path.stem}.md"
        write_page(cells, page, note)
        write_notebook(cells, page.with_suffix(".ipynb"))


def _write_model_of_2021(folder: Path) -> None:
    """Write the toy in the files of 2021, for MEDCLIP_2021: the weights of 2021 need a network."""
    root = DOCS.parent
    sys.path += [str(root / "examples"), str(root / "tests")]
    import medclip
    import toy
    from support.model_folders import hybrid_folder

    with contextlib.chdir(folder):
        os.environ["MEDCLIP_2021"] = str(hybrid_folder(medclip.load(toy.model()).model, Path("toy-of-2021")))


def show_thumbnails(gallery: Path) -> None:
    """Put the first image of each example above its title in the gallery's table."""
    text = gallery.read_text("utf-8")
    for image in gallery.parent.glob("examples/*-small.png"):
        page = f"examples/{image.name.removesuffix('-small.png')}.md"
        title = re.search(rf"\[[^]]+\]\({page}\)", text)[0]
        text = text.replace(title, f"[![](examples/{image.name})]({page})<br>{title}")
    gallery.write_text(text, "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
