"""What the tests share: a small ROCO folder with every kind of bad row, and what each stage makes of it."""

import gc

gc.disable()  # until the tests are collected: what imports make stays, and is looked through again and again

import atexit  # noqa: E402
import os  # noqa: E402
import shutil  # noqa: E402
import tempfile  # noqa: E402
from pathlib import Path  # noqa: E402

from medclip import jax_setup  # noqa: E402

# What one process of the tests has compiled none compiles again, however small: workers, commands, a next training.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".cache" / "xla"))
jax_setup.start()  # before anything imports JAX

from jaxtyping import install_import_hook  # noqa: E402

# Modules whose annotations of arrays are checked at every call, before anything imports them.
CHECKED_MODULES = [
    "medclip.encode",
    "medclip.dot_products",
    "medclip.evaluation.calibration",
    "medclip.evaluation.candidate_pools",
    "medclip.evaluation.classification_metrics",
    "medclip.evaluation.graded_relevance",
    "medclip.evaluation.labeled_features",
    "medclip.evaluation.probe",
    "medclip.evaluation.retrieval",
    "medclip.evaluation.robustness",
    "medclip.evaluation.significance",
    "medclip.evaluation.subgroups",
    "medclip.evaluation.zero_shot",
    "medclip.match_calibration",
    "medclip.metrics",
    "medclip.model",
    "medclip.resamples",
    "medclip.saliency",
    "medclip.search.map",
    "medclip.training.data",
    "medclip.training.losses",
    "medclip.training.optim",
    "medclip.training.step",
    "medclip.training.token_counts",
    "medclip.training.validation",
    "medclip.zero_shot",
]
install_import_hook(CHECKED_MODULES, "beartype.beartype")

import dataclasses  # noqa: E402
import math  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
import unicodedata  # noqa: E402
from collections.abc import Iterator  # noqa: E402

import jax  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402
from PIL import Image  # noqa: E402

from medclip import progress  # noqa: E402
from medclip.stop_signals import STOP_SIGNALS  # noqa: E402
from support.hub import Hub, serve_hub  # noqa: E402
from support.material import SHORT_CAPTION, RocoFolder, draw_image, image_bytes  # noqa: E402

# A micro model's step is compiled for seconds and run for milliseconds. Commands in processes of their own keep XLA's
# optimizations, as somebody who runs them has them.
jax.config.update("jax_disable_most_optimizations", True)
progress._LOG_EVERY_S = progress._BRIEF_S = math.inf  # a line on standard error would tell how fast the machine is
os.environ["XDG_CONFIG_HOME"] = tempfile.mkdtemp(prefix="medclip-config-")  # no key of the user's is read, or made
atexit.register(shutil.rmtree, os.environ["XDG_CONFIG_HOME"], ignore_errors=True)
os.environ["MEDCLIP_FEATURE_CACHE_GB"] = "0"  # tests of the feature cache alone have one, in a folder of their own

# The first example pays for compilation and imports, so a deadline would measure those.
settings.register_profile("medclip", deadline=None, max_examples=50, derandomize=bool(os.environ.get("CI")))
settings.load_profile("medclip")


def pytest_collection_finish() -> None:
    """Collect garbage of the tests alone from here on, and more of it at a time."""
    gc.freeze()
    gc.set_threshold(10_000)
    gc.enable()


def _ordinary(numbers: range) -> list[tuple[str, str, int, bytes]]:
    organs, sides = ("chest", "abdomen", "brain", "knee", "pelvis"), ("left", "right", "upper")
    return [
        (f"ROCO_{n:05}", f"CT of the {sides[n % 3]} {organs[n % 5]}, image number {n}", n, image_bytes(draw_image(n)))
        for n in numbers
    ]


@pytest.fixture(scope="session")
def roco(tmp_path_factory) -> RocoFolder:
    """20 ordinary training pairs, 5 tricky ones that must be kept and 5 rows that must be dropped; 12 validation."""
    made = RocoFolder(tmp_path_factory.mktemp("roco"))
    deep = Image.fromarray(np.asarray(draw_image(21)).astype(np.uint16) * 200)
    rows = [
        *_ordinary(range(20)),
        ("ROCO_90001", "An absent image of the chest", 20, None),
        ("ROCO_90002", "Sixteen bits under the name of a JPEG", 21, image_bytes(deep, "PNG")),
        ("ROCO_90003", "A truncated image of the chest", 22, image_bytes(draw_image(22))[:300]),
        ("ROCO_90004", SHORT_CAPTION, 23, image_bytes(draw_image(23))),
        (
            "ROCO_90005",
            unicodedata.normalize("NFD", "Échographie\u00a0rénale  à gauche"),
            24,
            image_bytes(draw_image(24)),
        ),
        ("ROCO_90006", "T2-weighted MRI of Kienböck's Disease (STIR), mixed CASE", 25, image_bytes(draw_image(25))),
        ("ROCO_90007", 'A "ground-glass" opacity; 5–10 mm, <b>arrow</b>, 50% & \\n', 26, image_bytes(draw_image(26))),
        ("ROCO_90008", "b' none of this is Python '", 27, image_bytes(draw_image(27))),
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
    prepare(str(roco.folder), out, num_workers=1)
    return out


@pytest.fixture(scope="session")
def train_config():
    """The one shape of the suite's trained models: smaller than any preset, for compilation is most of the time."""
    from medclip.model.config import PRESETS, Preset
    from medclip.training.config import TrainConfig

    PRESETS["test"] = Preset(64, 128, 1, 1, 32, 16, 32)
    return TrainConfig(preset="test", steps=4, batch_size=8, lr=1e-3, hard_negatives=("left-right",), num_evals=2)


@pytest.fixture(scope="session")
def run(data, train_config, tmp_path_factory) -> Path:
    """A run of four steps that nothing interrupted."""
    from medclip.training.loop import train

    out = tmp_path_factory.mktemp("trained") / "run"
    train(data, out, train_config)
    return out


@pytest.fixture(scope="session")
def model(run):
    """The model that the run kept."""
    from medclip.model.checkpoint import load

    return load(run)


@pytest.fixture(scope="session")
def again(data, tmp_path_factory) -> Path:
    """The validation images once more, as other pairs: every id has "again-" before it."""
    from support.handmade_datasets import change_rows

    out = Path(shutil.copytree(data, tmp_path_factory.mktemp("again") / "data"))
    return change_rows(out, lambda row: row | {"id": f"again-{row['id']}"}, "validation")


@pytest.fixture(scope="session")
def index_folder(run, data, tmp_path_factory) -> Path:
    """The validation split, indexed."""
    from medclip.search.curate import build_index

    out = tmp_path_factory.mktemp("indexed") / "index"
    build_index(run, data, out)
    return out


@pytest.fixture
def copy(tmp_path):
    """Copies a folder to where a test may damage it."""
    return lambda folder: Path(shutil.copytree(folder, tmp_path / f"copy-{folder.name}"))


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """The real ROCO rows beside the repository."""
    folder = Path(__file__).parents[2] / "shared"
    if not (folder / "roco").is_dir():
        pytest.skip(f"{folder}/roco is absent: the real ROCO rows are not part of the repository")
    return folder


@pytest.fixture
def medclip(monkeypatch, capsys):
    """Runs a command in this process: (exit code, standard output, standard error)."""
    monkeypatch.setenv("COLUMNS", "200")  # of the help
    from medclip.cli.format import screen
    from medclip.cli.main import main

    for console in (progress.console, screen):
        monkeypatch.setattr(console, "width", 200)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["medclip", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        output = capsys.readouterr()
        return code, output.out, output.err

    return call


@pytest.fixture
def ordinary_signals() -> Iterator[None]:
    """What a terminal gives: a background job of a script has SIGINT ignored from the start, these tests too."""
    before = {kind: signal.getsignal(kind) for kind in STOP_SIGNALS}
    for kind in STOP_SIGNALS:
        signal.signal(kind, signal.default_int_handler if kind == signal.SIGINT else signal.SIG_DFL)
    yield
    for kind, handler in before.items():
        signal.signal(kind, handler)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """An empty Hub in place of the real one, and an empty cache."""
    with serve_hub() as (served, address):
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(
            "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
            address + "/{repo_id}/resolve/{revision}/{filename}",
        )
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        yield served


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("MEDCLIP_FEATURE_CACHE_GB", "8")
    return tmp_path / "xdg" / "medclip" / "features"


@pytest.fixture
def tower_runs(monkeypatch):
    """How many rows each tower was given, padding apart."""
    from medclip.encode.encoder import jax_backend

    rows = {"images": 0, "captions": 0}

    def counting(model, cache=False):
        backend = jax_backend(model, cache)

        def images(pixels):
            rows["images"] += len(pixels)
            return backend.image_features(pixels)

        def texts(ids, valid):
            rows["captions"] += len(ids)
            return backend.text_features(ids, valid)

        return dataclasses.replace(backend, image_features=images, text_features=texts)

    for module in (
        "encode.encoder",
        "encode.inference_backends",
        "search.curate",
        "training.best_model",
        "training.run",
        "training.validation",
    ):
        monkeypatch.setattr(f"medclip.{module}.jax_backend", counting)
    return rows
