"""What the tests share: a small ROCO folder with every kind of bad row, and what each stage makes of it."""

from medclip import backend

backend.start()  # before anything imports JAX

import io  # noqa: E402
import os  # noqa: E402
import shutil  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import unicodedata  # noqa: E402
from dataclasses import dataclass, field  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402
from PIL import Image  # noqa: E402

# The first example pays for compilation and imports, so a deadline would measure those.
settings.register_profile("medclip", deadline=None, max_examples=50, derandomize=bool(os.environ.get("CI")))
settings.load_profile("medclip")

SHORT_CAPTION = "CT scan."


def level_of(number: int) -> int:
    """The mean grey that stands for picture `number`; 4 apart, where JPEG moves a mean by less than 1."""
    return 50 + 4 * number


def drawn(number: int, size: tuple[int, int] = (48, 40)) -> Image.Image:
    """Grey picture `number`: its mean says which it is, its blocks make it unlike the others."""
    width, height = size
    noise = np.random.default_rng(number).uniform(-30, 30, (height // 8, width // 8))
    blocks = np.kron(noise - noise.mean(), np.ones((8, 8)))
    return Image.fromarray(np.rint(level_of(number) + blocks).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "JPEG", **options) -> bytes:
    """The bytes of a picture file."""
    out = io.BytesIO()
    image.save(out, kind, **({"quality": 95} if kind == "JPEG" else {}) | options)
    return out.getvalue()


@dataclass
class RocoFolder:
    """A folder in ROCO's layout, and what is true of it. Keys are (split, id)."""

    folder: Path
    lines: int = 0
    captions: dict[tuple[str, str], str] = field(default_factory=dict)
    numbers: dict[tuple[str, str], int] = field(default_factory=dict)
    dropped: dict[str, dict[str, int]] = field(default_factory=dict)
    pmc_named: str = "ROCO_90006"

    def add_split(self, split: str, rows: list[tuple[str, str, int, bytes | None]], extra: tuple[str, ...] = ()):
        """Write rows (id, caption, picture number, picture file or None for an absent one) and `extra` raw lines."""
        place = self.folder / split / "radiology"
        (place / "images").mkdir(parents=True)
        lines, links, licences = [], [], ["ROCO_ID,PMC_ID,CC"]
        for id, caption, number, picture in rows:
            pmc = f"PMC{1000 + number // 2}_fig-{number}.jpg"  # two pictures an article
            lines.append(f"{id}\t {caption}")
            links.append(f"{id}\twget -r ftp://host/oa_package/00/PMC{1000 + number // 2}.tar.gz\tfig-{number}.jpg")
            licences.append(f"{id},{pmc},CC BY")
            if picture is not None:
                (place / "images" / (pmc if id == self.pmc_named else f"{id}.jpg")).write_bytes(picture)
            self.captions[split, id], self.numbers[split, id] = caption, number
        lines += extra
        self.lines += len(lines)
        (place / "captions.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        (place / "dlinks.txt").write_text("\n".join(links) + "\n", encoding="utf-8")
        (place / "licences.txt").write_text("\n".join(licences) + "\n", encoding="utf-8")
        concepts = "".join(f"{id}\t\tC{number:07}\tC9\n" for id, _, number, _ in rows)
        (place / "cuis.txt").write_text(concepts, encoding="utf-8")
        types = "".join(f"{id}\t\tT060\tDiagnostic Procedure\n" for id, *_ in rows)
        (place / "semtypes.txt").write_text(types, encoding="utf-8")
        (place / "labels.csv").write_text(f"id,modality,organ\n{rows[0][0]},ct,\n", encoding="utf-8")


def _ordinary(numbers: range) -> list[tuple[str, str, int, bytes]]:
    organs, sides = ("chest", "abdomen", "brain", "knee", "pelvis"), ("left", "right", "upper")
    return [
        (f"ROCO_{n:05}", f"CT of the {sides[n % 3]} {organs[n % 5]}, picture number {n}", n, encoded(drawn(n)))
        for n in numbers
    ]


@pytest.fixture(scope="session")
def roco(tmp_path_factory) -> RocoFolder:
    """20 ordinary training pairs, 5 tricky ones that must be kept and 5 rows that must be dropped; 12 validation."""
    made = RocoFolder(tmp_path_factory.mktemp("roco"))
    deep = Image.fromarray(np.asarray(drawn(21)).astype(np.uint16) * 200)
    rows = [
        *_ordinary(range(20)),
        ("ROCO_90001", "An absent picture of the chest", 20, None),
        ("ROCO_90002", "Sixteen bits under the name of a JPEG", 21, encoded(deep, "PNG")),
        ("ROCO_90003", "A truncated picture of the chest", 22, encoded(drawn(22))[:300]),
        ("ROCO_90004", SHORT_CAPTION, 23, encoded(drawn(23))),
        ("ROCO_90005", unicodedata.normalize("NFD", "Échographie\u00a0rénale  à gauche"), 24, encoded(drawn(24))),
        ("ROCO_90006", "T2-weighted MRI of Kienböck's Disease (STIR), mixed CASE", 25, encoded(drawn(25))),
        ("ROCO_90007", 'A "ground-glass" opacity; 5–10 mm, <b>arrow</b>, 50% & \\n', 26, encoded(drawn(26))),
        ("ROCO_90008", "b' none of this is Python '", 27, encoded(drawn(27))),
    ]
    made.add_split("train", rows, ("ROCO_00003\t A second row of the same id", "a row without a tab"))
    made.add_split("validation", [(id, c, n, p) for id, c, n, p in _ordinary(range(12))])
    made.dropped = {
        "train": {
            "image missing": 1,
            "image unreadable": 1,
            "caption under 10 characters": 1,
            "duplicate id": 1,
            "row without id and caption": 1,
        },
        "validation": {},
    }
    return made


@pytest.fixture(scope="session")
def data(roco, tmp_path_factory) -> Path:
    """The folder, prepared."""
    from medclip.data.prepare import prepare

    out = tmp_path_factory.mktemp("prepared") / "data"
    prepare(str(roco.folder), out, workers=1)
    return out


@pytest.fixture(scope="session")
def recipe():
    """The one shape of the suite's trained models: smaller than any preset, for compilation is most of the time."""
    from medclip.model.presets import PRESETS
    from medclip.train.recipe import Recipe

    PRESETS["test"] = (64, 128, 1, 1, 32, 16, 32)
    return Recipe(preset="test", steps=4, batch=8, lr=1e-3, exchanged_sides=0.5, evaluations=2)


@pytest.fixture(scope="session")
def run(data, recipe, tmp_path_factory) -> Path:
    """A run of four steps that nothing interrupted."""
    from medclip.train.loop import train

    out = tmp_path_factory.mktemp("trained") / "run"
    train(data, out, recipe)
    return out


@pytest.fixture(scope="session")
def model(run):
    """The model that the run kept."""
    from medclip.model.hub import load

    return load(run)


@pytest.fixture(scope="session")
def again(data, tmp_path_factory) -> Path:
    """The validation pictures once more, as other pairs: every id has "again-" before it."""
    import pyarrow.compute as pc

    from medclip.data.shards import open_shard, write_arrow

    out = Path(shutil.copytree(data, tmp_path_factory.mktemp("again") / "data"))
    for shard in out.glob("validation-*.arrow"):
        table = open_shard(shard)
        ids = pc.binary_join_element_wise("again-", table.column("id"), "")
        write_arrow(shard, table.set_column(0, table.schema.field("id"), ids))
    return out


@pytest.fixture(scope="session")
def index_folder(run, data, tmp_path_factory) -> Path:
    """The validation split, indexed."""
    from medclip.search.build import build_index

    out = tmp_path_factory.mktemp("indexed") / "index"
    build_index(run, data, out)
    return out


@pytest.fixture
def copy(tmp_path):
    """Copies a folder to where a test may damage it."""
    return lambda folder: Path(shutil.copytree(folder, tmp_path / f"copy-{folder.name}"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The real ROCO rows beside the repository."""
    found = Path(__file__).parents[2] / "shared"
    if not (found / "roco").is_dir():
        pytest.skip(f"{found}/roco is absent: the real ROCO rows are not part of the repository")
    return found


def in_new_process(*arguments):
    """Python with these arguments: what it printed and how it ended."""
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)


@pytest.fixture
def medclip(monkeypatch, capsys):
    """Runs a command in this process: (exit code, standard output, standard error)."""
    monkeypatch.setenv("COLUMNS", "200")  # of the help
    from medclip import cli, progress
    from medclip.tables import parts

    for console in (progress.console, parts.screen):
        monkeypatch.setattr(console, "width", 200)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["medclip", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
        said = capsys.readouterr()
        return code, said.out, said.err

    return call
