"""Why an image cannot be used."""

MAX_PIXELS = 100_000_000  # a full mammogram has about 30 million; more is a decompression bomb
TOO_LARGE = "image over 100 million pixels"
MAX_SIDE = 65_500  # what a JPEG can have
TOO_LONG = "image over 65,500 pixels a side"


class ImageError(ValueError):
    """An image that cannot be used; its message is the reason under which it is counted."""
