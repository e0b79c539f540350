"""Decoders tell of damaged files in warnings that quote them: none reaches the terminal, from any thread."""

import io
import struct

from PIL import Image

from support.dicom_files import dicom, dicom_bytes, gray_ramp
from support.material import in_new_process

THREADS = """
import io, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
sys.setswitchinterval(1e-6)
from medclip.data.images import decode
images = [path.read_bytes() for path in map(Path, sys.argv[1:])]
with ThreadPoolExecutor(8) as threads:
    for _ in threads.map(decode, images * 60):
        pass
print("decoded")
"""


def damaged_exif() -> bytes:
    """A JPEG whose EXIF claims 255 characters and ends; Pillow warns of it."""
    out, entry = io.BytesIO(), struct.pack("<HHII", 271, 2, 255, 26)  # Make, ASCII, its length and place
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0" + entry
    Image.new("L", (8, 8)).save(out, "JPEG", exif=exif)
    return out.getvalue()


def test_threads_print_nothing_of_what_they_read(tmp_path):
    (tmp_path / "a.dcm").write_bytes(dicom_bytes(dicom(gray_ramp(), BurnedInAnnotation="no smith^anna 1950!")))
    (tmp_path / "b.jpg").write_bytes(damaged_exif())
    done = in_new_process("-W", "always", "-c", THREADS, tmp_path / "a.dcm", tmp_path / "b.jpg")
    assert (done.returncode, done.stdout, done.stderr) == (0, "decoded\n", "")
