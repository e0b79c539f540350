"""Studies of a DICOMweb server become the pairs that their files would; nothing met is lost, nothing names anybody."""

import json
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing

import pytest

pytest.importorskip("dicomweb_client", reason="dicomweb-client is not installed: pip install -e '.[dicom]'")

from medclip.data import dicomweb, prepare
from medclip.data.deidentify import DicomConfig
from medclip.data.prepare import preview
from medclip.data.prepare_config import PrepareConfig
from medclip.data.prepare_row import LATE_REDACTION
from medclip.data.private_map import find_origins
from medclip.data.schema import Dropped
from medclip.errors import UserError, WorkError
from medclip.require import install_command
from support.fake_dicomweb import NAMES, make_studies, serve_archive, write_studies
from support.prepared import dropped_rows, prepared_rows

GONE = "not retrieved from the server: 404 not found"
CUT = "not retrieved from the server: an answer that is cut or not what was asked for"


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(dicomweb, "WAITS_S", (0, 0, 0))
    monkeypatch.delenv(dicomweb.TOKEN_VARIABLE, raising=False)
    dicomweb.retrieve.cache_clear()


@pytest.fixture
def archive():
    with serve_archive(make_studies(3)) as served:
        yield served


@pytest.fixture
def config(tmp_path):
    key = tmp_path / "private" / "key"
    key.parent.mkdir()
    key.write_text("3" * 64)  # the splits do not change
    return PrepareConfig(studies=DicomConfig(pseudonym_key=key))


def run(source, out, config):
    return prepare.prepare(source, out, config, num_workers=1)


def reasons(out):
    return Counter(row["reason"] for row in dropped_rows(out))


def test_a_server_gives_what_the_folder_of_its_files_gives(tmp_path, config):
    objects = make_studies(3, slices=3)
    objects += [ds for ds in make_studies(4) if ds.PatientID == "P-4711-774" and ds.Modality == "CT"]  # no report
    write_studies(objects, tmp_path / "files")
    with serve_archive(objects) as archive:
        web = run(f"dicomweb://{archive.url}", tmp_path / "web", config)
    files = run(str(tmp_path / "files"), tmp_path / "disk", config)
    by_id = {row["id"]: row for row in prepared_rows(tmp_path / "disk")}
    assert {row["id"]: row for row in prepared_rows(tmp_path / "web")} == by_id
    assert len(by_id) == 3
    captions = {row["caption"] for row in by_id.values()}
    assert captions == {f"CT of ___ (___), for Dr. ___: nodule of {n} mm, no effusion." for n in (1, 2, 3)}
    assert reasons(tmp_path / "web") == reasons(tmp_path / "disk")
    assert sum(reasons(tmp_path / "web").values()) == 7  # six other slices, and the image without a report
    assert web["source"] == files["source"] == "DICOM"
    assert web["privacy"] == files["privacy"]
    assert web["splits"].keys() == files["splits"].keys()


def test_only_what_is_used_is_retrieved(tmp_path, config):
    with serve_archive(make_studies(2, slices=5)) as archive:
        run(f"dicomweb://{archive.url}", tmp_path / "out", config)
        assert sorted(archive.instances()) == [
            f"1.2.826.0.1.99.{study}.{end}" for study in (1, 2) for end in ("1.3", "2.1")
        ]


def test_nothing_that_names_somebody_is_written_or_printed(tmp_path, archive, medclip, monkeypatch, caplog):
    monkeypatch.setenv(dicomweb.TOKEN_VARIABLE, "secret-Zqwvx-token")
    archive.faults = {"1.2.826.0.1.99.1.1.1": ["404"], "1.2.826.0.1.99.2.1.1": ["html"]}
    key = tmp_path / "new" / "key"
    source = f"dicomweb://{archive.url}?PatientName=Kowalska*"
    dry = medclip("prepare", source, "--dry-run", "--json", "--pseudonym-key", key)
    assert dry[0] == 0 and not key.exists() and not key.with_name("key.map").exists()
    code, out, err = medclip("prepare", source, "--out", tmp_path / "out", "--pseudonym-key", key, "--num-workers", 1)
    assert code == 0
    assert {name: n for name, n in reasons(tmp_path / "out").items()} == {GONE: 1, CUT: 1}
    written = {path.name: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    texts = {**written, "screen": (out + err + "".join(dry[1:])).encode(), "log": caplog.text.encode()}
    leaks = (*NAMES, "secret-", "studies/", archive.url)
    assert [(name, leak) for name, data in texts.items() for leak in leaks if leak.encode() in data] == []
    assert {headers["Authorization"] for headers in archive.headers} == {"Bearer secret-Zqwvx-token"}
    assert {headers["Host"] for headers in archive.headers} == {archive.url.partition("/")[0]}
    assert any("PatientName=Kowalska*&" in path for path in archive.requests)


@pytest.mark.parametrize("fault", ["500", "503", "429", "408", "cut", "html", "drop", "other"])
def test_what_passes_is_asked_again(tmp_path, config, archive, fault):
    image, report = "1.2.826.0.1.99.1.1.1", "1.2.826.0.1.99.2.2.1"
    archive.faults = {"/studies": [f"{fault}!"] if fault not in ("cut", "other") else []}
    archive.faults |= {path: [f"{fault}!", f"{fault}!"] for path in (image, report)}
    archive.faults |= {"1.2.826.0.1.99.3/metadata": [f"{fault}!"] if fault not in ("cut", "other") else []}
    run(f"dicomweb://{archive.url}", tmp_path / "out", config)
    assert len(prepared_rows(tmp_path / "out")) == 3 and not dropped_rows(tmp_path / "out")
    assert archive.instances().count(image) == 3


@pytest.mark.parametrize(
    ("fault", "reason", "tries"),
    [
        ("404", "404 not found", 1),
        ("403", "403 forbidden", 1),
        ("410", "410 gone", 1),
        ("500", "500 internal server error", 4),
        ("cut", "an answer that is cut or not what was asked for", 4),
        ("html", "an answer that is cut or not what was asked for", 4),
        ("other", "an answer that is cut or not what was asked for", 4),
        ("drop", "the connection broke", 4),
    ],
)
def test_what_cannot_be_had_is_counted_with_its_reason(tmp_path, config, archive, fault, reason, tries):
    image, report = "1.2.826.0.1.99.1.1.1", "1.2.826.0.1.99.2.2.1"
    archive.faults = {image: [fault], report: [fault]}
    run(f"dicomweb://{archive.url}", tmp_path / "out", config)
    assert reasons(tmp_path / "out") == {
        f"not retrieved from the server: {reason}": 1,
        f"report not retrieved from the server: {reason}": 1,
    }
    assert len(prepared_rows(tmp_path / "out")) == 1
    assert archive.instances().count(image) == archive.instances().count(report) == tries


def test_a_study_that_is_refused_is_counted(tmp_path, config, archive):
    archive.faults = {"99.1/metadata": ["403"], "99.2/metadata": ["html"]}
    run(f"dicomweb://{archive.url}", tmp_path / "out", config)
    assert reasons(tmp_path / "out") == {
        "study not retrieved from the server: 403 forbidden": 1,
        f"study {CUT}": 1,
    }


@pytest.mark.parametrize(
    ("path", "fault", "sentence"),
    [
        ("/studies", "401", "refuses access (401 unauthorized). Put a valid token into MEDCLIP_DICOMWEB_TOKEN"),
        ("/studies", "403", "the search on HOST failed: list of studies not retrieved from the server: 403 forbidden"),
        ("/studies", "404", "the search on HOST failed: list of studies not retrieved from the server: 404 not found"),
        ("/studies", "html", "the search on HOST failed: list of studies not retrieved from the server: an answer"),
        ("/studies", "302", "HOST redirects to another address"),
        ("99.1.1.1", "401", "refuses access (401 unauthorized)"),
        ("99.1.1.1", "503", "HOST is out of service (503 service unavailable). What is whole is kept"),
        ("99.2/metadata", "429", "HOST is out of service (429 too many requests)"),
    ],
)
def test_a_lost_server_ends_the_work(tmp_path, config, archive, path, fault, sentence):
    archive.faults = {path: [fault]}
    with pytest.raises(WorkError) as error:
        run(f"dicomweb://{archive.url}?PatientName=Kowalska", tmp_path / "out", config)
    host = archive.url.partition("/")[0]
    assert sentence.replace("HOST", host) in str(error.value)
    assert not any(name in str(error.value) for name in NAMES)
    assert not (tmp_path / "out" / "dataset.json").exists()


def test_a_server_that_is_not_there_and_a_search_that_finds_nothing(tmp_path, config, archive):
    with pytest.raises(WorkError, match=r"127\.0\.0\.1:9 cannot be reached"):
        run("dicomweb://127.0.0.1:9/dicom-web", tmp_path / "out", config)
    with pytest.raises(WorkError, match="finds no study") as error:
        run(f"dicomweb://{archive.url}?StudyInstanceUID=1.2.826.0.1.99.77", tmp_path / "out", config)
    assert "1.2.826" not in str(error.value)


def test_a_killed_run_retrieves_nothing_again_that_is_prepared(tmp_path, config, archive, monkeypatch):
    monkeypatch.setattr(prepare, "SHARD_PAIRS", 1)
    monkeypatch.setattr("medclip.data.private_map._COMMIT_EVERY_S", -1)
    archive.objects = make_studies(8)
    source, out = f"dicomweb://{archive.url}", tmp_path / "out"
    run(source, tmp_path / "first", config)
    order = [uid for uid in archive.instances() if ".1.1" in uid[-4:]]
    (tmp_path / "private" / "key.map").unlink()  # an archive that this key has not met
    archive.requests.clear()
    dicomweb.retrieve.cache_clear()
    archive.faults = {order[4]: ["503"]}
    with pytest.raises(WorkError, match="out of service"):
        run(source, out, config)
    images = [uid for uid in archive.instances() if uid in order]
    assert images == [*order[:4], *[order[4]] * 4]
    archive.faults.clear()
    archive.requests.clear()
    archive.objects = [*make_studies(20)[16:], *archive.objects]  # twelve studies came in meanwhile
    run(source, out, config)
    again = [uid for uid in archive.instances() if uid.endswith(".1.1")]
    assert not set(again) & set(order[:4])
    assert len(again) == len(set(again)) == 16
    assert len(prepared_rows(out)) == 20


def test_a_preparation_that_failed_does_not_keep_the_private_map(tmp_path, config, archive, monkeypatch):
    """Also while its error is still held, as by a notebook, and with it the frames of what it was doing."""
    monkeypatch.setattr(prepare, "SHARD_PAIRS", 1)
    monkeypatch.setattr("medclip.data.private_map._COMMIT_EVERY_S", 1e9)
    archive.faults = {"1.2.826.0.1.99.2.1.1": ["503"]}  # an image, which is fetched while its row waits
    with pytest.raises(WorkError) as held:
        run(f"dicomweb://{archive.url}", tmp_path / "out", config)
    with closing(sqlite3.connect(tmp_path / "private" / "key.map", timeout=0)) as database:
        database.execute("BEGIN IMMEDIATE")  # as another preparation with this key does
        assert database.execute("SELECT count(*) FROM origins").fetchone()[0]  # those that were read
    assert "out of service" in str(held.value)


@pytest.mark.parametrize(
    ("page", "query", "studies"),
    [(1000, "", 7), (2, "", 7), (1000, "?limit=3", 3), (2, "?limit=3", 3), (2, "?offset=5", 2), (2, "?limit=9", 7)],
)
def test_pages_of_a_search(config, archive, monkeypatch, page, query, studies):
    monkeypatch.setattr(dicomweb, "PAGE_STUDIES", 3)
    archive.objects, archive.page = make_studies(7), page
    uids = dicomweb.search_studies(dicomweb.parse_address(f"dicomweb://{archive.url}{query}"))
    assert len(uids) == len(set(uids)) == studies


def test_a_server_that_knows_no_offset_loses_nothing_silently(archive, monkeypatch):
    archive.objects, archive.knows_offset = make_studies(7), False
    search = dicomweb.parse_address(f"dicomweb://{archive.url}")
    assert len(dicomweb.search_studies(search)) == 7
    monkeypatch.setattr(dicomweb, "PAGE_STUDIES", 3)
    with pytest.raises(WorkError, match="gives the first 3 studies only: narrow the search"):
        dicomweb.search_studies(search)


def test_max_samples_ends_the_reading(tmp_path, archive, config):
    archive.objects = make_studies(60)
    few = PrepareConfig(studies=config.studies, max_samples=1)
    assert len(preview(f"dicomweb://{archive.url}", few, 100)) == 2
    assert sum(path.endswith("/metadata") for path in archive.requests) < 60


def test_names_that_the_metadata_lack_are_replaced_all_the_same(tmp_path, config, archive):
    archive.objects = make_studies(1)
    for ds in archive.objects:
        if ds.Modality == "SR":  # names the patient in its text only
            ds.PatientName, ds.PatientID, ds.ReferringPhysicianName = "", "P-4711-771", ""
    archive.hidden = ("PatientName", "ReferringPhysicianName", "InstitutionName")
    dataset = run(f"dicomweb://{archive.url}", tmp_path / "out", config)
    (row,) = prepared_rows(tmp_path / "out")
    assert row["caption"] == row["caption_original"] == "CT of ___ (___), for Dr. ___: nodule of 1 mm, no effusion."
    assert row["caption_rules"] == [LATE_REDACTION]
    assert sum(counts[LATE_REDACTION] for counts in dataset["caption_rules"].values()) == 1


def test_frames_of_one_object_are_retrieved_once(tmp_path, archive):
    archive.objects = make_studies(1)
    image = archive.objects[0]
    image.NumberOfFrames, image.PixelData = 3, image.PixelData * 3
    config = PrepareConfig(studies=DicomConfig(frames="all", pseudonym_key=tmp_path / "key"))
    run(f"dicomweb://{archive.url}", tmp_path / "out", config)
    assert len(prepared_rows(tmp_path / "out")) == 3
    assert archive.instances().count(image.SOPInstanceUID) == 1


def test_the_token_stays_where_it_belongs(tmp_path, config, archive, monkeypatch):
    monkeypatch.setenv(dicomweb.TOKEN_VARIABLE, "secret")
    with pytest.raises(UserError, match="not sent over clear text") as error:
        run("dicomweb+http://pacs.example/dicom-web", tmp_path / "out", config)
    assert "secret" not in str(error.value)
    monkeypatch.setenv(dicomweb.TOKEN_VARIABLE, "secret\nX: y")
    with pytest.raises(UserError, match="is not a bearer token") as error:
        run(f"dicomweb://{archive.url}", tmp_path / "out", config)
    assert "secret" not in str(error.value)
    assert archive.requests == []


def test_a_proxy_sees_no_clear_text(tmp_path, config, archive, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    run(f"dicomweb://{archive.url}", tmp_path / "out", config)
    assert len(prepared_rows(tmp_path / "out")) == 3


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    file = tmp_path_factory.mktemp("tls") / "server.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    try:
        subprocess.run([*command, *names, "-keyout", file, "-out", file.with_suffix(".crt")], check=True, stderr=-3)
    except FileNotFoundError:
        pytest.skip("openssl is not installed, which makes the certificate of this test")
    file.write_text(file.read_text() + file.with_suffix(".crt").read_text())
    return file


def test_tls_is_verified(tmp_path, config, certificate, monkeypatch):
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.setenv(dicomweb.TOKEN_VARIABLE, "secret")
    with serve_archive(make_studies(1), certificate) as archive:
        source = f"dicomweb+https://{archive.url}"
        with pytest.raises(WorkError, match=r"no trusted TLS connection.*REQUESTS_CA_BUNDLE"):
            run(source, tmp_path / "out", config)
        assert archive.requests == []
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate.with_suffix(".crt")))
        run(source, tmp_path / "out", config)
    assert len(prepared_rows(tmp_path / "out")) == 1


@pytest.mark.parametrize(
    ("source", "url"),
    [
        ("dicomweb://pacs.example/dicom-web", "https://pacs.example/dicom-web"),
        ("dicomweb://PACS.example:8443/a/b/", "https://pacs.example:8443/a/b"),
        ("dicomweb://localhost:8042/dicom-web", "http://localhost:8042/dicom-web"),
        ("dicomweb://127.0.0.5/x", "http://127.0.0.5/x"),
        ("dicomweb://[::1]:80/x", "http://[::1]:80/x"),
        ("dicomweb://localhost.example/x", "https://localhost.example/x"),
        ("dicomweb+https://localhost/x", "https://localhost/x"),
        ("dicomweb+http://10.0.0.4/x", "http://10.0.0.4/x"),
    ],
)
def test_addresses(source, url):
    assert dicomweb.parse_address(source).url == url


def test_the_keys_of_a_search():
    source = "dicomweb://pacs.example/x?StudyDate=20200101-20201231&ModalitiesInStudy=CT&limit=5&offset=2"
    search = dicomweb.parse_address(f"{source}&ModalitiesInStudy=SR")
    assert (search.limit, search.offset) == (5, 2)
    assert search.query == (
        ("StudyDate", "20200101-20201231"),
        ("ModalitiesInStudy", "CT"),
        ("ModalitiesInStudy", "SR"),
    )


@pytest.mark.parametrize(
    "source",
    [
        "dicomweb://",
        "dicomweb:///x?PatientName=Kowalska",
        "dicomweb://host:port/x?PatientName=Kowalska",
        "dicomweb://Kowalska:secret@host/x",
        "dicomweb://host/x?limit=Kowalska",
        "dicomweb://host/x?limit=-1&PatientName=Kowalska",
        "dicomweb://host/x?Kowalska",
        "dicomweb://host/x?PatientName=a#Kowalska",
    ],
)
def test_an_address_that_is_none_is_refused_without_its_query(tmp_path, config, source):
    with pytest.raises(UserError) as error:
        run(source, tmp_path / "out", config)
    assert "Kowalska" not in str(error.value) and "secret" not in str(error.value)


def test_ids_lead_back_to_the_server_for_the_owner_of_the_key(tmp_path, config, archive, medclip):
    archive.faults = {"99.1.1.1": ["404"]}
    run(f"dicomweb://{archive.url}", tmp_path / "out", config)
    key = config.studies.pseudonym_key
    origins = find_origins([row["id"] for row in prepared_rows(tmp_path / "out")], key)
    assert {origin.instance for origin in origins.values()} == {f"1.2.826.0.1.99.{n}.1.1" for n in (2, 3)}
    (dropped,) = dropped_rows(tmp_path / "out")
    code, out, _ = medclip("trace", dropped["id"], "--pseudonym-key", key, "--json")
    base = "1.2.826.0.1.99.1"
    location = f"http://{archive.url}/studies/{base}/series/{base}.1/instances/{base}.1.1"
    expected = {"id": dropped["id"], "study": base, "series": f"{base}.1", "instance": f"{base}.1.1"}
    assert (code, json.loads(out)) == (0, {**expected, "location": location})


def test_without_the_client_the_command_names_the_extra(tmp_path):
    code = "import sys; sys.modules['dicomweb_client'] = None; from medclip.cli.main import main; main()"
    words = ["prepare", "dicomweb://127.0.0.1:9/x", "--pseudonym-key", str(tmp_path / "key")]
    for how in (["--dry-run"], ["--out", str(tmp_path / "out")]):
        done = subprocess.run([sys.executable, "-c", code, *words, *how], capture_output=True, text=True)
        assert done.returncode == 2 and install_command("dicom") in done.stderr
    assert list(tmp_path.iterdir()) == []  # no key either


def test_an_object_without_a_series_is_counted(tmp_path, config, archive):
    archive.hidden = ("SeriesInstanceUID",)
    rows = preview(f"dicomweb://{archive.url}", config, 10)
    assert all(isinstance(row, Dropped) and row.reason == "image unreadable" for row in rows) and len(rows) > 3
