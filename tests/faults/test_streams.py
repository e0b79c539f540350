"""Standard output that is closed, full or no longer read: a sentence, or silence, and never a traceback."""

import subprocess

import pytest

from support.faults import COMMAND


def shell(line, *arguments):
    """A line of sh in which "$@" is a command: exit code, standard output and error."""
    words = ["sh", "-c", line, "sh", *COMMAND, *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('"$@" >&-', (0, "", "")),
        ('"$@" <&- >&- 2>&-', (0, "", "")),
        ('"$@" >/dev/full', (1, "", "medclip: standard output: No space left on device.\n")),
        ('PYTHONUNBUFFERED=1 "$@" >/dev/full', (1, "", "medclip: standard output: No space left on device.\n")),
        ('{ "$@"; echo $? >&2; } | true', (0, "", "1\n")),
    ],
)
@pytest.mark.parametrize("words", [["info", "DATA"], ["info", "--help"], ["--help"]], ids=" ".join)
def test_where_nobody_hears_the_result(line, expected, words, data):
    assert shell(line, *(data if word == "DATA" else word for word in words)) == expected
