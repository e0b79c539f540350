"""Images arrive upright, in their own colors, never enlarged, with nothing said about whose they are."""

import io
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from medclip.data.images import decode, standardize
from medclip.errors import ImageError
from support.material import draw_image, image_bytes


def gradient(width=64, height=48):
    return np.tile(np.linspace(0, 255, width).astype(np.uint8), (height, 1))


def color():
    ramp = gradient()
    return Image.fromarray(np.stack([ramp, 255 - ramp, ramp // 2], axis=-1))


def decode_file(image, kind="PNG", **options):
    return decode(image_bytes(image, kind, **options))


def png_of_size(width, height):
    """A PNG that claims a size and holds no pixels."""
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 0, 0, 0, 0])
    chunk = len(header).to_bytes(4, "big") + b"IHDR" + header + zlib.crc32(b"IHDR" + header).to_bytes(4, "big")
    empty = b"\0\0\0\0IDAT" + zlib.crc32(b"IDAT").to_bytes(4, "big")
    return b"\x89PNG\r\n\x1a\n" + chunk + empty


def test_gray_stays_gray():
    image = decode_file(Image.fromarray(gradient()))
    assert image.mode == "L"
    assert np.array_equal(np.asarray(image), gradient())


def test_color_with_equal_channels_becomes_gray():
    image = decode_file(Image.fromarray(gradient()).convert("RGB"))
    assert image.mode == "L"
    assert np.array_equal(np.asarray(image), gradient())


def test_color_stays_color():
    assert np.array_equal(np.asarray(decode_file(color())), np.asarray(color()))


def test_sixteen_bits_use_the_whole_range():
    narrow = gradient().astype(np.uint16) * 16 + 1000  # 12-bit values on an offset, as scanners give
    image = decode_file(Image.fromarray(narrow))
    assert image.mode == "L"
    assert np.abs(np.asarray(image).astype(int) - gradient()).max() <= 1  # rounding


def test_an_even_sixteen_bit_image_is_black():
    assert decode_file(Image.fromarray(np.full((8, 8), 700, np.uint16))).getextrema() == (0, 0)


def test_a_palette_gives_its_colors():
    wanted = color().quantize(64)
    assert np.array_equal(np.asarray(decode_file(wanted)), np.asarray(wanted.convert("RGB")))


def test_cmyk_becomes_rgb():
    red = decode_file(Image.new("RGB", (32, 32), (200, 10, 10)).convert("CMYK"), "JPEG", quality=95)
    assert red.mode == "RGB"
    assert np.abs(np.asarray(red).mean((0, 1)) - (200, 10, 10)).max() < 3  # JPEG


def test_what_is_transparent_is_black():
    image = Image.new("LA", (16, 16), (255, 255))
    image.paste((255, 0), (0, 0, 8, 16))
    levels = np.asarray(decode_file(image))
    assert (levels[:, :8] == 0).all()
    assert (levels[:, 8:] == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(orientation):
    stored = Image.fromarray(gradient())
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: np.transpose,
        6: lambda a: np.rot90(a, -1),
        7: lambda a: np.rot90(a, 2).T,
        8: np.rot90,
    }[orientation](gradient())
    assert np.array_equal(np.asarray(decode_file(stored, exif=exif.tobytes())), upright)


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", image_bytes(draw_image(1))[:300], png_of_size(64, 64)])
def test_what_cannot_be_read_is_named(content):
    with pytest.raises(ImageError, match=r"^image unreadable$"):
        decode(content)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ImageError, match=r"^image missing$"):
        decode(tmp_path / "absent.jpg")


@pytest.mark.parametrize("image", ["https://example.org/1.png", Path("s3://bucket/1.png")])
def test_an_image_behind_a_url_is_named_as_one(image):
    with pytest.raises(ImageError, match=r"^image behind a URL, which is not fetched$"):
        decode(image)


@pytest.mark.parametrize("side", [10_001, 20_000])
def test_a_bomb_is_refused_before_it_is_decoded(side):
    with pytest.raises(ImageError, match=r"^image over 100 million pixels$"):
        decode(png_of_size(side, side))


def test_a_line_is_refused_where_no_jpeg_could_hold_it():
    with pytest.raises(ImageError, match=r"^image over 65,500 pixels a side$"):
        standardize(png_of_size(65_501, 10), 256)
    assert decode(image_bytes(Image.new("L", (65_500, 1)), "PNG")).size == (65_500, 1)


@pytest.mark.parametrize(("size", "is_strip"), [((2, 60000), True), ((1010, 10), True), ((1000, 10), False)])
def test_a_strip_is_refused_before_training(size, is_strip):
    strip = Image.new("L", size)
    if is_strip:
        with pytest.raises(ImageError, match=r"^image over 100 times as long as wide$"):
            standardize(strip, 224)
    else:
        assert standardize(strip, 224)[1:] == size


@given(st.data())
def test_damage_is_an_image_error_or_an_image_never_a_crash(data):
    kind = data.draw(st.sampled_from(("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP")))
    content = bytearray(image_bytes(color(), kind))
    for position in data.draw(st.lists(st.integers(0, min(len(content), 400) - 1), min_size=1, max_size=8)):
        content[position] = data.draw(st.integers(0, 255))
    try:
        assert decode(bytes(content)).mode in ("L", "RGB")
    except ImageError as error:
        assert str(error).startswith("image ")


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 60))
def test_standardize_bounds_the_shorter_side_and_never_enlarges(width, height, side):
    content, new_width, new_height = standardize(image_bytes(Image.new("L", (width, height)), "PNG"), side)
    assert Image.open(io.BytesIO(content)).size == (new_width, new_height)
    assert min(new_width, new_height) == min(width, height, side)
    assert new_width <= width
    assert new_height <= height
    shrink = min(width, height) / min(new_width, new_height)
    assert abs(new_width - width / shrink) <= 0.5  # whole pixels
    assert abs(new_height - height / shrink) <= 0.5


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_standardize_leaves_nothing_but_pixels(kind):
    exif = Image.Exif()
    exif[0x010E] = "SECRET name"
    options = {"exif": exif.tobytes(), "icc_profile": b"SECRET profile"}
    if kind == "JPEG":
        options["comment"] = b"SECRET comment"
    else:
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_text("Patient", "SECRET")
    file = image_bytes(color(), kind, **options)
    assert b"SECRET" in file
    assert decode(file).info == {}
    content, *_ = standardize(file, 256)
    assert b"SECRET" not in content
    assert set(Image.open(io.BytesIO(content)).info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}


def test_standardize_keeps_gray_in_one_channel():
    content, *_ = standardize(image_bytes(Image.fromarray(gradient()).convert("RGB"), "PNG"), 256)
    assert Image.open(io.BytesIO(content)).mode == "L"


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA"])
def test_an_image_in_memory_stays_as_it_is(mode):
    image = Image.new(mode, (40, 30))
    image.info |= {"comment": b"of its owner", "dpi": (72, 72)}
    before = image.copy()
    content, *_ = standardize(image, 20)
    assert b"owner" not in content
    assert image.info == before.info and image == before


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3), (5, 7, 4)])
def test_pixels_in_memory_are_decoded_as_their_file(shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    image = Image.fromarray(pixels[..., 0] if shape[2:] == (1,) else pixels)
    expected = decode_file(image)
    for given_image in (pixels, image):
        actual = decode(given_image)
        assert actual.mode == expected.mode and np.array_equal(actual, expected)


def test_a_path_may_be_a_string(tmp_path):
    (tmp_path / "x.png").write_bytes(image_bytes(draw_image(1), "PNG"))
    assert np.array_equal(decode(str(tmp_path / "x.png")), decode(tmp_path / "x.png"))
    with pytest.raises(ImageError, match="image missing"):
        decode(str(tmp_path / "y.png"))


@pytest.mark.parametrize(
    "pixels",
    [np.zeros((5, 7), np.float32), np.zeros((3, 5, 7), np.uint8), np.zeros(5, np.uint8), np.zeros((0, 7), np.uint8)],
)
def test_an_array_that_is_not_an_image_is_named_by_type_and_shape(pixels):
    with pytest.raises(ImageError, match=f"array of {pixels.dtype}"):
        decode(pixels)


def test_an_image_opened_but_not_loaded_may_stand_in_several_threads(tmp_path):
    (tmp_path / "x.png").write_bytes(image_bytes(draw_image(1), "PNG"))
    expected = np.asarray(decode(tmp_path / "x.png"))
    with Image.open(tmp_path / "x.png") as image, ThreadPoolExecutor(8) as threads:
        assert all(np.array_equal(each, expected) for each in threads.map(decode, [image] * 64))


def tiff_of(values, photometric):
    """A TIFF as its specification 6.0 has it: one strip, little endian, gray values of the array's type."""
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    entries = [(256, 4, values.shape[1]), (257, 4, values.shape[0]), (258, 3, values.itemsize * 8), (259, 3, 1)]
    entries += [(262, 3, photometric), (273, 4, 8 + 2 + 12 * 10 + 4), (277, 3, 1), (278, 4, values.shape[0])]
    entries += [(279, 4, values.nbytes), (339, 3, kind)]
    directory = b"".join(struct.pack("<HHII", tag, type, 1, value) for tag, type, value in entries)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + directory + bytes(4) + values.tobytes()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_tiff_whose_white_is_zero_is_inverted(dtype):
    values = np.tile(np.array([0, 51, 102, 255], dtype), (3, 1))
    assert np.array_equal(np.asarray(decode(tiff_of(values, 1)))[0], [0, 51, 102, 255])
    assert np.array_equal(np.asarray(decode(tiff_of(values, 0)))[0], [255, 204, 153, 0])


@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_a_constant_image_is_black(dtype, photometric):
    assert decode(tiff_of(np.full((4, 4), 7, dtype), photometric)).getextrema() == (0, 0)


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([np.nan, 1, 2, 3, 2], [0, 0, 128, 255, 128]),
        ([np.inf, 1, 2, 3, -np.inf], [255, 0, 128, 255, 0]),
        ([np.nan, 5, 5, 5, np.inf], [0, 0, 0, 0, 0]),
        ([-3e38, 0, 3e38, 3e38, np.nan], [0, 128, 255, 255, 0]),
    ],
)
def test_floats_use_their_finite_range(values, wanted):
    image = decode(tiff_of(np.array([values], np.float32), 1))
    assert np.asarray(image)[0].tolist() == wanted


def test_floats_without_a_finite_value_are_refused():
    with pytest.raises(ImageError, match=r"^no finite pixel values$"):
        decode(tiff_of(np.full((4, 4), np.nan, np.float32), 1))
