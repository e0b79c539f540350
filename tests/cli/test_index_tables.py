"""The table of a search's hits, in the width of a usual terminal."""

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from medclip.cli.index_tables import result_tables

CAPTION = "Axial CT of the chest in a patient with cough shows a mass of the left upper lobe."


def table_of(*hits, probabilities=None):
    shown = [SimpleNamespace(score=0.5, id=id, article=article, caption=CAPTION) for id, article in hits]
    result = SimpleNamespace(hits=shown, probabilities=probabilities, note="")
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(next(iter(result_tables([("", result)], "none"))))
    return console.export_text()


@pytest.mark.parametrize(
    ("hits", "probabilities", "columns"),
    [
        ([("ROCO_00001", "PMC1")], (0.25,), ["score", "right so far", "caption", "id", "article"]),
        ([("PHANTOM_1", "PHANTOM_1")], None, ["score", "caption", "id"]),
    ],
)
def test_columns_that_say_nothing_are_left_out(hits, probabilities, columns):
    header = table_of(*hits, probabilities=probabilities).splitlines()[1]
    assert [cell.strip() for cell in header.strip("┃").split("┃")] == columns


def test_the_caption_has_the_width_whatever_the_ids_are():
    text = table_of(("images/of/one/folder/with_a_long_name_0001.jpg", "7bdd520524964792"))
    row = text.splitlines()[3].strip("│").split("│")
    assert max(map(len, row)) == len(row[1]) >= 25
