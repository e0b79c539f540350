"""An id leads back to its DICOM object for the owner of the key, and for nobody who has the dataset."""

import json
import stat

import pytest

pytest.importorskip("pydicom")

from medclip.data.deidentify import DicomConfig
from medclip.data.prepare import prepare
from medclip.data.prepare_config import PrepareConfig
from medclip.data.private_map import find_origins, record_origins, studies_in_order, without_origins
from medclip.data.schema import Dropped, Origin
from medclip.errors import UserError
from support.dicom_files import dicom, gray_ramp, write_dicom
from support.material import bytes_on_disk
from support.prepared import dropped_rows


def config_of(key):
    return PrepareConfig(studies=DicomConfig(pseudonym_key=key))


@pytest.fixture
def folder(tmp_path):
    for number, name in ((1, "a"), (0, "b")):
        uids = {"StudyInstanceUID": f"1.2.77.{number}", "SeriesInstanceUID": "1.2.78"}
        ds = dicom(gray_ramp(), **uids, SOPInstanceUID=f"1.2.79.{number}")
        write_dicom(ds, tmp_path / "Kowalska" / name / "1.dcm")
    (tmp_path / "Kowalska" / "a" / "1.txt").write_text("CT of the chest: no effusion.")
    (tmp_path / "Kowalska" / "notes.md").write_text("not DICOM")
    return tmp_path / "Kowalska"


def test_every_id_of_a_folder_leads_back_to_its_file(folder, tmp_path):
    key, out = tmp_path / "private" / "key", tmp_path / "out"
    prepare(str(folder), out, config_of(key), num_workers=1)
    file = key.with_name("key.map")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in key.parent.iterdir() if path not in (key, file)] == []
    dropped = {row["reason"]: row["id"] for row in dropped_rows(out)}
    origins = find_origins(dropped.values(), key)
    paths = {reason: origin.location for reason, id in dropped.items() if (origin := origins[id])}
    assert paths == {
        "no report": str(folder / "b" / "1.dcm"),
        "not a DICOM file, in a folder of DICOM studies": str(folder / "notes.md"),
    }
    written = bytes_on_disk(out)
    assert not any(leak in written for leak in (b"Kowalska", b"1.2.7", str(tmp_path).encode()))


def test_trace_prints_what_it_knows_and_fails_for_the_rest(folder, tmp_path, medclip, monkeypatch):
    key = tmp_path / "key"
    code, out, err = medclip("trace", "0" * 16, "--pseudonym-key", key)
    assert code == 2 and "does not exist" in err
    prepare(str(folder), tmp_path / "out", config_of(key), num_workers=1)
    (dropped, *_) = dropped_rows(tmp_path / "out")
    code, out, err = medclip("trace", dropped["id"], "0" * 16, "--pseudonym-key", key)
    assert code == 1 and "0" * 16 in err and dropped["id"] not in err
    assert json.loads(out)["id"] == dropped["id"]
    code, out, _ = medclip("trace", dropped["id"], "--pseudonym-key", key, "--table")
    assert code == 0 and str(folder) in out.replace("\n", "")
    monkeypatch.setattr("medclip.cli.format.screen.width", 80)
    code, out, _ = medclip("trace", dropped["id"], "--pseudonym-key", key, "--table")
    assert code == 0 and "…" not in out


def test_another_preparation_adds_to_the_map_and_keeps_its_order(tmp_path):
    rows = [Dropped(f"id {n}", "train", "x", origin=Origin(f"study {n}", "s", "i", "file\udcff")) for n in (3, 1, 2)]
    for some in (rows[:2], rows):
        assert list(record_origins(some, tmp_path / "key")) == [Dropped(row.id, "train", "x") for row in some]
    assert studies_in_order(tmp_path / "key") == ["study 3", "study 1", "study 2"]
    assert find_origins(["id 2", "id 9"], tmp_path / "key") == {
        "id 2": Origin("study 2", "s", "i", "file\\udcff"),
        "id 9": None,
    }
    assert list(without_origins(rows[:1])) == [Dropped("id 3", "train", "x")]


def test_a_map_that_cannot_be_used_says_so(tmp_path):
    (tmp_path / "key.map").write_bytes(b"no database, but long enough to be read as one" * 40)
    with pytest.raises(UserError, match=r"key\.map, the private map of the ids, cannot be used"):
        list(record_origins([Dropped("1", "train", "x", origin=Origin("1"))], tmp_path / "key"))
    with pytest.raises(UserError, match="cannot be used"):
        find_origins(["1"], tmp_path / "key")


def test_a_dry_run_writes_no_map(folder, tmp_path, medclip):
    prepare(str(folder), tmp_path / "o", config_of(tmp_path / "k"), num_workers=1)
    (tmp_path / "k.map").unlink()
    code, out, _ = medclip("prepare", folder, "--dry-run", "--json", "--pseudonym-key", tmp_path / "k")
    assert code == 0 and "1.2.7" not in out and "location" not in out.replace(str(folder), "")
    assert not (tmp_path / "k.map").exists()
