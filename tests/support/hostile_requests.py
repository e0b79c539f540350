"""Files that somebody might upload to break a service, or without meaning to: name, bytes, and whether it is an image.

`None` for the last means that either is right: what decoders make of a flipped bit is theirs to say.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image, PngImagePlugin
from pydicom import uid
from pydicom.encaps import encapsulate

from support.dicom_files import dicom, dicom_bytes, gray_ramp
from support.material import draw_image, image_bytes

NAMES = ("MRN-4711-SECRET", "Secretova^Anna", "Dr^Hidden")
FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "GIF", "WEBP")
Upload = tuple[str, bytes, bool | None]


def uploads() -> Iterator[Upload]:
    """All of them, more than a hundred."""
    yield from _not_images()
    yield from _damaged_images()
    yield from _bombs()
    yield from _polyglots()
    yield from _images_with_metadata()
    yield from _dicom()


def _not_images() -> Iterator[Upload]:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("../../etc/passwd", "x" * 10**6)
    laughs = '<!DOCTYPE l [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]><svg>&b;</svg>'
    for name, content in {
        "nothing": b"",
        "a byte": b"\0",
        "text": b"chest x-ray",
        "SVG with a script": b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
        "SVG that reads a file": b'<!DOCTYPE s [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg><text>&x;</text></svg>',
        "billion laughs": laughs.encode(),
        "HTML": b"<!doctype html><script>fetch('/metrics')</script>",
        "zip": archive.getvalue(),
        "gzip": b"\x1f\x8b\x08" + bytes(40),
        "PDF": b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj",
        "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(/etc/passwd)(r) file\n",
        "ELF": b"\x7fELF" + bytes(100),
        "pickle": b"cos\nsystem\n(S'id'\ntR.",
        "JSON": b'{"image": "/etc/passwd"}',
        "a path": b"/etc/passwd",
        "a URL": b"http://169.254.169.254/latest/meta-data/",
        "MP4": b"\0\0\0\x20ftypisom" + bytes(100),
        "ICO": image_bytes(draw_image(3), "ICO"),
        "PPM": image_bytes(draw_image(3), "PPM"),
        "TGA": image_bytes(draw_image(3), "TGA"),
        "PCX": image_bytes(draw_image(3), "PCX"),
        "EPS": image_bytes(draw_image(3), "EPS"),
        "JPEG 2000": image_bytes(draw_image(3), "JPEG2000"),
        "random": np.random.default_rng(0).bytes(5000),
        "zeros": bytes(100_000),
    }.items():
        yield name, content, False
    for kind in FORMATS:
        yield f"the first bytes of {kind}", image_bytes(draw_image(1), kind)[:12], False


def _damaged_images() -> Iterator[Upload]:
    rng = np.random.default_rng(1)
    for kind in FORMATS:
        whole = image_bytes(draw_image(5), kind)
        for share in (0.1, 0.5, 0.9):
            yield f"{kind} cut at {share}", whole[: int(len(whole) * share)], None
        for number in range(6):
            content = bytearray(whole)
            for at in rng.integers(0, min(len(whole), 200 if number % 2 else len(whole)), 5):
                content[at] ^= int(rng.integers(1, 256))
            yield f"{kind} with flipped bits {number}", bytes(content), None


def png(width: int, height: int, chunks: bytes = b"", depth: int = 1) -> bytes:
    """A PNG of zeros."""
    rows = zlib.compress(bytes((width * depth + 7) // 8 + 1) * min(height, 20_000), 1)
    head = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + chunks + _chunk(b"IDAT", rows) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _bombs() -> Iterator[Upload]:
    yield "PNG of 36 million pixels", png(6000, 6000), True
    for side in (7000, 10_000, 20_000, 60_000, 2**31 - 1):
        yield f"PNG of {side} squared", png(side, min(side, 20_000) if side < 2**31 - 1 else 1), False
    yield "PNG as wide as a hair", png(40_000_000, 1), False
    text = zlib.compress(bytes(50 * 2**20), 1)
    yield "PNG with a text of 50 MB", png(8, 8, _chunk(b"zTXt", b"Comment\0\0" + text)), None
    yield "PNG with a profile of 50 MB", png(8, 8, _chunk(b"iCCP", b"icc\0\0" + text)), None
    jpeg = bytearray(image_bytes(draw_image(2)))
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = struct.pack(">HH", 65_500, 65_500)
    yield "JPEG that claims 4 billion pixels", bytes(jpeg), False
    gif = bytearray(image_bytes(draw_image(2), "GIF"))
    gif[6:10] = struct.pack("<HH", 65_535, 65_535)
    yield "GIF that claims 4 billion pixels", bytes(gif), False
    bmp = bytearray(image_bytes(draw_image(2), "BMP"))
    bmp[18:26] = struct.pack("<ii", 2**30, 2**30)
    yield "BMP that claims 2^60 pixels", bytes(bmp), False
    frames = [draw_image(number % 20) for number in range(300)]
    yield "GIF of 300 frames", image_bytes(frames[0], "GIF", save_all=True, append_images=frames[1:]), True
    tiff = bytearray(image_bytes(draw_image(2), "TIFF"))
    for tag in (256, 257):
        at = tiff.index(struct.pack("<HH", tag, 4)) if struct.pack("<HH", tag, 4) in tiff else -1
        if at >= 0:
            tiff[at + 8 : at + 12] = struct.pack("<I", 2**20)
    yield "TIFF that claims 2^40 pixels", bytes(tiff), None
    yield "TIFF whose directory is itself", b"II*\0\x08\0\0\0" + struct.pack("<HI", 0, 8), False


def _polyglots() -> Iterator[Upload]:
    script = b"<script>alert(document.cookie)</script>"
    yield "GIF that is JavaScript", b"GIF89a/*" + image_bytes(draw_image(1), "GIF")[8:] + b"*/=1;alert(1)", None
    yield "JPEG and zip", image_bytes(draw_image(1)) + b"PK\x05\x06" + bytes(18), True
    yield "PNG and HTML", image_bytes(draw_image(1), "PNG") + script, True
    yield "GIF and PDF", image_bytes(draw_image(1), "GIF") + b"%PDF-1.4", True
    yield "JPEG with PHP in a comment", image_bytes(draw_image(1), comment=b"<?php system($_GET[0]); ?>"), True
    yield "BMP and shell", image_bytes(draw_image(1), "BMP") + b"\n#!/bin/sh\nid\n", True
    both = dicom_bytes(dicom(gray_ramp()))
    yield "DICOM and TIFF", b"II*\0\x08\0\0\0" + both[8:], True
    yield "DICOM and PDF", b"%PDF-1.4\n" + both[9:], True
    yield "PDF with DICOM's word", (b"%PDF-1.4" + bytes(120) + b"DICM" + b"x" * 200), False


def _images_with_metadata() -> Iterator[Upload]:
    for orientation in (1, 6, 8, 99):
        exif = Image.Exif()
        exif[0x0112], exif[0x010E], exif[0x013B] = orientation, NAMES[1], NAMES[2]
        yield f"EXIF, orientation {orientation}", image_bytes(draw_image(4), exif=exif), True
    yield "EXIF that is none", image_bytes(draw_image(4), exif=b"Exif\0\0" + b"\xff" * 40), None
    info = PngImagePlugin.PngInfo()
    info.add_text("Patient", NAMES[0])
    yield "PNG with a name", image_bytes(draw_image(4), "PNG", pnginfo=info), True
    yield "transparent", image_bytes(Image.new("RGBA", (30, 30)), "PNG"), True
    yield "palette", image_bytes(draw_image(4).convert("P"), "PNG"), True
    yield "CMYK", image_bytes(draw_image(4).convert("CMYK")), True
    yield "one pixel", image_bytes(Image.new("L", (1, 1)), "PNG"), True
    yield "a line", image_bytes(Image.new("L", (1, 5000)), "PNG"), True
    yield "floats", image_bytes(Image.fromarray(np.full((9, 9), np.nan, np.float32)), "TIFF"), None


def _dicom() -> Iterator[Upload]:
    people = {"PatientID": NAMES[0], "PatientName": NAMES[1], "ReferringPhysicianName": NAMES[2],
              "PatientBirthDate": NAMES[0], "StudyDate": NAMES[1]}  # fmt: skip
    whole = dicom_bytes(dicom(gray_ramp(), **people))
    yield "DICOM", whole, True
    for share in (0.03, 0.1, 0.2, 0.5, 0.95):
        yield f"DICOM cut at {share}", whole[: int(len(whole) * share)], None
    rng = np.random.default_rng(2)
    for number in range(8):
        content = bytearray(whole)
        for at in rng.integers(132, 900, 4):
            content[at] ^= int(rng.integers(1, 256))
        yield f"DICOM with flipped bits {number}", bytes(content), None
    yield "DICOM with a name burned in", dicom_bytes(dicom(gray_ramp(), BurnedInAnnotation="YES", **people)), False
    yield "DICOM of a face", dicom_bytes(dicom(gray_ramp(), RecognizableVisualFeatures="YES", **people)), False
    yield "DICOM without pixels", dicom_bytes(dicom(None, **people)), False
    for rows, columns in ((65_535, 65_535), (0, 0), (7000, 7000)):
        dataset = dicom(gray_ramp(), **people)
        dataset.Rows, dataset.Columns = rows, columns
        yield f"DICOM of {rows} × {columns}", dicom_bytes(dataset), False
    dataset = dicom(gray_ramp(), **people)
    dataset.NumberOfFrames = 10**9
    yield "DICOM of 10^9 frames", dicom_bytes(dataset), False
    for syntax in (uid.JPEGLosslessSV1, uid.JPEGLossless, uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit,
                   uid.JPEGLSLossless, uid.JPEG2000Lossless, uid.HTJ2KLossless, uid.RLELossless,
                   uid.MPEG2MPML):  # fmt: skip
        for name, stream in (("noise", rng.bytes(400)), ("a start and noise", b"\xff\xd8\xff\xc3" + rng.bytes(400))):
            dataset = dicom(gray_ramp(), **people)
            dataset.file_meta.TransferSyntaxUID = syntax
            dataset.PixelData = encapsulate([stream])
            dataset["PixelData"].is_undefined_length = True
            yield f"DICOM, {syntax.name}, of {name}", dicom_bytes(dataset), False
