# %% [markdown]
# # From DICOM to search
#
# You learn how studies with their reports become searchable, and what of them stays behind. Research software, not for
# clinical use.
#
# These studies are made here: a synthetic image, a name that nobody has, a report beside it. Real ones lie as they come
# from a PACS: a folder, or `dicomweb://HOST/PATH` itself.
#
# Needs `pip install -e '.[dicom]'` in the checkout.

# %%
import io
from itertools import count, islice
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

import medclip
import toy
from medclip.data.deidentify import DicomConfig
from medclip.data.phantoms.cases import phantom
from medclip.data.schema import Pair


def write_study(folder: Path, pair: Pair) -> pydicom.Dataset:
    """Write a study of one image with its report."""
    pixels = np.asarray(Image.open(io.BytesIO(pair.image)).convert("L"))
    ds = pydicom.Dataset()
    ds.file_meta = pydicom.dataset.FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, generate_uid()
    ds.StudyInstanceUID, ds.SeriesInstanceUID = generate_uid(), generate_uid()
    ds.PatientName, ds.PatientID, ds.Modality = (
        "Phantomski^Anna",
        f"MRN {pair.id}",
        "CT",
    )
    ds.PhotometricInterpretation, ds.SamplesPerPixel = "MONOCHROME2", 1
    ds.PixelRepresentation = 0
    ds.Rows, ds.Columns = pixels.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8, 8, 7
    ds.PixelData = pixels.tobytes()
    folder.mkdir(parents=True)
    ds.save_as(folder / "image.dcm", enforce_file_format=True)
    (folder / "report.txt").write_text(
        f"HISTORY: Mrs. Phantomski, seen before.\nFINDINGS: {pair.caption}\n"
    )
    return ds


out = toy.new_folder("dicom")
cases = (phantom(number, seed=2) for number in count())
scans = islice((pair for pair in cases if pair.labels["modality"] == "CT"), 40)
studies = [
    write_study(out / "studies" / str(number), pair)
    for number, pair in enumerate(scans)
]
studies[0]

# %% [markdown]
# Preparation keeps an allow-list: pixels as a viewer shows them, and the findings of the report. Ids are keyed hashes.
# The key stays with you, outside of the dataset.

# %%
config = medclip.PrepareConfig(studies=DicomConfig(pseudonym_key=out / "key"))
dataset = medclip.prepare(out / "studies", out / "data", config)
print(dataset.num_pairs, dataset.dropped)
for split in dataset.num_pairs:
    rows = dataset.split(split)
    print(split, rows.column("id")[0], rows.column("caption")[0])

# %% [markdown]
# No name and no number of a patient is in any file of the dataset.

# %%
files = [path.read_bytes() for path in (out / "data").rglob("*") if path.is_file()]
{word: sum(word in file for file in files) for word in (b"Phantomski", b"MRN")}

# %% [markdown]
# The rest is as with any pairs: build an index, and search it.

# %%
index = medclip.Index.build(toy.model(), dataset, out / "index", split="train")
hits = index.search("CT of the head", k=3)
toy.show(
    [hit.image for hit in hits], [f"{hit.score:.2f} {hit.caption}" for hit in hits]
)
