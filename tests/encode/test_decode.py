"""The decode stream gives every image once, in order, in batches; what cannot be read stops it where it stands."""

import threading

import numpy as np
import pytest

from medclip.data.images import decode_ahead
from medclip.encode.decode import decode_pixels, fill_pixels, pixel_batches
from medclip.errors import ImageError
from medclip.model.image_processor import square_image_processor
from support.material import draw_image, image_bytes

FILES = [image_bytes(draw_image(n), "PNG") for n in range(10)]
SQUARE = square_image_processor(16)


def read_pixels(image):
    return decode_pixels(image, SQUARE)


def test_batches_hold_the_images_in_order_and_the_last_is_shorter():
    batches = list(pixel_batches(iter(FILES), read_pixels, 4))
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert np.array_equal(np.concatenate(batches), np.stack([read_pixels(image) for image in FILES]))


def test_no_images_are_no_batches():
    assert list(pixel_batches([], read_pixels, 4)) == []


def test_paths_are_read_as_bytes_are(tmp_path):
    (tmp_path / "a.png").write_bytes(FILES[3])
    (batch,) = pixel_batches([tmp_path / "a.png"], read_pixels)
    assert np.array_equal(batch[0], read_pixels(FILES[3]))


def test_an_image_that_cannot_be_read_stops_the_stream_at_its_batch():
    stream = pixel_batches([*FILES[:4], b"no image", *FILES[4:]], read_pixels, 2)
    assert [len(next(stream)), len(next(stream))] == [2, 2]
    with pytest.raises(ImageError, match="image unreadable"):
        next(stream)


def test_a_caller_may_go_on_past_what_cannot_be_read():
    def shape_or_reason(image):
        try:
            return read_pixels(image).shape
        except ImageError as error:
            return str(error)

    batches = list(decode_ahead(shape_or_reason, [FILES[0], b"no image", FILES[1]], 2))
    assert batches == [[(16, 16, 3), "image unreadable"], [(16, 16, 3)]]


def test_the_next_batch_is_decoded_while_one_is_used():
    started = threading.Event()

    def decode(number):
        if number == 2:
            started.set()
        return number

    stream = decode_ahead(decode, range(6), 2)
    assert next(stream) == [0, 1]
    assert started.wait(60)  # though nothing more was drawn


def test_images_are_drawn_no_further_than_the_next_batch():
    drawn_so_far = []
    stream = decode_ahead(lambda n: n, (drawn_so_far.append(n) or n for n in range(100)), 3)
    next(stream)
    assert drawn_so_far == [0, 1, 2, 3, 4, 5]


def test_an_array_is_filled_and_no_further():
    pixels = np.zeros((3, 16, 16, 3), np.uint8)
    steps = []
    assert fill_pixels(pixels, iter(FILES), read_pixels, steps.append) is pixels
    assert np.array_equal(pixels, np.stack([read_pixels(image) for image in FILES[:3]]))
    assert steps == [3]
