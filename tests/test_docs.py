"""README and docs: every block of code runs or says why not, every link leads somewhere, and the site builds.

A page's blocks run in order in one folder. It holds what a reader of that page has by then: `pairs.csv` and its images,
`data`, `run`, `index`, and `unseen` (images with labels.csv); the tutorial starts with nothing. Sizes alone are made
smaller. `python` runs as it is, `sh` line by line (medclip commands alone); `toml`, `json` and `yaml` are parsed;
`text` is what a program prints, or a form. A block below `<!-- not run: REASON -->` is left alone.
"""

import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from codeop import compile_command
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import pytest
import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token
from playwright.sync_api import expect

from medclip.data.prepare import prepare
from medclip.model.config import PRESETS
from support import gallery_stored
from support.browser import open_chromium
from support.material import draw_image, image_bytes
from support.module_graph import draw_graph

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINKED = [*sorted(ROOT.glob("*.md")), *PAGES[1:]]
HUB = {
    "openai/clip-vit-base-patch32": "openai-clip-b32",
    "microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224": "biomedclip",
    "google/siglip-base-patch16-224": "siglip-b16",
    "facebook/dinov2-small": "dinov2-small",
    "sentence-transformers/all-MiniLM-L6-v2": "minilm",
    "allenai/scibert_scivocab_uncased": "scibert",
    "flax-community/medclip-roco": "medclip-roco",
}
"""Repositories that pages name, and the layouts of the gallery that stand for them."""
SMALLER = {
    r"phantoms\(\d+, num_validation=\d+\)": "phantoms(60, num_validation=20)",
    r"(--steps |\bsteps=)\d+": r"\g<1>2",
    r"(--epochs |\bepochs=)\d+": r"\g<1>1",
    r"(--num-evals |\bnum_evals=)\d+": r"\g<1>1",
    r"(--micro-batch-size |\bmicro_batch_size=)\d+": r"\g<1>4",
    r" --batch-size \d+": "",
    "medclip train ": "medclip train --batch-size 8 --on-regression warn ",
    r"TrainConfig\(": 'TrainConfig(batch_size=8, on_regression="warn", ',
}
"""Sizes of the pages, and those of the tests; random weights may fall below their start by chance."""
MAX_COLUMNS = {"README.md": 92}
"""Of code: what GitHub shows without scrolling; the site shows 86 at 1,280 pixels."""
PARSERS = {"toml": tomllib.loads, "json": json.loads, "yaml": yaml.safe_load, "mermaid": str}


class Block(NamedTuple):
    language: str
    code: str
    line: int
    reason: str | None
    """Why it is not run."""


@cache
def parse(page: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8"))


def code_blocks(page: Path) -> list[Block]:
    tokens = parse(page)
    blocks = []
    for before, token in itertools.pairwise([None, *tokens]):
        if token.type in ("fence", "code_block"):
            comment = before.content if before is not None and before.type == "html_block" else ""
            reason = re.fullmatch(r"<!-- not run: (.+) -->\s*", comment)
            blocks.append(Block(token.info.strip(), token.content, token.map[0] + 1, reason and reason[1]))
    return blocks


def runnable(page: Path) -> list[Block]:
    return [block for block in code_blocks(page) if block.language != "text" and not block.reason]


def links(page: Path) -> list[str]:
    inline = [child for token in parse(page) for child in token.children or ()]
    return [child.attrs[name] for child in inline for name in ("href", "src") if name in child.attrs]


def anchors(page: Path) -> set[str]:
    """The names of a page's headings, as GitHub and Python-Markdown both make them where a heading is plain words."""
    tokens = parse(page)
    headings = [inline.content for opened, inline in itertools.pairwise(tokens) if opened.type == "heading_open"]
    return {re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", re.sub(r"`", "", text).lower())) for text in headings}


def smaller(code: str) -> str:
    for pattern, replacement in SMALLER.items():
        code = re.sub(pattern, replacement, code)
    return code


@pytest.mark.parametrize("page", LINKED, ids=lambda path: path.name)
def test_links_lead_somewhere(page):
    for link in links(page):
        if re.match(r"https?:|mailto:", link):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_block_fits_its_page_and_says_what_it_is(page):
    for block in code_blocks(page):
        assert block.language in ("python", "sh", "text", *PARSERS), f"line {block.line}: {block.code}"
        if block.language in ("python", "sh", "json"):
            assert max(map(len, block.code.splitlines())) <= MAX_COLUMNS.get(page.name, 86), f"line {block.line}"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_block_of_python_can_be_pasted_into_a_new_session(page):
    """A session of Python 3.11 ends a block that is indented at an empty line alone."""
    for block in (block for block in code_blocks(page) if block.language == "python"):
        assert "medclip" not in block.code or re.search("^(import|from) medclip", block.code, re.M), block.code
        typed = []
        for line in [*block.code.splitlines(), ""]:
            typed.append(line)
            if compile_command("\n".join(typed), symbol="single"):
                typed = []
        assert not typed, "\n".join(typed)


def write_table(file: str, header: str, rows: Sequence[str]) -> None:
    Path(file).write_text("\n".join([header, *rows]), encoding="utf-8")


@pytest.fixture
def place(tmp_path, monkeypatch, request, train_config, hub):
    """The folder that a page's blocks run in, and the repositories of the Hub that they name."""
    page = request.node.callspec.params["page"]
    folder = tmp_path / "place"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))  # of the key of pseudonyms
    monkeypatch.setitem(PRESETS, "tiny", PRESETS["test"])
    monkeypatch.setitem(PRESETS, "small", PRESETS["test"])
    if page.name == "tutorial.md":
        return folder
    for n in range(40):
        (folder / f"{n}.png").write_bytes(image_bytes(draw_image(n), "PNG"))
    captions = [f"{('CT', 'MRI')[n % 2]} of the {('left', 'right')[n // 2 % 2]} knee, number {n}" for n in range(40)]
    write_table("pairs.csv", "image,caption,patient_id", [f'{n}.png,"{captions[n]}",{n}' for n in range(40)])
    (folder / "unseen").mkdir()
    for n in range(8):
        shutil.copy(f"{n}.png", "unseen")
    splits = ("train", "validation")
    write_table("unseen/labels.csv", "file,label,split", [f"{n}.png,{'CM'[n % 2]},{splits[n // 4]}" for n in range(8)])
    made = folder / "runs" / "quickstart" if page.name == "README.md" else folder
    pairs = [{"image": f"{n}.png", "caption": captions[n], "id": f"ROCO_{n:05}"} for n in range(40)]
    prepare({"train": pairs[:16], "validation": pairs[16:]}, made / "data", num_workers=1)
    shutil.copytree(request.getfixturevalue("run"), made / "run")
    (made / "index").symlink_to(request.getfixturevalue("index_folder"))  # it names its model by a relative path
    for repository in {name for block in code_blocks(page) for name in HUB if name in block.code}:
        gallery_stored.restore(HUB[repository], tmp_path / "gallery")
        hub.add(repository, tmp_path / "gallery" / HUB[repository] / "model")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if runnable(page)], ids=lambda path: path.name)
def test_every_block_runs(page, place, medclip):
    names = {"__name__": "__main__"}
    for block in runnable(page):
        if block.language == "python":
            exec(compile("\n" * block.line + smaller(block.code), page.name, "exec"), names)
        elif block.language == "sh":
            for line in smaller(block.code.replace("\\\n", " ")).splitlines():
                if words := shlex.split(line, comments=True):
                    assert words[0] == "medclip", f"{line}: a page runs medclip commands; mark others as not run"
                    code, _, error = medclip(*words[1:])
                    assert code == 0, f"{line}\n{error}"
        else:
            PARSERS[block.language](block.code)


@pytest.fixture(scope="module")
def site(tmp_path_factory, data, run):
    """The site as docs/build.py makes it, with one example run."""
    pytest.importorskip("zensical", reason="zensical is absent: it is in the dependency group docs")
    folder = tmp_path_factory.mktemp("site")
    for name, made in {"data": data, "run": run}.items():  # as examples/toy.py would make them
        (folder / "toy").mkdir(exist_ok=True)
        (folder / "toy" / name).symlink_to(made)
    command = [sys.executable, ROOT / "docs/build.py", folder / "out", "pair"]
    environment = os.environ | {"MEDCLIP_TOY": str(folder / "toy")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "out" / "site"


@pytest.mark.slow
def test_the_site_builds_without_a_warning(site):
    examples = site / "examples"
    page = (examples / "pair.html").read_text(encoding="utf-8")
    assert "<td>" in page and "DualEncoder(" in page and "pair-4.png" in page and (examples / "pair-4.png").is_file()
    assert 'class="dataframe"' not in page  # which has no padding there
    assert "Not run for this page" in (examples / "compare.html").read_text(encoding="utf-8")
    gallery = (site / "gallery.html").read_text(encoding="utf-8")
    assert "pair-small.png" in gallery
    assert all(f"examples/{path.stem}.html" in gallery for path in examples.glob("*.ipynb"))
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert all((site / f"{page}.html").is_file() for page in pages)
    assert "not for clinical use" in (site / "index.html").read_text(encoding="utf-8")
    for page in pages:
        text = (site / f"{page}.html").read_text(encoding="utf-8")
        assert not re.findall(r'<(?:script|img)[^>]* src="(?:https?:)?//', text), page
        for link in re.findall(r'(?:href|src)="(?![a-z]+:)([^"#?]+)', text):
            assert (site / unquote(link)).is_file() or link == ".", f"{page}: {link}"


@pytest.mark.slow
def test_a_page_opened_as_a_file_follows_links_and_searches(site):
    """As `make docs` and CI's artifact leave it; a browser lists a folder there and starts no worker."""
    with open_chromium() as browser:
        page = browser.new_page()
        page.goto((site / "index.html").as_uri())
        page.get_by_role("link", name="Tutorial: from a CSV").first.click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("Tutorial")
        page.get_by_role("button", name="Search").first.click()
        first = page.get_by_role("option").first
        for words, title in {
            "leakage": "medclip leakage",
            "recall": "Recall, ranks",
            "DICOM": "DICOM and PACS",
        }.items():
            page.get_by_role("combobox", name="Search").fill(words)
            expect(first).to_contain_text(title)


@pytest.mark.slow
def test_pages_fetch_nothing_and_fit_a_phone(site):
    with open_chromium() as browser:
        page, requests = browser.new_page(viewport={"width": 390, "height": 844}), []
        page.on("request", lambda request: requests.append(request.url))
        for name in ("architecture", "index", "examples/pair"):
            page.goto((site / f"{name}.html").as_uri())
            page.wait_for_load_state("networkidle")
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, name
            if name == "architecture":
                assert "cli imports training" in page.locator("article svg[role=img]").get_attribute("aria-label")
        assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []


def test_every_page_is_in_the_navigation():
    config = tomllib.loads((ROOT / "docs/zensical.toml").read_text(encoding="utf-8"))
    named = re.findall(r"[\w-]+\.md", json.dumps(config["project"]["nav"]))
    assert sorted(named) == sorted(path.name for path in (ROOT / "docs").glob("*.md"))


def test_the_log_is_newest_first():
    days = re.findall(r"^## (\d{4}-\d\d-\d\d): ", (ROOT / "docs/log.md").read_text(encoding="utf-8"), re.M)
    assert len(days) > 20 and days == sorted(days, reverse=True)


def test_the_first_page_names_every_extra():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    table = (ROOT / "docs/index.md").read_text(encoding="utf-8").partition("| extra | for |")[2]
    assert sorted(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`[^|]+)", table, re.M)))) == sorted(extras)


def test_the_readme_is_one_page():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 90


def test_the_graph_of_the_architecture_is_that_of_the_imports():
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    assert f"```mermaid\n{draw_graph()}```\n" in page, f"docs/architecture.md is to hold\n{draw_graph()}"


def test_what_one_adds_to_is_where_the_page_says():
    """In CONTRIBUTING's table each file exists, and each name is in a file of its row."""
    roots = (ROOT, ROOT / "src/medclip", *(folder for folder in (ROOT / "tests").rglob("*") if folder.is_dir()))
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \*\*.*", page, re.M)
    assert len(rows) == 8
    for row in rows:
        words = [word for word in re.findall(r"`([^`]+)`", row) if "NAME" not in word and " " not in word]
        places = {word: [root / word for root in roots if (root / word).exists()] for word in words}
        files = [file for matches in places.values() for path in matches for file in (path, *path.glob("*.py"))]
        text = "".join(file.read_text(encoding="utf-8") for file in files if file.is_file())
        for word, matches in places.items():
            assert matches or ("/" not in word and word.rpartition(".")[2] in text), f"{word} of {row}"
