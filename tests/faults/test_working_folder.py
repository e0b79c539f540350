"""The working folder may hold what a stranger wrote: none of its files is code or a setting."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import medclip_jax
from medclip.app.run import AppConfig, launch
from medclip.data.decode_workers import DecodeWorkers
from medclip.data.parallel import map_shards
from medclip.search.reader import IndexReader

# of the standard library, and what a started Python imports before it knows the path of its parent
MODULES = ("runpy", "signal", "struct", "socket", "selectors", "tempfile", "random", "queue", "pickle", "streamlit")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder, with modules that write down that they were imported."""
    for name in MODULES:
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'a').write(__name__)\n")
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nfigure.facecolor: red\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    return tmp_path


def test_no_process_that_decodes_or_prepares_imports_from_it(folder):
    workers = DecodeWorkers(1, 60.0)
    try:
        assert workers.run(None, os.getpid) != os.getpid()
    finally:
        workers.close()
    assert list(map_shards(abs, [(-1,)], num_workers=2)) == [1]
    assert not (folder / "imported").exists() and "PYTHONSAFEPATH" not in os.environ


def test_nor_does_any_that_the_command_starts(folder, monkeypatch):
    monkeypatch.setattr("medclip.cli.main.main", lambda: None)
    monkeypatch.setenv("PYTHONSAFEPATH", "")
    medclip_jax.main()
    subprocess.run([sys.executable, "-c", "import signal, struct"], check=True)
    assert not (folder / "imported").exists()


def test_the_app_imports_and_reads_nothing_of_it(index_folder, folder, monkeypatch):
    """Streamlit reads .streamlit/config.toml of the folder that it is started in."""
    started = []

    def start(command, **options):
        started.append((command, options))
        return SimpleNamespace(wait=lambda: 0)

    monkeypatch.setattr(subprocess, "Popen", start)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["lib", "/opt/x"]))
    index, model = (
        Path(os.path.relpath(path, folder)) for path in (index_folder, IndexReader(index_folder).model_path())
    )
    launch(AppConfig((index,), (model,)))
    [(command, options)] = started
    assert command[1] == "-P" and folder not in (options["cwd"], *options["cwd"].parents)
    assert options["env"]["PYTHONPATH"] == os.pathsep.join([str(folder / "lib"), "/opt/x"])
    config = AppConfig.from_json(command[-1])
    assert all(path.is_absolute() for path in (*config.indexes, *config.models)) and config.indexes[0].exists()


CHARTS = """
from medclip.html_page import figure
print(figure(lambda empty: empty.add_subplot().set(title="a_b"), "alt"))
"""


def test_charts_have_none_of_its_settings(folder):
    """Of Matplotlib, which reads them as it is imported."""
    script = folder.parent / "charts.py"
    script.write_text(CHARTS)

    def draw(cwd):
        return subprocess.run([sys.executable, script], cwd=cwd, capture_output=True, text=True, check=False).stdout

    assert draw(folder) == draw(folder.parent) != ""
