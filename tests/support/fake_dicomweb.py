"""A small DICOMweb server (PS3.18) with faults to order, and studies with reports that name people."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import BasicTextSRStorage

from support.dicom_files import dicom, dicom_bytes, gray_ramp, sequence, write_dicom

ROOT = "/dicom-web"
NAMES = ("Kowalska", "Anna", "Zqwvx", "P-4711-77", "Dr. Szymborska", "Szymborska", "19330517", "1.2.826.0.1.99")
"""What must not leave: parts of names, ids, dates and UIDs of `make_studies`."""


@dataclass
class Archive:
    """What the server holds, what it does wrong, and what it was asked."""

    objects: list[Dataset] = field(default_factory=list)
    faults: dict[str, list[str]] = field(default_factory=dict)
    """By the end of a path, answers instead: a status, "cut", "html", "drop" or "other", with "!" once only."""
    page: int = 1000
    knows_offset: bool = True
    hidden: tuple[str, ...] = ()
    """Attributes that its metadata lack."""
    requests: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    url: str = ""
    """Without a scheme: HOST:PORT/PATH."""

    def instances(self) -> list[str]:
        """SOP Instance UIDs of the images and reports that were retrieved, in order."""
        return [path.rpartition("/instances/")[2] for path in self.requests if "/instances/" in path]


def make_studies(count: int, slices: int = 1) -> list[Dataset]:
    """Studies of one patient each, with `slices` of a series and a structured report that names the patient."""
    objects = []
    for n in range(1, count + 1):
        base = f"1.2.826.0.1.99.{n}"
        person = {
            "StudyInstanceUID": base,
            "PatientName": "Kowalska^Anna",
            "PatientID": f"P-4711-77{n}",
            "PatientBirthDate": "19330517",
            "StudyDate": "20200102",
            "ReferringPhysicianName": "Szymborska^Zqwvx",
            "InstitutionName": "Zqwvx Hospital",
        }
        for z in range(slices):
            pixels = np.roll(gray_ramp(), n * 40 + z, axis=0)
            position = {"ImagePositionPatient": [0, 0, z], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
            uids = {"SeriesInstanceUID": f"{base}.1", "SOPInstanceUID": f"{base}.1.{z + 1}", "InstanceNumber": z + 1}
            objects.append(dicom(pixels, BodyPartExamined="CHEST", **person, **position, **uids))
        report = dicom(None, **person, SeriesInstanceUID=f"{base}.2", SOPInstanceUID=f"{base}.2.1")
        report.SOPClassUID, report.Modality = BasicTextSRStorage, "SR"
        text = f"CT of Anna Kowalska (P-4711-77{n}), for Dr. Szymborska: nodule of {n} mm, no effusion."
        item = sequence(ValueType="TEXT", TextValue=text)[0]
        item.ConceptNameCodeSequence = sequence(CodeValue="1", CodingSchemeDesignator="X", CodeMeaning="Findings")
        report.ContentSequence = [item]
        objects.append(report)
    return objects


def write_studies(objects: list[Dataset], folder: Path) -> Path:
    """The same objects as a folder of files."""
    for ds in objects:
        write_dicom(ds, folder / ds.StudyInstanceUID / f"{ds.SOPInstanceUID}.dcm")
    return folder


@contextmanager
def serve_archive(objects: list[Dataset], certificate: Path | None = None) -> Iterator[Archive]:
    """The server on a free port of this machine, over TLS if it has a certificate (with its key, PEM)."""
    archive = Archive(objects)

    class Handler(_Handler):
        state = archive

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        archive.url = f"127.0.0.1:{server.server_port}{ROOT}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield archive
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    state: Archive
    protocol_version = "HTTP/1.0"  # the end of the connection is the end of an answer: what is cut is not noticed

    def do_GET(self) -> None:
        with self.state.lock:
            parts = urlsplit(self.path)
            self.state.requests.append(self.path)
            self.state.headers.append(dict(self.headers))
            faults = next((faults for end, faults in self.state.faults.items() if parts.path.endswith(end)), [])
            fault = faults[0] if faults else ""
            if fault.endswith("!"):
                faults.pop(0)
        self.answer(parts.path.removeprefix(ROOT), parse_qs(parts.query), fault.rstrip("!"))

    def answer(self, path: str, query: dict[str, list[str]], fault: str) -> None:
        if fault.isdigit():
            self.send(int(fault), "text/plain", b"Kowalska", {"Location": "http://127.0.0.1:9/"})
        elif fault == "html":
            self.send(200, "text/html", b"<html>Log in, Anna Kowalska</html>")
        elif fault == "drop":
            self.close_connection = True
        elif path == "/studies":
            self.send(200, "application/dicom+json", json.dumps(self.search(query)).encode())
        elif path.endswith("/metadata"):
            self.send(200, "application/dicom+json", json.dumps(self.metadata(path.split("/")[2])).encode())
        else:
            self.send_object(path, fault)

    def search(self, query: dict[str, list[str]]) -> list[dict]:
        (offset,), (limit,) = query.get("offset", ["0"]), query.get("limit", ["1000"])
        first = int(offset) if self.state.knows_offset else 0
        wanted = query.get("StudyInstanceUID")
        studies = dict.fromkeys(ds.StudyInstanceUID for ds in self.state.objects)
        uids = [uid for uid in studies if not wanted or uid in wanted]
        page = uids[first:][: min(self.state.page, int(limit))]
        return [{"0020000D": {"vr": "UI", "Value": [uid]}} for uid in page]

    def metadata(self, study: str) -> list[dict]:
        of_study = [ds for ds in self.state.objects if ds.StudyInstanceUID == study]
        headers = [Dataset({e.tag: e for e in ds if e.keyword not in self.state.hidden}) for ds in of_study]
        return [
            json.loads(header.to_json(bulk_data_threshold=0, bulk_data_element_handler=_bulk)) for header in headers
        ]

    def send_object(self, path: str, fault: str) -> None:
        uid = path.rpartition("/")[2]
        match = next((ds for ds in self.state.objects if ds.SOPInstanceUID == uid), None)
        if match is None:
            self.send(404, "text/plain", b"")
            return
        if fault == "other":
            match = next(ds for ds in self.state.objects if ds.SOPInstanceUID != uid)
        part = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + dicom_bytes(match)
        body = part[:-50] if fault == "cut" else part + b"\r\n--b--\r\n"
        self.send(200, 'multipart/related; type="application/dicom"; boundary=b', body)

    def send(self, status: int, content_type: str, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": content_type, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_) -> None:
        pass


def _bulk(element) -> str:
    return f"bulk/{element.tag:08X}"
