"""Inputs that people really have, section by section: what each is, and what a checkout makes of it."""

from __future__ import annotations

import gzip
import json
import re
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from data import test_dicom_display as display
from evaluation.test_labeled_sets import SETS
from support.archives import tar_bytes, zip_bytes
from support.dicom_files import PACKAGED, dicom, dicom_bytes, gray_ramp, without_meta
from support.fake_dicomweb import make_studies, serve_archive
from support.input_runs import (
    CAPTION,
    IMAGES,
    MODEL,
    Checkout,
    Files,
    Run,
    add_to_index,
    archive,
    captions,
    counts,
    delete_leaks,
    ending,
    error_from,
    files,
    groups,
    middle_slice,
    samples,
    source,
    table,
    upload,
    warnings,
)
from support.material import draw_image, image_bytes
from support.published_layouts import LAYOUTS, pmc_oa_file
from support.spellings import letters_of

HEAD = "image,caption\n"
REPORT = (
    "FINAL REPORT EXAMINATION: CHEST (PA AND LAT) INDICATION: cough. "
    "FINDINGS: The lungs are clear. IMPRESSION: No acute process. NOTIFICATION: by phone."
)
DISPLAY, NAMES = "tests/data/test_dicom_display.py", "tests/data/test_name_matching.py"
SOURCES = "tests/data/sources"
LAYOUT_TESTS, ARCHIVES = f"{SOURCES}/test_layouts.py", f"{SOURCES}/test_webdataset.py"
CELLS, FOLDERS = f"{SOURCES}/test_image_cells.py", f"{SOURCES}/test_image_caption_folder.py"
STUDIES, REPORTS = f"{SOURCES}/test_dicom_studies.py", f"{SOURCES}/test_reports.py"
TABLES, IDENTITY = f"{SOURCES}/test_tables.py", "tests/data/test_identity.py"
IMAGE_TESTS = "tests/data/test_images.py"
WORDS_OF_PLACES = "ordinary_words_of_a_station_or_department_stay"


class Input(NamedTuple):
    """A row: its words, what a checkout makes of it in an empty folder, and the test that holds it."""

    name: str
    result: Callable[[Checkout, Path], str]
    test: str


def pixels(values: Iterable[float], dtype: Any = np.uint16) -> np.ndarray:
    """Five blocks of one gray each, which JPEG keeps."""
    return np.kron(np.array(list(values), dtype), np.ones((16, 16), dtype))


def image(values: Iterable[float], dtype: Any, **options: Any) -> bytes:
    return image_bytes(Image.fromarray(pixels(values, dtype)), "TIFF", **options)


def image_row(data: bytes, expected: Iterable[float], name: str = "1.dcm"):
    """A row of one image with its report: how far its grays are from what is expected."""
    return files({name: data, "1.txt": CAPTION}, "", error_from(expected))


def display_case(name: str) -> Input:
    attributes, expected = display.CASES[name]
    data = dicom_bytes(display.dataset_of(attributes, pixels(display.RAMP)))
    return Input(name, image_row(data, expected), f"{DISPLAY}::test_gray_values_are_those_of_the_standard")


def study(number: int = 0, **attributes: Any) -> bytes:
    """A film of a study of its own."""
    own = {"StudyInstanceUID": f"1.2.{number}", "SeriesInstanceUID": f"1.2.{number}.1", "PatientID": "4711471"}
    data = dicom(gray_ramp(), SpecificCharacterSet="ISO_IR 192", **{"Modality": "DX", **own, **attributes})
    return dicom_bytes(data)


def series(num_localizers: int = 0) -> Files:
    """Nine slices without InstanceNumber, whose names do not say their order, and localizers with numbers."""
    own = {"StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.2.1", "PatientID": "p"}
    made: Files = {"report.txt": CAPTION}
    for place in range(9):
        at = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "ImagePositionPatient": [0, 0, 10 * place]}
        slice_ = dicom(pixels([0, 255, 0, 0, 20 * place], np.uint8), **own, **at)
        made[f"{place * 5 % 9}.dcm"] = dicom_bytes(slice_)
    for number in range(num_localizers):
        kind = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "InstanceNumber": number + 1}
        made[f"scout{number}.dcm"] = dicom_bytes(dicom(pixels([0, 255, 9, 9, 9], np.uint8), **own, **kind))
    return made


def names(header: str, spellings: list[str]) -> Input:
    """Studies of one person, whose reports spell the name in ways of their own: those in which it stays."""
    parts = {letters_of(part) for part in re.split(r"[\^=,\s'’-]+", header) if len(part) > 1}
    made: Files = {}
    for number, spelling in enumerate(spellings):
        made[f"{number}.dcm"] = study(number, PatientName=header)
        made[f"{number}.txt"] = f"Film of the chest, {spelling}; no effusion {number}."

    def show(run: Run) -> str:
        if len(run.pairs) < len(spellings):
            return counts(run)
        left = [
            match[1]
            for row in run.pairs
            if (match := re.search("chest, (.*);", row["caption"], re.S)) and leaves(match[1], parts)
        ]
        return f"{len(left)} of {len(spellings)} stay: {'; '.join(left)}" if left else "none stays"

    written = [text if unicodedata.is_normalized("NFC", text) else f"{text} (NFD)" for text in spellings]
    heading = f"`{header}` in the header; {'; '.join(written)} in reports"
    return Input(heading, files(made, "", show), f"{NAMES}::test_a_name_is_replaced_however_it_is_written")


def leaves(text: str, parts: Iterable[str]) -> bool:
    return any(part in letters_of(text) for part in parts)


def words(keyword: str, value: str, report: str) -> Input:
    """A header's value that is an ordinary word, and what it takes from a report."""
    is_name = keyword == "PatientName"
    test = "an_ordinary_word_stays_where_nothing_says_that_it_is_a_name" if is_name else WORDS_OF_PLACES
    made = files({"1.dcm": study(**{keyword: value}), "1.txt": report}, "", captions)
    return Input(f"{keyword} {value}: “{report}”", made, f"{NAMES}::test_{test}")


def layout(name: str) -> Input:
    return Input(
        name, source(LAYOUTS[name][0], groups), f"{LAYOUT_TESTS}::test_a_published_layout_is_read_as_described"
    )


def labeled_set(name: str) -> Input:
    make, split, *_ = SETS[name]

    def result(checkout: Checkout, folder: Path) -> str:
        (folder / "source").mkdir()
        flags = ["--model", f"{MODEL}", "--data", f"{make(folder / 'source').relative_to(folder)}"]
        run = checkout.run(
            folder, "evaluate zero-shot", *flags, *(["--split", split] if split != "all" else []), out="out"
        )
        if run.code:
            return ending(run)
        report = json.loads((folder / "out" / "zero_shot.json").read_text())
        num_images = report["num_images"] if "num_images" in report else report["pictures"]
        return f"{num_images} images; classes {', '.join(report['classes'])}"

    return Input(name, result, "tests/evaluation/test_labeled_sets.py::test_a_published_set_is_read_as_described")


# --- the rows


def rows_of_sources() -> Iterable[Input]:
    test = f"{ARCHIVES}::test_names_may_hold_dots"
    yield Input("a tar with names full of dots, `1.2.840.5.png`", archive(*samples("1.2.840.5", "1.2.840.6")), test)
    members = [("x.input.jpg", IMAGES[0]), ("x.txt", CAPTION.encode()), *samples("y")]
    test = f"{ARCHIVES}::test_a_second_extension_is_said"
    yield Input("a tar with a second extension, `x.input.jpg`", archive(*members), test)
    members = [*samples("a", "b"), ("c.png", IMAGES[2]), ("c.png", IMAGES[3]), ("c.txt", CAPTION.encode())]
    yield Input("a tar with one name twice", archive(*members), f"{ARCHIVES}::test_the_same_name_twice_is_counted")
    members = sorted(samples("a", "b", "c", "d"), key=lambda member: member[0][2:])
    test = f"{ARCHIVES}::test_images_first_and_captions_later_are_paired"
    yield Input("a tar of four images, then their four captions", archive(*members), test)
    mixed = {"1.png": IMAGES[1], "1.txt": CAPTION, "2.dcm": study(), "2.txt": CAPTION}
    test = f"{STUDIES}::test_images_among_studies_do_not_make_it_an_image_folder"
    yield Input("PNG + TXT in a folder that also holds DICOM", files(mixed), test)
    bare = {"a.dcm": study(), "IM0002": without_meta(study()), "report.txt": CAPTION}
    test = f"{STUDIES}::test_files_without_preamble_are_images_of_their_study"
    yield Input("DICOM without extension and preamble beside a normal one", files(bare), test)
    for suffix, kind in {"jp2": "JPEG2000", "avif": "AVIF", "pgm": "PPM"}.items():
        data = {f"1.{suffix}": image_bytes(draw_image(1), kind), "1.txt": CAPTION}
        yield Input(f"`.{suffix}` with its caption", files(data), f"{FOLDERS}::test_every_kind_of_image_is_prepared")
    test = f"{IDENTITY}::test_zero_pairs_is_a_failure_with_its_reason_and_remedy"
    yield Input("a table none of whose images is there", table(f"{HEAD}x.png,{CAPTION}\n"), test)
    unread = f"{IDENTITY}::test_a_source_that_cannot_be_read_says_why"
    yield Input("a path that does not exist", source(lambda folder: folder / "absent.csv"), unread)
    test = f"{CELLS}::test_a_list_of_one_image_as_text_is_its_image"
    yield Input("a list as text, `['1.png']`", table(f"{HEAD}['1.png'],{CAPTION}\n"), test)
    text = str(IMAGES[1]).replace('"', '""')
    test = f"{CELLS}::test_the_repr_of_bytes_is_its_image"
    yield Input("the repr of bytes as text", table(f'{HEAD}"{text}",{CAPTION}\n'), test)
    test = f"{FOLDERS}::test_a_caption_is_found_however_it_is_written"
    yield Input("`1.png` and `1.TXT`", files({"1.png": IMAGES[1], "1.TXT": CAPTION}), test)
    text = f"image;caption\n1.png;{CAPTION}, no mass\n2.png;{CAPTION}\n"
    yield Input("a `;`-separated file", table(text), f"{TABLES}::test_the_delimiter_is_that_of_the_first_line")
    yield Input("`.xlsx`", files({"x.xlsx": zip_bytes([("xl/workbook.xml", b"<x/>")])}, "x.xlsx"), unread)
    packed = {"1.png": IMAGES[1], "x.csv.gz": gzip.compress(f"{HEAD}1.png,{CAPTION}\n".encode())}
    yield Input("`.csv.gz`", files(packed, "x.csv.gz"), f"{LAYOUT_TESTS}::test_a_compressed_table_is_read")
    for name, stored, written in (
        ("`a\\1.png` in a table, `a/1.png` on the disk", "a/1.png", "a\\1.png"),
        ("`Müller.png` as NFD in a table, as NFC on the disk", "Müller.png", "Mu\u0308ller.png"),
        ("`scan.png` in a table, `Scan.PNG` on the disk", "Scan.PNG", "scan.png"),
    ):
        made = table(f"{HEAD}{written},{CAPTION}\n", images={stored: IMAGES[1]})
        yield Input(name, made, f"{CELLS}::test_a_path_is_tried_in_other_spellings")
    inside = table(f"{HEAD}1.png,{CAPTION}\n", images={"images.zip": zip_bytes([("a/1.png", IMAGES[1])])})
    yield Input("images inside a `.zip`", inside, f"{CELLS}::test_images_inside_an_archive_are_read")


def rows_of_identity() -> Iterable[Input]:
    test = f"{IDENTITY}::test_two_tables_without_ids_share_nothing"
    yield Input("`leakage --out` of two tables without ids that share nothing", delete_leaks, test)
    test = "tests/search/test_curate.py::test_images_without_ids_of_another_dataset_are_new"
    yield Input("`index add` of six images of another table without ids", add_to_index, test)
    shards = files({f"{n}.tar": tar_bytes(samples("000000", "000001")) for n in range(2)}, "", groups)
    yield Input("two shards that both start at 000000", shards, f"{ARCHIVES}::test_shards_that_count_anew_lose_nothing")
    made = source(pmc_oa_file, groups, "--image-root", "source/images")
    test = f"{LAYOUT_TESTS}::test_a_published_layout_is_read_as_described"
    yield Input("three subfigures of PMC-OA, two of one figure", made, test)


def rows_of_groups() -> Iterable[Input]:
    for column in ("PatientID", "patient id", "subject_id", "uid", "StudyInstanceUID", "Patient_Id"):
        text = f"image,caption,{column}\n1.png,{CAPTION},p\n2.png,{CAPTION},p\n3.png,{CAPTION},q\n"
        test = f"{IDENTITY}::test_a_column_of_groups_is_recognized_however_it_is_written"
        yield Input(f"three images of two, by `{column}`", table(text, groups), test)
    text = f"image,caption,StudyInstanceUID,PatientID\n1.png,{CAPTION},1.2,p\n2.png,{CAPTION},1.3,p\n"
    test = f"{IDENTITY}::test_a_patient_goes_before_a_study_and_a_study_before_an_article"
    yield Input("two studies of one patient", table(text, groups), test)
    text = HEAD + "".join(f"{n}.png,{CAPTION} {n}\n" for n in (1, 2, 3))
    test = f"{IDENTITY}::test_what_names_no_group_is_said_on_the_terminal"
    yield Input("no group at all", table(text, warnings), test)


def rows_of_layouts() -> Iterable[Input]:
    yield from map(layout, LAYOUTS)
    yield from map(labeled_set, SETS)
    test = f"{REPORTS}::test_captions_in_several_columns_lists_and_objects"
    text = "image,findings,impression\n1.png,The lungs are clear,Normal chest\n2.png,,Normal heart\n"
    flags = ("--caption-column", "findings", "--caption-column", "impression")
    yield Input("`--caption-column findings --caption-column impression`", table(text, captions, *flags), test)
    for name, cell in (
        ("a list of captions", ["CT of the chest", "Axial CT image"]),
        ("objects of captions", [{"raw": "CT of the chest"}, {"raw": "Axial CT image"}]),
    ):
        text = json.dumps({"id": "a", "image": "1.png", "captions": cell})
        yield Input(name, table(text, captions, name="x.jsonl"), test)
    text = json.dumps({"id": "a", "image": "1.png", "report": REPORT})
    test = f"{REPORTS}::test_reports_are_read_wherever_captions_are_reports"
    yield Input(f"“{REPORT}”", table(text, captions, name="x.jsonl"), test)


def rows_of_display() -> Iterable[Input]:
    yield from map(display_case, display.CASES)
    stored = pixels([0, 400, 800, 1200, 1600]) << 4 | 15  # the lower bits are not the pixel's
    data = dicom_bytes(dicom(stored, BitsStored=12, HighBit=15))
    test = f"{DISPLAY}::test_bits_are_shifted_to_where_the_high_bit_says"
    yield Input("12 bits stored up to bit 15", image_row(data, display.WHOLE), test)
    palette = dicom(pixels([0, 1, 2, 3, 4], np.uint8), PhotometricInterpretation="PALETTE COLOR")
    for color in ("Red", "Green", "Blue"):
        palette.add_new(f"{color}PaletteColorLookupTableDescriptor", "US", [5, 0, 16])
        palette.add_new(f"{color}PaletteColorLookupTableData", "OW", bytes([*display.PALETTE, 0]))
    test = f"{DISPLAY}::test_a_palette_has_the_depth_of_its_entries"
    yield Input("a palette of 8-bit values said to have 16", image_row(dicom_bytes(palette), display.PALETTE), test)
    test = f"{DISPLAY}::test_a_file_without_preamble_or_transfer_syntax_is_read"
    for syntax in (ImplicitVRLittleEndian, ExplicitVRLittleEndian):
        data = dicom_bytes(dicom(pixels(display.RAMP), **display.WINDOW), syntax)
        bare = without_meta(data)
        yield Input(f"no preamble, {syntax.name}", image_row(bare, display.IN_WINDOW), test)
        yield Input(f"no Transfer Syntax UID, {syntax.name}", image_row(data[:132] + bare, display.IN_WINDOW), test)
    directory = (PACKAGED / "dicomdirtests" / "DICOMDIR").read_bytes()
    cd = {"DICOMDIR": directory, "IMAGES/IM1": study(), "IMAGES/IM2": study(), "report.txt": CAPTION}
    yield Input("a CD with DICOMDIR", files(cd), f"{STUDIES}::test_the_directory_of_a_cd_hides_no_report")
    test = f"{STUDIES}::test_the_middle_slice_is_the_one_in_the_middle_of_the_patient"
    yield Input("nine slices without InstanceNumber", files(series(), "", middle_slice), test)
    test = f"{STUDIES}::test_localizers_are_counted_and_the_largest_stack_has_the_middle"
    yield Input("the same and three localizers", files(series(3), "", middle_slice), test)
    inverted = image([0, 1000, 2000, 3000, 4000], np.uint16, tiffinfo={262: 0})
    test = f"{IMAGE_TESTS}::test_a_tiff_whose_white_is_zero_is_inverted"
    yield Input("a 16-bit TIFF with photometric 0", image_row(inverted, display.WHOLE[::-1], "1.tif"), test)
    floats = image([np.nan, -1, 0, 1, np.inf], np.float32)
    test = f"{IMAGE_TESTS}::test_floats_use_their_finite_range"
    yield Input("a float TIFF with NaN and inf", image_row(floats, [0, 0, 128, 255, 255], "1.tif"), test)
    test = "tests/serve/test_api_hostile.py::test_gdcm_is_never_in_the_serving_process"
    yield Input("a file that GDCM decodes, uploaded to `medclip serve`", upload, test)


def rows_of_names() -> Iterable[Input]:
    for header, spellings in (
        ("García López^María José", "García López, María José; María José García; GARCIA-LOPEZ; Lopez, M. J."),
        ("Müller^Jörg", "Herr Mu\u0308ller; Mueller, Joerg; Muller; MÜLLER"),
        ("王^小東", "王小東; 王 小東; 小東"),
        ("王小東", "王 小東; 小東"),
        ("O'Brien^Pat", "O’Brien; OBrien; O BRIEN, PAT"),
        ("Smith-Joneson^Jean-Pierre", "Smith Joneson; Jeanpierre; JEAN PIERRE SMITH‐JONESON"),
        ("Ødegård^Bjørn", "Oedegaard; Bjoern Odegard"),
        ("Dvořák^Jiří", "Dvorak; JIRI DVORAK"),
        ("van der Berghe^Jan", "Vanderberghe; Berghe, Jan van der"),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", "山田太郎; ヤマダ タロウ; Yamada Tarou; TAROU, YAMADA"),
        ("Doe^Jane", "JANE DOE; Doe, J.; JaneDoe"),
    ):
        yield names(header, spellings.split("; "))
    for keyword, value, report in (
        ("InstitutionalDepartmentName", "CHEST", "CHEST: clear. Film of the chest"),
        ("StationName", "Heart", "Heart size normal. The heart is normal"),
        ("PatientName", "Left^Jane", "The left lung is clear. Left hilum normal"),
        ("PatientName", "White^Jane", "The white matter is normal. White matter"),
        ("PatientName", "Long^Jane", "A long segment. Long bones are normal"),
        ("PatientName", "Head^Jane", "CT of the head. Head normal"),
    ):
        yield words(keyword, value, report)
    many: Files = {}
    for number in range(12):
        many[f"{number}.dcm"] = study(number, OperatorsName="Kyste^A")
        many[f"{number}.txt"] = f"Film {number}: un kyste du foie."
    test = f"{STUDIES}::test_a_value_in_many_reports_is_warned_of_without_being_printed"
    yield Input("a value of the header in all of 12 reports", files(many, "", warnings), test)


def dicomweb(checkout: Checkout, folder: Path) -> str:
    with serve_archive(make_studies(3)) as server:
        flags = ("--num-workers", "1")
        return groups(checkout.run(folder, "prepare", f"dicomweb://{server.url}", *flags, out="out"))


def rows_of_archives() -> Iterable[Input]:
    test = f"{SOURCES}/test_dicomweb_studies.py::test_a_server_gives_what_the_folder_of_its_files_gives"
    yield Input("`dicomweb://HOST`: three studies with reports on a server", dicomweb, test)


SECTIONS = {
    "Nothing is lost without a count": rows_of_sources,
    "Identity": rows_of_identity,
    "Groups": rows_of_groups,
    "Layouts as published": rows_of_layouts,
    "DICOM shows what a viewer shows": rows_of_display,
    "Names": rows_of_names,
    "Straight from the archive": rows_of_archives,
}
