"""DICOM files show what a viewer shows: gray values worked out by hand from PS3.3 C.11 and C.7.6.3.

The stored values of every case are 0, 25, 50, 75 and 100, unless the case has its own.
"""

import io

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom")

from pydicom.datadict import tag_for_keyword  # noqa: E402
from pydicom.dataelem import DataElement  # noqa: E402
from pydicom.pixels import apply_modality_lut, apply_voi_lut  # noqa: E402
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian  # noqa: E402

from medclip.data.dicom import NO_SYNTAX, TOO_LARGE_BARE, read_header  # noqa: E402
from medclip.data.images import decode, is_dicom  # noqa: E402
from medclip.errors import NO_FINITE_PIXELS, ImageError  # noqa: E402
from support.dicom_files import PACKAGED, dicom, dicom_bytes, gray_ramp, sequence, without_meta  # noqa: E402

RAMP = [0, 25, 50, 75, 100]
WHOLE = [0, 64, 128, 191, 255]  # 255 * value / 100
WINDOW = {"WindowCenter": 50, "WindowWidth": 51}
IN_WINDOW = [0, 3, 130, 255, 255]  # 255 * ((value - 49.5) / 50 + 0.5), C.11.2.1.2.1
IN_NARROW_WINDOW = [0, 0, 140, 255, 255]  # of width 11: 255 * ((50 - 49.5) / 10 + 0.5)
LUT_OF_4_BITS = [15, 12, 8, 4, 0]  # entries for 0, 1, 2, 3 and 4


def lut(entries, first=0, num_entries=None, bits=16, vr="US"):
    made = sequence()
    made[0].add_new("LUTDescriptor", "US", [len(entries) if num_entries is None else num_entries, first, bits])
    data = np.array(entries, np.uint16)
    made[0].add_new("LUTData", vr, data.tobytes() if vr == "OW" else data.tolist())
    return made


def lut_of_bytes(entries):
    made = sequence()
    made[0].add_new("LUTDescriptor", "US", [len(entries), 0, 8])
    made[0].add_new("LUTData", "OW", bytes(entries) + bytes(len(entries) % 2))
    return made


def empty_lut():
    made = sequence()
    made[0].add_new("LUTDescriptor", "US", None)
    made[0].add_new("LUTData", "OW", None)
    return made


CASES = {
    # --- the modality LUT, C.11.1
    "no attributes: the range": ({}, WHOLE),
    "a rescale": ({"RescaleSlope": 2, "RescaleIntercept": -50, **WINDOW}, [0, 0, 130, 255, 255]),
    "a negative slope": ({"RescaleSlope": -1, "RescaleIntercept": 100, **WINDOW}, IN_WINDOW[::-1]),
    "an empty slope is 1": ({"RescaleSlope": None, "RescaleIntercept": 25, **WINDOW}, [3, 130, 255, 255, 255]),
    "an empty intercept is 0": ({"RescaleSlope": 0.5, "RescaleIntercept": None, **WINDOW}, [0, 0, 3, 66, 130]),
    "an intercept alone": ({"RescaleIntercept": 25, **WINDOW}, [3, 130, 255, 255, 255]),
    "both empty": ({"RescaleSlope": None, "RescaleIntercept": None, **WINDOW}, IN_WINDOW),
    "a slope that is not a number": ({"RescaleSlope": "n/a", "RescaleIntercept": 0, **WINDOW}, IN_WINDOW),
    "a slope of 0": ({"RescaleSlope": 0, "RescaleIntercept": 0, **WINDOW}, IN_WINDOW),
    "an empty modality LUT": ({"ModalityLUTSequence": empty_lut(), **WINDOW}, IN_WINDOW),
    "an empty modality sequence": ({"ModalityLUTSequence": [], **WINDOW}, IN_WINDOW),
    "a short modality LUT": ({"ModalityLUTSequence": lut([7, 8], num_entries=101), **WINDOW}, IN_WINDOW),
    "a modality LUT": ({"ModalityLUTSequence": lut(list(range(200, 99, -1)))}, WHOLE[::-1]),
    "a modality LUT of 65,536 entries, written as 0": (
        {"ModalityLUTSequence": lut(list(range(65535, -1, -1)), num_entries=0, vr="OW")},
        WHOLE[::-1],
    ),
    # --- the VOI LUT, C.11.2
    "a window": (WINDOW, IN_WINDOW),
    "an empty window": ({"WindowCenter": None, "WindowWidth": None}, WHOLE),
    "a center alone": ({"WindowCenter": 50}, WHOLE),
    "a width of 0": ({"WindowCenter": 50, "WindowWidth": 0}, WHOLE),
    "exact, a width of 0": ({"WindowCenter": 50, "WindowWidth": 0, "VOILUTFunction": "LINEAR_EXACT"}, WHOLE),
    "two centers, one width": ({"WindowCenter": [50, 20], "WindowWidth": 51}, IN_WINDOW),
    "a width of 1 is a step": ({"WindowCenter": 50, "WindowWidth": 1}, [0, 0, 255, 255, 255]),
    "a width below 0": ({"WindowCenter": 50, "WindowWidth": -51}, WHOLE),
    "a decimal comma": ({"WindowCenter": "50,0", "WindowWidth": "51,0"}, WHOLE),
    "not a number": ({"WindowCenter": "NaN", "WindowWidth": "inf"}, WHOLE),
    "a leading empty value": ({"WindowCenter": "\\50", "WindowWidth": "\\51"}, IN_WINDOW),
    "a leading empty width": ({"WindowCenter": "50", "WindowWidth": "\\51"}, IN_WINDOW),
    "a first width of 0": ({"WindowCenter": [50, 50], "WindowWidth": [0, 51]}, IN_WINDOW),
    "two windows": ({"WindowCenter": [50, 50], "WindowWidth": [51, 11]}, IN_WINDOW),
    "a first window that is broken": ({"WindowCenter": ["x", "50"], "WindowWidth": ["51", "11"]}, IN_NARROW_WINDOW),
    "no function": ({**WINDOW, "VOILUTFunction": ""}, IN_WINDOW),
    "a function without meaning": ({**WINDOW, "VOILUTFunction": "CUBIC"}, IN_WINDOW),
    "exact": (  # (value - c) / w + 0.5
        {"WindowCenter": 50, "WindowWidth": 100, "VOILUTFunction": "LINEAR_EXACT"},
        WHOLE,
    ),
    "exact, narrower than 1": (
        {"WindowCenter": 50, "WindowWidth": 0.5, "VOILUTFunction": "LINEAR_EXACT"},
        [0, 0, 128, 255, 255],
    ),
    "sigmoid": (  # 1 / (1 + exp(-4 (value - c) / w))
        {"WindowCenter": 50, "WindowWidth": 100, "VOILUTFunction": "SIGMOID"},
        [30, 69, 128, 186, 225],
    ),
    "a VOI LUT before a window": ({"VOILUTSequence": lut(LUT_OF_4_BITS, bits=10), **WINDOW}, [255, 0, 0, 0, 0]),
    "a VOI LUT in words": ({"VOILUTSequence": lut(LUT_OF_4_BITS, bits=10, vr="OW")}, [255, 0, 0, 0, 0]),
    "a VOI LUT of 8 bits in words": ({"VOILUTSequence": lut_of_bytes(range(100, -1, -1))}, WHOLE[::-1]),
    "a VOI LUT from 98": ({"VOILUTSequence": lut(LUT_OF_4_BITS, first=98)}, [255, 255, 255, 255, 136]),
    "an empty VOI LUT beside a window": ({"VOILUTSequence": empty_lut(), **WINDOW}, IN_WINDOW),
    "an empty VOI item beside a window": ({"VOILUTSequence": sequence(), **WINDOW}, IN_WINDOW),
    "an empty VOI sequence": ({"VOILUTSequence": [], **WINDOW}, IN_WINDOW),
    "a short VOI LUT beside a window": ({"VOILUTSequence": lut([1, 2], num_entries=101), **WINDOW}, IN_WINDOW),
    "a short VOI LUT alone": ({"VOILUTSequence": lut([1, 2], num_entries=101, vr="OW")}, WHOLE),
    # --- presentation and padding
    "MONOCHROME1": ({**WINDOW, "PhotometricInterpretation": "MONOCHROME1"}, [255, 252, 125, 0, 0]),
    "MONOCHROME1, said twice": (
        {**WINDOW, "PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"},
        [255, 252, 125, 0, 0],
    ),
    "empty padding": ({"PixelPaddingValue": None}, WHOLE),
    "padding": ({"PixelPaddingValue": 100}, [0, 85, 170, 255, 0]),
    "a range of padding": ({"PixelPaddingValue": 100, "PixelPaddingRangeLimit": 75}, [0, 128, 255, 0, 0]),
}


def pixels_of(values, dtype=np.uint16):
    return np.tile(np.array(values, dtype), (2, 1))


def gray_row(data):
    return np.asarray(decode(data))[0].tolist()


def dataset_of(attributes, pixels):
    """A dataset whose windows and rescales are text as written, even where it is wrong."""
    texts = {keyword: value for keyword, value in attributes.items() if keyword.startswith(("Window", "Rescale"))}
    ds = dicom(pixels, **{"PixelPaddingValue": None, **attributes, **dict.fromkeys(texts)})
    for keyword, value in texts.items():
        text = "\\".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)
        ds[keyword] = DataElement(tag_for_keyword(keyword), "DS", text, already_converted=True)
    return ds


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize(("attributes", "expected"), CASES.values(), ids=CASES)
def test_gray_values_are_those_of_the_standard(attributes, expected, syntax):
    data = dicom_bytes(dataset_of(attributes, pixels_of(RAMP)), syntax)
    assert np.abs(np.subtract(gray_row(data), expected)).max() <= 1  # rounding at halves


# --- how pixels are stored


@pytest.mark.parametrize(("bits", "high"), [(12, 15), (12, 13), (10, 15), (8, 15), (12, 11), (16, 15)])
@pytest.mark.parametrize("is_signed", [False, True])
def test_bits_are_shifted_to_where_the_high_bit_says(bits, high, is_signed):
    values = np.array([-60, -10, 0, 40, 90] if is_signed else [0, 25, 50, 75, 150])
    noise = 0xFFFF & ~(((1 << bits) - 1) << (high + 1 - bits))  # bits that are not the pixel's, as overlays were
    words = ((values & ((1 << bits) - 1)) << (high + 1 - bits)) | noise
    ds = dicom(pixels_of(words), BitsStored=bits, HighBit=high, PixelRepresentation=int(is_signed))
    expected = np.rint(255 * (values - values[0]) / 150)
    assert gray_row(dicom_bytes(ds)) == expected.tolist()


PALETTE = [0, 10, 100, 200, 255]


@pytest.mark.parametrize(
    ("bits", "data"),
    [
        (8, np.array([*PALETTE, 0], np.uint8)),  # padded to an even length
        (16, np.array([*PALETTE, 0], np.uint8)),
        (16, np.array(PALETTE, np.uint16)),
        (16, np.array(PALETTE, np.uint16) * 257),
        (8, np.array(PALETTE, np.uint16)),
        (8, np.array(PALETTE, np.uint16) * 256),
        (16, np.array(PALETTE, np.uint16) * 256),
    ],
)
def test_a_palette_has_the_depth_of_its_entries(bits, data):
    ds = dicom(pixels_of([3, 4, 5, 6, 7], np.uint8), PhotometricInterpretation="PALETTE COLOR")
    for color in ("Red", "Green", "Blue"):
        ds.add_new(f"{color}PaletteColorLookupTableDescriptor", "US", [5, 3, bits])
        ds.add_new(f"{color}PaletteColorLookupTableData", "OW", data.tobytes())
    assert gray_row(dicom_bytes(ds)) == PALETTE


def test_a_palette_shorter_than_the_colors_used_is_refused():
    ds = dicom(pixels_of([0, 1, 2, 3, 4], np.uint8), PhotometricInterpretation="PALETTE COLOR")
    for color in ("Red", "Green", "Blue"):
        ds.add_new(f"{color}PaletteColorLookupTableDescriptor", "US", [5, 0, 16])
        ds.add_new(f"{color}PaletteColorLookupTableData", "OW", bytes(2))
    with pytest.raises(ImageError, match="image unreadable"):
        decode(dicom_bytes(ds))


def float_image(values):
    ds = dicom(pixels_of(RAMP), BitsAllocated=32)
    del ds.PixelData, ds.BitsStored, ds.HighBit, ds.PixelRepresentation
    ds.add_new("FloatPixelData", "OF", pixels_of(values, np.float32).tobytes())
    return dicom_bytes(ds)


def test_float_pixels_use_their_finite_range():
    assert gray_row(float_image([np.nan, -1, 0, 1, np.inf])) == [0, 0, 128, 255, 255]
    assert gray_row(float_image([2.5] * 5)) == [0] * 5
    with pytest.raises(ImageError, match=NO_FINITE_PIXELS):
        decode(float_image([np.nan] * 5))


# --- files without preamble or transfer syntax


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize(
    "strip",
    [
        without_meta,
        lambda data: data[132:],  # no preamble, but meta information
        lambda data: data[:132] + without_meta(data),  # a preamble, no meta information
        lambda data: data[:128] + b"DICM\2\0\0\0UL\4\0\0\0\0\0" + without_meta(data),  # an empty one
    ],
)
def test_a_file_without_preamble_or_transfer_syntax_is_read(strip, syntax):
    ds = dicom(pixels_of(RAMP), **WINDOW)
    ds.PixelData = pixels_of(RAMP).byteswap().tobytes() if syntax == ExplicitVRBigEndian else ds.PixelData
    data = strip(dicom_bytes(ds, syntax))
    assert is_dicom(data)
    assert np.abs(np.subtract(gray_row(data), IN_WINDOW)).max() <= 1


def test_a_file_without_preamble_that_is_too_large_to_copy_is_refused(monkeypatch):
    monkeypatch.setattr("medclip.data.dicom._MAX_BARE_BYTES", 100)
    with pytest.raises(ImageError, match=TOO_LARGE_BARE):
        read_header(io.BytesIO(without_meta((PACKAGED / "MR_small_RLE.dcm").read_bytes())))


@pytest.mark.parametrize("file", ["SC_rgb_jpeg_gdcm.dcm", "MR_small_RLE.dcm"])
def test_compressed_pixels_without_a_transfer_syntax_are_not_shown_as_noise(file):
    with pytest.raises(ImageError, match=NO_SYNTAX):
        decode(without_meta((PACKAGED / file).read_bytes()))


@pytest.mark.parametrize("data", [b"\x08\0\x05\0CS\x0a\0" + b"x" * 200, b"\x08\0\x18\0\x10\0\0\0" + bytes(200)])
def test_what_only_begins_like_a_dataset_is_refused(data):
    with pytest.raises(ImageError, match="image unreadable"):
        decode(data)


def test_padding_that_eight_bits_cannot_hold_masks_nothing():
    assert gray_row(dicom_bytes(dicom(pixels_of([0, 25, 50, 75, 255], np.uint8), PixelPaddingValue=65535)))[-1] == 255


# --- frames


def test_the_middle_frame_lies_in_the_middle_of_the_patient():
    order = [40, 0, 20, 10, 30]
    frames = np.stack([pixels_of([0, 0, 0, 0, 100 + z]) for z in order])
    frames[..., 0, 0] = 255
    groups = [sequence(PlanePositionSequence=sequence(ImagePositionPatient=[0, 0, z]))[0] for z in order]
    orientation = sequence(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    ds = dicom(frames, PerFrameFunctionalGroupsSequence=groups)
    ds.SharedFunctionalGroupsSequence = sequence(PlaneOrientationSequence=orientation)
    assert gray_row(dicom_bytes(ds)) == [255, 0, 0, 0, 120]


# --- against pydicom


@pytest.mark.parametrize("file", ["CT_small.dcm", "MR_small.dcm", "examples_overlay.dcm"])
def test_gray_values_are_those_of_pydicom(file):
    path = PACKAGED / file
    ds = pydicom.dcmread(path)
    shown = apply_voi_lut(apply_modality_lut(ds.pixel_array, ds), ds).astype(float)
    if "WindowCenter" not in ds and "VOILUTSequence" not in ds:
        low, high = shown.min(), shown.max()
    else:
        low, high = apply_voi_lut(np.array([-1e12, 1e12]), ds)
    expected = 255 * ((shown - low) / (high - low)).clip(0, 1)
    assert np.abs(np.asarray(decode(path)) - expected).max() <= 1


def test_big_endian_tables_are_read_in_their_order():
    ds = dicom(pixels_of(RAMP), VOILUTSequence=lut([0, 300, 1020], first=25))
    ds.PixelData = pixels_of(RAMP).byteswap().tobytes()
    assert gray_row(dicom_bytes(ds, ExplicitVRBigEndian)) == [0, 0, 255, 255, 255]


@pytest.mark.parametrize(
    ("attributes", "size"),
    [
        ({"PixelSpacing": [2.0, 1.0]}, (32, 80)),
        ({"PixelSpacing": [0.5, 1.0]}, (64, 40)),
        ({"PixelAspectRatio": ["1", "2"]}, (64, 40)),
        ({"PixelSpacing": [1, 1], "PixelAspectRatio": ["1", "2"]}, (32, 40)),
        ({"ImagerPixelSpacing": [0.3, 0.15]}, (32, 80)),
        ({"SharedFunctionalGroupsSequence": sequence(PixelMeasuresSequence=sequence(PixelSpacing=[2, 1]))}, (32, 80)),
        ({"PixelSpacing": [0.7001, 0.7]}, (32, 40)),
        ({"PixelSpacing": [0, 1]}, (32, 40)),
        ({"PixelSpacing": "1"}, (32, 40)),
        ({"PixelSpacing": [1000, 1]}, (32, 40)),
    ],
)
def test_pixels_are_shown_square(attributes, size):
    assert decode(dicom_bytes(dicom(gray_ramp(), **attributes))).size == size
