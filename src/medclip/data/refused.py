"""Why a picture cannot be used."""

MAX_PIXELS = 100_000_000  # a full mammogram has about 30 million; more is a decompression bomb
TOO_LARGE = "image over 100 million pixels"


class ImageError(ValueError):
    """A picture that cannot be used; its message is the reason under which it is counted."""
