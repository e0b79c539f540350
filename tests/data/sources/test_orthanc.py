"""A real archive: Orthanc with its DICOMweb plugin, filled with pydicom's files and reports that name people."""

import base64
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

pytest.importorskip("dicomweb_client", reason="dicomweb-client is not installed: pip install -e '.[dicom]'")

from medclip.data.deidentify import DicomConfig
from medclip.data.dicomweb import TOKEN_VARIABLE
from medclip.data.prepare import prepare
from medclip.data.prepare_config import PrepareConfig
from medclip.data.private_map import find_origins
from support.dicom_files import PACKAGED, write_dicom
from support.fake_dicomweb import NAMES, make_studies
from support.ports import free_port
from support.prepared import dropped_rows, prepared_rows

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
ORTHANC = shutil.which("Orthanc")
PACKAGED_NAMES = ("CompressedSamples", "1CT1", "4MR1", "1.3.6.1.4.1.5962")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (ORTHANC and PLUGIN.exists()), reason="Orthanc is not installed: apt-get install orthanc orthanc-dicomweb"
    ),
]


def post(url: str, body: bytes) -> None:
    with urllib.request.urlopen(urllib.request.Request(url, body), timeout=60):
        pass


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory):
    """Orthanc on a free port of this machine; its files as it took them, in a folder."""
    folder = tmp_path_factory.mktemp("orthanc")
    port = free_port()
    settings = {
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "HttpPort": port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomServerEnabled": False,
        "Plugins": [str(PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen([ORTHANC, folder / "orthanc.json"], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 300
        while True:
            assert process.poll() is None, (folder / "log.txt").read_text()
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/system", timeout=60):
                    break
            except OSError:
                assert time.monotonic() < deadline, (folder / "log.txt").read_text()
                time.sleep(0.1)
        for number, ds in enumerate(make_studies(4, slices=3)):
            write_dicom(ds, folder / "files" / f"{number}.dcm")
        for name in ("CT_small.dcm", "MR_small.dcm", "JPEG2000.dcm", "SC_rgb_jpeg_dcmtk.dcm", "test-SR.dcm"):
            shutil.copy(PACKAGED / name, folder / "files" / name)
        for file in sorted((folder / "files").iterdir()):
            post(f"http://127.0.0.1:{port}/instances", file.read_bytes())
        yield f"dicomweb://127.0.0.1:{port}/dicom-web", folder / "files"
    finally:
        process.terminate()
        process.wait(60)


def rows_by_id(out):
    return {row["id"]: row for row in prepared_rows(out)}


def test_orthanc_gives_what_the_folder_of_its_files_gives(orthanc, tmp_path, monkeypatch):
    monkeypatch.setenv(TOKEN_VARIABLE, "a-token")
    source, files = orthanc
    config = PrepareConfig(studies=DicomConfig(pseudonym_key=tmp_path / "key"))
    web = prepare(source, tmp_path / "web", config, num_workers=2)
    disk = prepare(str(files), tmp_path / "disk", config, num_workers=1)
    rows = rows_by_id(tmp_path / "web")
    assert rows == rows_by_id(tmp_path / "disk")
    assert len(rows) == 4
    captions = {row["caption"] for row in rows.values()}
    assert captions == {f"CT of ___ (___), for Dr. ___: nodule of {n} mm, no effusion." for n in (1, 2, 3, 4)}
    assert {row["reason"] for row in dropped_rows(tmp_path / "web")} == {
        row["reason"] for row in dropped_rows(tmp_path / "disk")
    }
    assert len(dropped_rows(tmp_path / "web")) == len(dropped_rows(tmp_path / "disk")) == 8 + 5
    assert web["privacy"] == disk["privacy"]
    origins = find_origins(rows, tmp_path / "key")
    assert all(origin.instance.endswith(".1.2") and files.as_posix() in origin.location for origin in origins.values())


def test_the_search_is_narrowed_by_the_address(orthanc, tmp_path):
    source, _ = orthanc
    config = PrepareConfig(studies=DicomConfig(pseudonym_key=tmp_path / "key"))
    prepare(f"{source}?PatientID=P-4711-772&StudyDate=20200101-20201231", tmp_path / "one", config, num_workers=1)
    (row,) = rows_by_id(tmp_path / "one").values()
    assert "nodule of 2 mm" in row["caption"]
    prepare(f"{source}?ModalitiesInStudy=SR&limit=2", tmp_path / "two", config, num_workers=1)
    assert len(rows_by_id(tmp_path / "two")) + len(dropped_rows(tmp_path / "two")) <= 2 * 3


def test_nobody_in_the_archive_is_named_in_what_is_written_or_printed(orthanc, tmp_path):
    source, _ = orthanc
    environment = os.environ | {
        "XDG_CONFIG_HOME": str(tmp_path / "home"),
        TOKEN_VARIABLE: "a-secret",
        "COLUMNS": "5000",
    }
    command = [sys.executable, "-m", "medclip.cli.main", "prepare", f"{source}?PatientID=*", "--table"]
    done = subprocess.run([*command, "--out", tmp_path / "out"], capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr
    files = {path.name: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    texts = {**files, "screen": done.stdout + done.stderr}
    leaks = [leak.encode() for leak in (*NAMES, *PACKAGED_NAMES, "a-secret", "/studies", source)]
    leaks += [base64.b64encode(leak) for leak in leaks]
    assert [(name, leak) for name, data in texts.items() for leak in leaks if leak in data] == []
    assert len(rows_by_id(tmp_path / "out")) == 4 and len(dropped_rows(tmp_path / "out")) == 13
