"""A DICOM file is shown as its header says, or refused by name; checked against the formulas of the standard."""

import re
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pydicom = pytest.importorskip("pydicom")

from pydicom import uid  # noqa: E402
from pydicom.encaps import encapsulate  # noqa: E402

from medclip.data.dicom import BURNED_IN, NO_PIXELS, RECOGNIZABLE, TWELVE_BITS, decode_frame  # noqa: E402
from medclip.data.images import decode, standardize  # noqa: E402
from medclip.data.prepare_config import PrepareConfig  # noqa: E402
from medclip.data.prepare_row import prepare_rows  # noqa: E402
from medclip.data.schema import DicomFrame, Pair  # noqa: E402
from medclip.data.sources.detect import open_source  # noqa: E402
from medclip.errors import (  # noqa: E402
    TOO_MANY_PIXELS,
    ImageError,
    UserError,
)
from medclip.require import install_command  # noqa: E402
from support.dicom_files import PACKAGED, dicom, dicom_bytes, gray_ramp, sequence, write_dicom  # noqa: E402
from support.dicom_table import outcomes, table  # noqa: E402
from support.material import in_new_process  # noqa: E402


def display(ds):
    return np.asarray(decode(dicom_bytes(ds))).astype(int)


def reason_of(data):
    with pytest.raises(ImageError) as caught:
        decode(data)
    return str(caught.value)


def stretch(values, low, high):
    return np.rint(255 * ((values.astype(float) - low) / (high - low)).clip(0, 1)).astype(int)


# --- every transfer syntax


def test_every_file_of_pydicom_is_decoded_or_refused_by_the_reason_in_the_docs():
    documented = Path(__file__).parents[2].joinpath("docs/dicom.md").read_text(encoding="utf-8")
    by_syntax = outcomes()
    assert table(by_syntax).splitlines()[7:] == documented.splitlines()[7:]  # the lines above name versions
    refusals = {
        (file, outcome) for files in by_syntax.values() for file, outcome in files.items() if outcome != "decoded"
    }
    assert refusals == {
        ("JPEG-lossy.dcm", TWELVE_BITS),
        ("JPGExtended.dcm", TWELVE_BITS),
        ("JPEG2000-embedded-sequence-delimiter.dcm", TOO_MANY_PIXELS),  # its stream is overwritten and claims so
        ("MR_truncated.dcm", "image unreadable"),
        ("badVR.dcm", "image unreadable"),
        ("nested_priv_SQ.dcm", NO_PIXELS),
    }


LOSSLESS = ("RLE", "bigendian", "expb", "implicit", "padded", "jp2klossless", "jpeg_ls_lossless")


@pytest.mark.parametrize("kind", LOSSLESS)
def test_lossless_syntaxes_show_the_same_image(kind):
    native = np.asarray(decode(PACKAGED / "MR_small.dcm"))
    assert np.array_equal(np.asarray(decode(PACKAGED / f"MR_small_{kind}.dcm")), native)


@pytest.mark.parametrize(
    ("file", "tolerance"),
    [
        ("SC_rgb_rle.dcm", 0),
        ("SC_rgb_rle_16bit.dcm", 0),
        ("SC_rgb_jpeg_gdcm.dcm", 0),
        ("SC_rgb_gdcm_KY.dcm", 0),
        ("SC_rgb_jls_lossy_line.dcm", 2),
        ("SC_rgb_jls_lossy_sample.dcm", 2),
        ("SC_ybr_full_422_uncompressed.dcm", 5),  # made from a JPEG, whose blue of pure green is 5
        ("SC_rgb_dcmtk_+eb+cr.dcm", 0),
        *((f"SC_rgb_dcmtk_+eb+c{name}.dcm", 5) for name in ("y+n1", "y+n2", "y+np", "y+s2", "y+s4")),
        ("SC_rgb_jpeg_dcmtk.dcm", 5),
        ("SC_rgb_jpeg_lossy_gdcm.dcm", 2),
    ],
)
def test_colors_are_those_of_the_test_bars(file, tolerance):
    bars = [(255, 0, 0), (255, 128, 128), (0, 255, 0), (128, 255, 128), (0, 0, 255), (128, 128, 255)]
    bars += [(n, n, n) for n in (0, 64, 192, 255)]
    centers = np.asarray(decode(PACKAGED / file))[5::10, 50].astype(int)  # ten bars of ten rows
    assert np.abs(centers - bars).max() <= tolerance


@pytest.mark.parametrize(
    ("syntax", "message"),
    [
        (uid.MPEG2MPML, "transfer syntax that nothing here decodes: MPEG2 Main Profile / Main Level"),
        (uid.UID("1.2.826.0.1.3680043.99"), "transfer syntax that nothing here decodes"),
    ],
)
def test_a_syntax_that_nothing_decodes_is_named(syntax, message):
    made = dicom(gray_ramp())
    made.PixelData = encapsulate([b"\0" * 64])
    made["PixelData"].is_undefined_length = True
    data = dicom_bytes(made)
    old = uid.ExplicitVRLittleEndian.encode()
    at = data.index(old) - 2
    new = syntax.encode() + b"\0" * (len(syntax) % 2)
    length = int.from_bytes(data[at : at + 2], "little")
    data = data[:at] + len(new).to_bytes(2, "little") + new + data[at + 2 + length :]
    group = data.index(b"\x02\x00\x00\x00UL") + 8
    size = int.from_bytes(data[group : group + 4], "little") + len(new) - length
    assert reason_of(data[:group] + size.to_bytes(4, "little") + data[group + 4 :]) == message


# --- grey values


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16])
def test_without_a_window_the_whole_range_is_shown(dtype):
    pixels = gray_ramp(top=100, dtype=dtype) - dtype(20 if np.dtype(dtype).kind == "i" else 0)
    assert np.array_equal(display(dicom(pixels)), stretch(pixels, pixels.min(), pixels.max()))


def test_monochrome1_is_inverted():
    pixels = gray_ramp()
    wanted = 255 - stretch(pixels, 0, 4000)
    assert np.abs(display(dicom(pixels, PhotometricInterpretation="MONOCHROME1")) - wanted).max() <= 1  # halves


@pytest.mark.parametrize(
    ("function", "formula"),  # PS3.3 C.11.2.1.2 and C.11.2.1.3, output from 0 to 1
    [
        ("LINEAR", lambda x, c, w: (x - (c - 0.5)) / (w - 1) + 0.5),
        ("LINEAR_EXACT", lambda x, c, w: (x - c) / w + 0.5),
        ("SIGMOID", lambda x, c, w: 1 / (1 + np.exp(-4 * (x - c) / w))),
    ],
)
@pytest.mark.parametrize("intercept", [0, -1024])
def test_the_first_window_is_applied_to_rescaled_values(function, formula, intercept):
    pixels = gray_ramp(dtype=np.int16)
    ds = dicom(pixels, RescaleSlope=2, RescaleIntercept=intercept, VOILUTFunction=function)
    ds.WindowCenter, ds.WindowWidth = [400, 1], [900, 2]
    wanted = np.rint(255 * formula(pixels * 2.0 + intercept, 400, 900).clip(0, 1))
    assert np.abs(display(ds) - wanted).max() <= 1  # rounding at halves


def test_a_negative_slope_inverts_the_image():
    pixels = gray_ramp(dtype=np.int16)
    ds = dicom(pixels, RescaleSlope=-1, RescaleIntercept=0, WindowCenter=-2000, WindowWidth=4000)
    assert np.abs(display(ds) - (255 - stretch(pixels, 0, 4000))).max() <= 1


@pytest.mark.parametrize("width", [0, -5])
def test_a_window_without_sense_is_as_none(width):
    pixels = gray_ramp()
    assert np.array_equal(display(dicom(pixels, WindowCenter=40, WindowWidth=width)), stretch(pixels, 0, 4000))


def test_a_voi_lut_comes_before_a_window_and_fills_its_own_range():
    pixels, table = gray_ramp(top=255), [n * n // 16 for n in range(256)]  # 12 bits of values in entries of 16
    lut = sequence(LUTDescriptor=[256, 0, 16], LUTData=table)
    lut[0]["LUTDescriptor"].VR, lut[0]["LUTData"].VR = "US", "US"
    ds = dicom(pixels, VOILUTSequence=lut, WindowCenter=40, WindowWidth=80)
    assert np.array_equal(display(ds), stretch(np.array(table)[pixels], 0, table[-1]))


def test_a_modality_lut_is_applied():
    pixels, table = gray_ramp(top=255), list(range(1000, 744, -1))
    lut = sequence(LUTDescriptor=[256, 0, 16], LUTData=table, ModalityLUTType="US")
    lut[0]["LUTDescriptor"].VR, lut[0]["LUTData"].VR = "US", "US"
    assert np.array_equal(display(dicom(pixels, ModalityLUTSequence=lut)), 255 - stretch(pixels, 0, 255))


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_and_not_part_of_the_range(photometric):
    pixels = gray_ramp(top=1000, dtype=np.int16)
    pixels[:5] = -2000
    ds = dicom(pixels, PhotometricInterpretation=photometric)
    ds.add_new("PixelPaddingValue", "US", 65536 - 2000)  # unsigned, as some write it
    wanted = stretch(pixels, pixels[5:].min(), 1000)
    wanted = 255 - wanted if photometric == "MONOCHROME1" else wanted
    wanted[:5] = 0
    assert np.array_equal(display(ds), wanted)


def test_a_uniform_image_is_black():
    assert display(dicom(np.full((8, 8), 7, np.uint16))).max() == 0


def test_an_enhanced_object_keeps_rescale_and_window_with_each_frame():
    pixels = np.stack([gray_ramp(dtype=np.int16)] * 3)
    groups = [
        sequence(
            PixelValueTransformationSequence=sequence(RescaleSlope=1, RescaleIntercept=-shift, RescaleType="HU"),
            FrameVOILUTSequence=sequence(WindowCenter=1000, WindowWidth=1000),
        )[0]
        for shift in (0, 500, 1000)
    ]
    data = dicom_bytes(dicom(pixels, PerFrameFunctionalGroupsSequence=groups))
    one = np.asarray(decode(data)).astype(int)
    assert np.abs(one - stretch(pixels[1], 1000, 2000)).max() <= 1


# --- color


def test_a_palette_gives_its_colors():
    ds = pydicom.dcmread(PACKAGED / "examples_palette.dcm")
    tables = [
        np.frombuffer(ds[f"{name}PaletteColorLookupTableData"].value, np.uint16) for name in ("Red", "Green", "Blue")
    ]
    wanted = np.stack([table[ds.pixel_array] >> 8 for table in tables], -1)
    assert np.array_equal(np.asarray(decode(PACKAGED / "examples_palette.dcm")), wanted)


def test_deep_colors_lose_their_lower_bits():
    pixels = np.stack([gray_ramp(), gray_ramp()[::-1], gray_ramp() // 2], -1)
    assert np.array_equal(display(dicom(pixels, BitsStored=12, HighBit=11)), pixels >> 4)


# --- frames, borders, people


def test_the_middle_frame_or_the_one_asked_for(tmp_path):
    frames = np.stack([gray_ramp(top=100) + n for n in range(5)]).astype(np.uint16)
    frames[:, 0, 0] = [0, 200, 300, 400, 500]  # tells the frames apart
    path = write_dicom(dicom(frames), tmp_path / "1.dcm")
    for number, wanted in ((None, 2), (0, 0), (4, 4)):
        image = np.asarray(decode(DicomFrame(path, number))).astype(int)
        assert np.array_equal(image, stretch(frames[wanted], frames[wanted].min(), frames[wanted].max()))


@pytest.mark.parametrize(
    ("keyword", "reason"), [("BurnedInAnnotation", BURNED_IN), ("RecognizableVisualFeatures", RECOGNIZABLE)]
)
def test_what_shows_a_person_or_their_name_is_refused(tmp_path, keyword, reason):
    path = write_dicom(dicom(gray_ramp(), **{keyword: "YES"}), tmp_path / "1.dcm")
    assert reason_of(path) == reason
    decode(write_dicom(dicom(gray_ramp(), **{keyword: "NO"}), tmp_path / "2.dcm"))


def test_a_masked_border_is_black_and_the_rest_untouched(tmp_path):
    pixels = gray_ramp(45, 32) + np.uint16(10)
    image = np.asarray(
        decode(DicomFrame(write_dicom(dicom(pixels, BurnedInAnnotation="YES"), tmp_path / "1.dcm"), masked=True))
    )
    assert np.array_equal(image[5:-5, 4:-4], stretch(pixels, 10, 4010)[5:-5, 4:-4])
    assert all(not edge.any() for edge in (image[:5], image[-5:], image[:, :4], image[:, -4:]))


def test_recognizable_features_are_refused_even_masked(tmp_path):
    path = write_dicom(dicom(gray_ramp(), RecognizableVisualFeatures="YES"), tmp_path / "1.dcm")
    assert reason_of(DicomFrame(path, masked=True)) == RECOGNIZABLE


def test_without_pydicom_the_extra_is_named(tmp_path, monkeypatch):
    path = write_dicom(dicom(gray_ramp()), tmp_path / "1.dcm")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    for read in (lambda: decode_frame(path), lambda: open_source(str(tmp_path))):
        with pytest.raises(UserError, match=re.escape(install_command("dicom"))):
            read()


def test_without_pydicom_the_modules_still_import():
    modules = "medclip.data.dicom, medclip.data.deidentify, medclip.data.sources.dicom_studies"
    result = in_new_process("-c", f"import sys; sys.modules['pydicom'] = None; import {modules}")
    assert (result.returncode, result.stderr) == (0, "")


# --- damage


def test_no_pixels():
    assert reason_of(dicom_bytes(dicom(None))) == NO_PIXELS
    ds = dicom(gray_ramp())
    del ds.PixelData
    assert reason_of(dicom_bytes(ds)) == NO_PIXELS


@pytest.mark.parametrize("side", [65535, 10001])
@pytest.mark.parametrize("file", ["CT_small.dcm", "MR_small_RLE.dcm", "SC_rgb_jpeg_gdcm.dcm", "image_dfl.dcm"])
def test_a_header_that_claims_too_much_is_refused_before_anything_is_decoded(file, side):
    ds = pydicom.dcmread(PACKAGED / file)
    ds.Rows = ds.Columns = side
    assert reason_of(dicom_bytes(ds)) == TOO_MANY_PIXELS


@pytest.mark.parametrize(
    ("file", "mark", "at", "size"),
    [
        ("MR_small_jp2klossless.dcm", b"\xff\x4f\xff\x51", 8, (30000).to_bytes(4, "big") * 2),
        ("SC_rgb_jpeg_gdcm.dcm", b"\xff\xc3", 5, b"\xff\xff\xff\xff"),
        ("MR_small_jpeg_ls_lossless.dcm", b"\xff\xf7", 5, b"\x75\x30\x75\x30"),
        ("SC_rgb_jpeg_dcmtk.dcm", b"\xff\xc0", 5, b"\xff\xff\xff\xff"),
    ],
)
def test_a_stream_that_claims_more_than_its_header_is_refused(file, mark, at, size):
    data = bytearray((PACKAGED / file).read_bytes())
    place = data.index(mark) + at
    data[place : place + len(size)] = size
    assert reason_of(bytes(data)) == TOO_MANY_PIXELS


def test_a_deflated_bomb_is_measured_not_inflated(monkeypatch):
    monkeypatch.setattr("medclip.data.dicom.MAX_PIXELS", 10**6)
    plain = (PACKAGED / "image_dfl.dcm").read_bytes()
    ds = pydicom.dcmread(PACKAGED / "image_dfl.dcm")
    start = 132 + 12 + ds.file_meta.FileMetaInformationGroupLength
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = b"".join(deflate.compress(bytes(10**6)) for _ in range(5)) + deflate.flush()
    assert len(bomb) < 10**5
    with pytest.raises(ImageError, match=TOO_MANY_PIXELS):  # in this process, which has the lower limit
        decode_frame(plain[:start] + bomb)


@pytest.mark.parametrize(
    "file", ["CT_small.dcm", "MR_small_RLE.dcm", "JPEG2000.dcm", "image_dfl.dcm", "SC_rgb_jpeg_gdcm.dcm"]
)
@given(share=st.floats(0, 0.9))
def test_a_truncated_file_is_refused(file, share):
    data = (PACKAGED / file).read_bytes()
    assert reason_of(data[: int(share * len(data))]) in ("image unreadable", NO_PIXELS)


@given(st.binary(max_size=300))
def test_noise_behind_a_preamble_is_refused(noise):
    assert reason_of(bytes(128) + b"DICM" + noise) in ("image unreadable", NO_PIXELS)


@given(st.integers(0, 2**32), st.sampled_from(["CT_small.dcm", "examples_palette.dcm", "MR_small_RLE.dcm"]))
def test_flipped_bytes_never_crash(seed, file):
    data = bytearray((PACKAGED / file).read_bytes())
    rng = np.random.default_rng(seed)
    for place in rng.integers(132, len(data), 20):
        data[place] = rng.integers(256)
    try:
        decode(bytes(data))
    except ImageError as error:
        assert str(error)


# --- with everything else


def test_a_dicom_file_is_stored_like_any_other_image(tmp_path):
    path = write_dicom(dicom(gray_ramp(300, 400)), tmp_path / "DOE^JANE.dcm")
    image, width, height = standardize(path, 150)
    assert (width, height) == (200, 150)
    assert image[:2] == b"\xff\xd8"
    row = next(prepare_rows([Pair("1", path, "CT of the chest", "train", "1")], PrepareConfig(shorter_side=150)))
    assert row["image"] == image


def test_a_dropped_frame_says_nothing_of_its_file(tmp_path):
    path = write_dicom(dicom(None), tmp_path / "DOE^JANE.dcm")
    dropped = next(
        prepare_rows([Pair("1", DicomFrame(path), "CT of the chest", "train", "1")], PrepareConfig(shorter_side=150))
    )
    assert (dropped.reason, dropped.detail) == (NO_PIXELS, "")
