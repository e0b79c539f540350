"""Miniatures of datasets in the layouts in which they are published, and the pairs that their authors meant."""

import csv
import gzip
import json

from medclip.data.normalize import split_of
from support.material import RocoFolder, draw_image, image_bytes

REPORT = "FINAL REPORT\n EXAMINATION: CHEST\n\n FINDINGS:\n Clear lungs {}.\n\n IMPRESSION:\n Normal chest.\n"


def write_images(folder, *names):
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image_bytes(draw_image(number), "PNG" if path.suffix == ".png" else "JPEG"))


def write_text(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def write_csv(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", newline="") if path.suffix == ".gz" else path.open("w", newline="") as file:
        out = csv.DictWriter(file, list(rows[0]))
        out.writeheader()
        out.writerows(rows)


MIMIC = {
    "p10/p10000032/s50414267/aa-1": ("10000032", "50414267", "train", "PA"),
    "p10/p10000032/s50414267/aa-2": ("10000032", "50414267", "train", "LATERAL"),
    "p10/p10000033/s50000001/bb-1": ("10000033", "50000001", "validate", "AP"),
    "p11/p11000001/s51000001/cc-1": ("11000001", "51000001", "test", ""),
    "p11/p11000001/s51000002/dd-1": ("11000001", "51000002", "test", "AP"),  # listed, its file is absent
}


def mimic(folder, reports="mimic-cxr-jpg/files", suffix=".csv.gz"):
    root = folder / "mimic-cxr-jpg"
    write_images(root / "files", *(f"{name}.jpg" for name in list(MIMIC)[:4]))
    for number, name in enumerate(["p10/p10000032/s50414267", "p10/p10000033/s50000001"]):
        write_text(folder / reports / f"{name}.txt", REPORT.format(number))
    rows = [{"dicom_id": name[-4:], "subject_id": p, "study_id": s, "split": x} for name, (p, s, x, _) in MIMIC.items()]
    write_csv(root / f"mimic-cxr-2.0.0-split{suffix}", *rows)
    rows = [{**row, "ViewPosition": MIMIC[name][3]} for row, name in zip(rows, MIMIC, strict=True)]
    write_csv(root / f"mimic-cxr-2.0.0-metadata{suffix}", *rows)
    return root


def mimic_beside(folder):
    return mimic(folder, "mimic-cxr-reports/files", ".csv")


MIMIC_PAIRS = [
    ("aa-1", "aa-1.jpg", "Clear lungs 0.\nNormal chest.", "train", "p10000032", {"view": "PA"}),
    ("aa-2", "aa-2.jpg", "Clear lungs 0.\nNormal chest.", "train", "p10000032", {"view": "LATERAL"}),
    ("bb-1", "bb-1.jpg", "Clear lungs 1.\nNormal chest.", "validation", "p10000033", {"view": "AP"}),
]
MIMIC_DROPPED = [("cc-1", "test", "no report"), ("dd-1", "test", "image missing")]


def annotations(folder):
    write_images(folder / "images", "CXR1_IM-1/0.png", "CXR1_IM-1/1.png", "p10/x.jpg")
    iu = {"id": "CXR1_IM-1", "report": "Clear lungs.", "image_path": ["CXR1_IM-1/0.png", "CXR1_IM-1/1.png"]}
    mimic = {"id": "x", "study_id": 5, "subject_id": 10, "report": "An effusion.", "image_path": ["p10/x.jpg"]}
    none = {"id": "y", "report": "", "image_path": ["p10/x.jpg"]}
    (folder / "annotation.json").write_text(json.dumps({"train": [iu], "val": [mimic], "test": [none]}))
    return folder


def annotations_file(folder):
    return annotations(folder) / "annotation.json"


ANNOTATION_PAIRS = [
    ("CXR1_IM-1-0", "0.png", "Clear lungs.", "train", "CXR1_IM-1", {}),
    ("CXR1_IM-1-1", "1.png", "Clear lungs.", "train", "CXR1_IM-1", {}),
    ("x", "x.jpg", "An effusion.", "validation", "10", {}),
]
ANNOTATION_DROPPED = [("y", "test", "row without image or caption")]

XML = """<?xml version="1.0" encoding="utf-8"?>
<eCitation><uId id="{uid}"/><licenseURL>http://creativecommons.org/licenses/by-nc-nd/4.0/</licenseURL>
<MedlineCitation><Article><Abstract><AbstractText Label="COMPARISON">None.</AbstractText>
<AbstractText Label="INDICATION">Cough</AbstractText><AbstractText Label="FINDINGS">{findings}</AbstractText>
<AbstractText Label="IMPRESSION">{impression}</AbstractText></Abstract></Article></MedlineCitation>
<MeSH><major>Cardiomegaly/mild</major><automatic>heart</automatic></MeSH>{images}</eCitation>"""


def openi(folder):
    write_images(folder / "NLMCXR_png", "CXR1_1_IM-1.png", "CXR1_1_IM-2.png", "CXR2_IM-1.png", "CXR9_IM-1.png")
    reports = {
        "CXR1": ("Heart &amp; lungs clear.", "", ("CXR1_1_IM-1", "CXR1_1_IM-2")),
        "CXR2": ("", "", ("CXR2_IM-1",)),
        "CXR3": ("Clear.", "Normal.", ("CXR3_IM-1",)),
        "CXR4": ("Clear.", "Normal.", ()),
    }
    for uid, (findings, impression, ids) in reports.items():
        images = "".join(f'<parentImage id="{id}"><figureId>F1</figureId></parentImage>' for id in ids)
        text = XML.format(uid=uid, findings=findings, impression=impression, images=images)
        write_text(folder / "NLMCXR_reports" / "ecgen-radiology" / f"{uid[3:]}.xml", text)
    write_text(folder / "NLMCXR_reports" / "ecgen-radiology" / "5.xml", "<eCitation><uId")
    return folder


OPENI_PAIRS = [
    ("CXR1_1_IM-1", "CXR1_1_IM-1.png", "Heart & lungs clear.", split_of("CXR1"), "CXR1", {}),
    ("CXR1_1_IM-2", "CXR1_1_IM-2.png", "Heart & lungs clear.", split_of("CXR1"), "CXR1", {}),
]
OPENI_DROPPED = [
    ("CXR2_IM-1", split_of("CXR2"), "report without findings and impression"),
    ("CXR3_IM-1", split_of("CXR3"), "image missing"),
    ("CXR4", split_of("CXR4"), "report without images"),
    ("5", split_of("5"), "report is not XML"),
    ("CXR9_IM-1", split_of("CXR9_IM-1"), "no report"),
]


def kaggle(folder):
    write_images(folder / "images" / "images_normalized", "1_IM-1.dcm.png", "1_IM-2.dcm.png", "2_IM-1.dcm.png")
    report = {"MeSH": "normal", "Problems": "normal", "image": "Xray Chest PA", "indication": "Cough", "comparison": ""}
    texts = {"1": ("Clear lungs.", "Normal."), "2": ("", ""), "3": ("Clear.", "")}
    write_csv(
        folder / "indiana_reports.csv",
        *({"uid": uid, **report, "findings": f, "impression": i} for uid, (f, i) in texts.items()),
    )
    rows = [("1", "1_IM-1", "Frontal"), ("1", "1_IM-2", "Lateral"), ("2", "2_IM-1", "Frontal"), ("8", "8_IM-1", "")]
    write_csv(
        folder / "indiana_projections.csv",
        *({"uid": uid, "filename": f"{name}.dcm.png", "projection": view} for uid, name, view in rows),
    )
    return folder


KAGGLE_PAIRS = [
    ("1_IM-1", "1_IM-1.dcm.png", "Clear lungs.\nNormal.", split_of("1"), "1", {"view": "Frontal"}),
    ("1_IM-2", "1_IM-2.dcm.png", "Clear lungs.\nNormal.", split_of("1"), "1", {"view": "Lateral"}),
]
KAGGLE_DROPPED = [
    ("2_IM-1", split_of("2"), "report without findings and impression"),
    ("8_IM-1", split_of("8"), "no report"),
    ("3", split_of("3"), "report without images"),
]


def padchest(folder, name="PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz"):
    write_images(folder, "0/1_a.png", "13/2_b.png")
    rows = [
        ("1_a.png", "0", "7", "77", "PA", "sin alteracion .", "['normal']", "[]"),
        (
            "2_b.png",
            "13",
            "8",
            "78",
            "L",
            "derrame pleural",
            "['pleural effusion', ' cardiomegaly']",
            "['C2073625' 'C0018800']",
        ),
        ("3_c.png", "14", "9", "79", "PA", "", "nan", "nan"),
    ]
    names = ("ImageID", "ImageDir", "StudyID", "PatientID", "Projection", "Report", "Labels", "LabelCUIS")
    write_csv(folder / name, *({"": str(n), **dict(zip(names, row, strict=True))} for n, row in enumerate(rows)))
    return folder


def padchest_file(folder):
    return padchest(folder, "padchest.csv") / "padchest.csv"


PADCHEST_PAIRS = [
    ("1_a", "1_a.png", "sin alteracion .", split_of("77"), "77", {"findings": "normal", "view": "PA"}),
    (
        *("2_b", "2_b.png", "derrame pleural", split_of("78"), "78"),
        {"findings": "pleural effusion; cardiomegaly", "view": "L"},
    ),
]
PADCHEST_DROPPED = [("3_c.png", split_of("79"), "row without image or caption")]


def medicat(folder):
    write_images(folder / "figures", "57c9_2-Figure1-1.png", "57c9_3-Figure2-1.png")
    oa = {"doi": "10.1/x", "doi_url": "https://doi.org/10.1/x", "oa": {"license": "cc-by-nc-nd"}}
    rows = [
        {"pdf_hash": "57c9", "fig_uri": "2-Figure1-1.png", "s2_caption": "Figure 1. A barium enema.", "oa_info": oa},
        {
            "pdf_hash": "57c9",
            "fig_uri": "3-Figure2-1.png",
            "s2_caption": "",
            "s2orc_caption": "CT of the chest.",
            "oa_info": None,
        },
        {"pdf_hash": "58d0", "fig_uri": "1-Figure1-1.png", "s2_caption": None, "s2orc_caption": None},
    ]
    rows[0]["s2orc_references"] = ["CT showed it (Figure 1).", "So did the enema."]
    (folder / "s2_full_figures.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


MEDICAT_PAIRS = [
    ("57c9_2-Figure1-1", "57c9_2-Figure1-1.png", "Figure 1. A barium enema.", split_of("57c9"), "57c9", {}),
    ("57c9_3-Figure2-1", "57c9_3-Figure2-1.png", "CT of the chest.", split_of("57c9"), "57c9", {}),
]
MEDICAT_DROPPED = [("58d0_1-Figure1-1", split_of("58d0"), "row without image or caption")]


def pmc_oa(folder):
    """Subfigures of an article are one group, whatever their figure; another article is another."""
    names = ("PMC212319_Fig3_4.jpg", "PMC212319_Fig3_5.jpg", "PMC99_Fig1_1.jpg")
    write_images(folder / "images", *names)
    lines = [json.dumps({"image": name, "caption": f"CT {name}", "alignment_score": [1, 2]}) for name in names]
    (folder / "pmc_oa.jsonl").write_text("\n".join(lines))
    return folder


def pmc_oa_file(folder):
    return pmc_oa(folder) / "pmc_oa.jsonl"


PMC_OA_PAIRS = [
    ("auto", name, f"CT {name}", split_of(article), article, {})
    for name, article in (
        *(("PMC212319_Fig3_4.jpg", "PMC212319"), ("PMC212319_Fig3_5.jpg", "PMC212319")),
        ("PMC99_Fig1_1.jpg", "PMC99"),
    )
]


def roco(folder):
    """Two figures of an article, the second of which was never downloaded."""
    image = image_bytes(draw_image(0))
    rows = [("ROCO_1", "CT of the chest.", 0, image), ("ROCO_2", "MRI of the knee.", 1, None)]
    RocoFolder(folder).add_split("train", rows)
    return folder


ROCO_PAIRS = [
    ("ROCO_1", "ROCO_1.jpg", " CT of the chest.", "train", "PMC1000", {"modality": "ct"}),
    ("ROCO_2", "ROCO_2.jpg", " MRI of the knee.", "train", "PMC1000", {}),
]


ROCOV2_ARTICLES = {"train": "PMC100", "valid": "PMC200"}


def rocov2(folder):
    ids = {f"ROCOv2_2023_{split}_{n:06}": split for split in ("train", "valid") for n in (1, 2)}
    write_images(folder, *(f"{split}/{id}.jpg" for id, split in ids.items()))
    for split in ("train", "valid"):
        write_csv(
            folder / f"{split}_captions.csv",
            *({"ID": id, "Caption": f"CT of {id}"} for id, other in ids.items() if split == other),
        )
    facts = (
        {"ID": id, "PMCID": ROCOV2_ARTICLES[split], "Attribution": "CC BY [A]", "Link": ""} for id, split in ids.items()
    )
    write_csv(folder / "license_information.csv", *facts)
    return folder


ROCOV2_PAIRS = [
    (id, f"{id}.jpg", f"CT of {id}", {"valid": "validation"}.get(split, split), article, {})
    for split, article in ROCOV2_ARTICLES.items()
    for id in (f"ROCOv2_2023_{split}_000001", f"ROCOv2_2023_{split}_000002")
]


def chest_imagenome(folder):
    """Findings and impression in columns of their own, in a list of splits."""
    write_images(folder, "a.png")
    row = {"id": "a", "image_path": "a.png", "findings": "Clear.", "impression": "Normal."}
    (folder / "annotation.json").write_text(json.dumps({"test": [row]}))
    return folder


LAYOUTS = {
    "R2Gen with sections in columns": (chest_imagenome, [("a", "a.png", "Clear.\nNormal.", "test", "a", {})], []),
    "MIMIC-CXR-JPG, reports beside the folder": (mimic, MIMIC_PAIRS, MIMIC_DROPPED),
    "MIMIC-CXR-JPG, reports in a tree beside it": (mimic_beside, MIMIC_PAIRS, MIMIC_DROPPED),
    "R2Gen, a folder": (annotations, ANNOTATION_PAIRS, ANNOTATION_DROPPED),
    "R2Gen, its file": (annotations_file, ANNOTATION_PAIRS, ANNOTATION_DROPPED),
    "Open-i": (openi, OPENI_PAIRS, OPENI_DROPPED),
    "Open-i, Kaggle's tables": (kaggle, KAGGLE_PAIRS, KAGGLE_DROPPED),
    "PadChest, a folder with .csv.gz": (padchest, PADCHEST_PAIRS, PADCHEST_DROPPED),
    "PadChest, its file": (padchest_file, PADCHEST_PAIRS, PADCHEST_DROPPED),
    "MedICaT": (medicat, MEDICAT_PAIRS, MEDICAT_DROPPED),
    "PMC-OA, a folder": (pmc_oa, PMC_OA_PAIRS, []),
    "PMC-OA, its file": (pmc_oa_file, PMC_OA_PAIRS, []),
    "ROCO": (roco, ROCO_PAIRS, []),
    "ROCOv2": (rocov2, ROCOV2_PAIRS, []),
}
"""By name: what makes it in a folder and gives the source, its pairs, and its dropped rows."""
