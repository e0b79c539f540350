"""What is installed under the name medclip: this project, whole, or a sentence that says which other."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from hatchling.builders.sdist import SdistBuilder

import medclip_jax
from medclip import __version__

ROOT = Path(__file__).parents[1]


def start(*path, words=("--version",)):
    """The command `medclip` of a Python whose path begins with those folders."""
    program = f"import sys; sys.path[:0] = {[str(p) for p in path]}; import medclip_jax; medclip_jax.main()"
    return subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True)


def install_stranger(folder, name="MedCLIP-0.0.3", files="medclip/__init__.py"):
    """As pip installs PyPI's medclip."""
    (folder / "medclip").mkdir(parents=True, exist_ok=True)
    (folder / "medclip" / "__init__.py").write_text("raise ModuleNotFoundError('No module named torch')")
    info = folder / f"{name}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: MedCLIP\nVersion: 0.0.3\n")
    (info / "RECORD").write_text(f"{files},,\n{name}.dist-info/METADATA,,\n")


def install_ours(folder):
    """As pip installs our wheel."""
    folder.mkdir()
    (folder / "medclip").symlink_to(ROOT / "src" / "medclip")
    (folder / "medclip_jax.py").write_bytes((ROOT / "src" / "medclip_jax.py").read_bytes())


def test_the_command_starts_from_a_checkout_and_from_a_wheel(tmp_path):
    install_ours(tmp_path / "site")
    for folder in (ROOT / "src", tmp_path / "site"):
        done = start(folder)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"medclip {__version__}\n", "")


def test_a_stranger_before_a_checkout_is_named(tmp_path):
    install_stranger(tmp_path)
    done = start(tmp_path, ROOT / "src")
    assert done.returncode == 2 and "MedCLIP 0.0.3, another project" in done.stderr and "Traceback" not in done.stderr
    assert "pip uninstall medclip" in done.stderr


def test_a_stranger_in_the_folder_of_a_wheel_is_named(tmp_path):
    install_ours(tmp_path / "site")
    install_stranger(tmp_path, "medclip-0.0.2")
    (tmp_path / "medclip-0.0.2.dist-info").rename(tmp_path / "site" / "medclip-0.0.2.dist-info")
    done = start(tmp_path / "site")
    assert done.returncode == 2 and "medclip 0.0.2, another project" in done.stderr


def test_a_distribution_of_that_name_without_the_package_is_no_conflict(tmp_path):
    install_ours(tmp_path / "site")
    (tmp_path / "other").mkdir()
    install_stranger(tmp_path / "other", files="_editable_impl_medclip.pth")
    (tmp_path / "other" / "MedCLIP-0.0.3.dist-info").rename(tmp_path / "site" / "MedCLIP-0.0.3.dist-info")
    assert start(tmp_path / "site").returncode == 0


def test_a_package_that_the_stranger_took_along_when_it_left_is_named(monkeypatch):
    """pip removes the files of that name, whoever wrote them, and takes ours for installed afterwards."""
    monkeypatch.setattr(medclip_jax, "find_spec", lambda name: None)
    assert medclip_jax.import_conflict().endswith("install medclip-jax again with --force-reinstall --no-deps.")


def test_a_file_of_the_user_with_that_name_is_named(tmp_path):
    (tmp_path / "medclip.py").write_text("raise SystemExit('imported')")
    done = start(tmp_path, ROOT / "src")
    assert done.returncode == 2 and done.stderr == (
        f"medclip: another medclip comes first on Python's path: {tmp_path / 'medclip.py'}.\n"
    )


def test_the_metadata_name_this_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["name"] == "medclip-jax" and project["scripts"] == {"medclip": "medclip_jax:main"}
    assert (ROOT / "src" / "medclip" / "py.typed").is_file()
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text()
    changes = re.findall(r"^## \[([^]]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert changes[0] == "Unreleased" and __version__ in changes


def test_an_sdist_holds_the_package_and_nothing_that_lies_beside_it(tmp_path):
    """`make docs` links build/src to src, which a walk of the whole checkout then takes for seen; data are not ours."""
    for path in ("src/medclip/__init__.py", "pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, tmp_path / path)
    (tmp_path / "src" / "medclip_jax.py").touch()
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "src").symlink_to(tmp_path / "src")
    (tmp_path / "patients").mkdir()
    (tmp_path / "patients" / "reports.csv").touch()
    packed = {file.relative_path for file in SdistBuilder(str(tmp_path)).recurse_included_files()}
    assert packed >= {"src/medclip/__init__.py", "src/medclip_jax.py"} and "patients/reports.csv" not in packed


def tracked_files():
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in names.split("\0") if name and (ROOT / name).is_file()]


def test_no_page_installs_the_stranger():
    stranger = re.compile(r"pip3? install(?: -\S+)* ['\"]?medclip(?:-jax)?(?![\w-])(?![^\n]*another project)[^\n]*")
    for name in ("medclip", "medclip-jax"):  # the second is nobody's yet: whoever registers it could send anything
        assert stranger.search(f"pip install '{name}[dicom]'")
    wrong = {
        file.name: lines
        for file in tracked_files()
        if file.suffix in {".md", ".py", ".sh", ".toml", ".yaml", ".yml", ".ipynb", ".service", ""}
        and file != Path(__file__)
        and (lines := stranger.findall(file.read_text(encoding="utf-8", errors="replace")))
    }
    assert wrong == {}
