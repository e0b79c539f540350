"""The errors that are part of the interface, and the reasons why an image cannot be used."""

MAX_PIXELS = 100_000_000  # a full mammogram has about 30 million; more is a decompression bomb
TOO_MANY_PIXELS = "image over 100 million pixels"
MAX_SIDE = 65_500  # what a JPEG can have
SIDE_TOO_LONG = "image over 65,500 pixels a side"
MAX_ASPECT_RATIO = 100  # a model's shorter side of 1,000 pixels then has at most MAX_PIXELS
STRIP = "image over 100 times as long as wide"
NO_FINITE_PIXELS = "no finite pixel values"
IS_FOLDER = "a folder, not an image file"
REMOTE = "image behind a URL, which is not fetched"


class UserError(Exception):
    """The request cannot be done as made (exit code 2). The message names the remedy."""


class WorkError(Exception):
    """The request was right and the work failed on the way (exit code 1)."""


class StoppedError(WorkError):
    """A signal ended the work, and what was done is saved."""

    def __init__(self, message: str, signal: int):
        super().__init__(message)
        self.signal = signal


class LockedError(WorkError):
    """Another process is writing a folder."""


def describe_error(error: Exception) -> str:
    """What went wrong, as a sentence; of the system's errors the file and the reason."""
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}."
    return str(error)


class ImageError(ValueError):
    """An image that cannot be used. The message is the reason under which it is counted."""
