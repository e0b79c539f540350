"""Folders are walked in the order of their paths, one at a time."""

import pytest

from medclip.data.prepare import prepare
from medclip.data.schema import Dropped, Pair
from medclip.data.sources.detect import open_source
from medclip.data.sources.image_caption_folder import list_images
from support.material import draw_image, image_bytes


def test_images_come_in_the_order_of_their_paths(tmp_path):
    for place in ("b/2.png", "a.b/1.png", "a/9.png", "a.png", "a/b/1.png", "A.PNG", "a-b/3.png", "c.txt", "b.png"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_bytes(b"")
    (tmp_path / "z").symlink_to(tmp_path)
    wanted = sorted(path for path in tmp_path.rglob("*") if path.suffix.lower() == ".png" and "z" not in path.parts)
    assert list(list_images(tmp_path)) == wanted


def write_files(folder, names):
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() == ".txt":
            path.write_text(f"CT of the chest, {name}", encoding="utf-8")
        else:
            path.write_bytes(image_bytes(draw_image(number), "PNG"))


@pytest.mark.parametrize(
    ("image", "caption"),
    [
        ("x.png", "x.TXT"),
        ("X.PNG", "x.txt"),
        ("1.2.840.5.png", "1.2.840.5.txt"),
        ("x.png", "x.png.txt"),
        ("Müller.png", "Mu\u0308ller.txt"),
        *((f"x{suffix}", "x.txt") for suffix in (".jp2", ".avif", ".pgm", ".ppm", ".jfif", ".tga", ".pcx")),
    ],
)
def test_a_caption_is_found_however_it_is_written(tmp_path, image, caption):
    write_files(tmp_path, [image, caption])
    (pair,) = open_source(str(tmp_path))
    assert (pair.image.name, pair.caption) == (image, f"CT of the chest, {caption}")


def test_the_caption_of_the_very_name_goes_first(tmp_path):
    write_files(tmp_path, ["x.png", "X.txt", "x.txt", "X.png"])
    assert {(p.image.name, p.caption[-5:]) for p in open_source(str(tmp_path))} == {
        ("x.png", "x.txt"),
        ("X.png", "X.txt"),
    }


@pytest.mark.parametrize(
    ("kind", "suffix"), [("JPEG2000", ".jp2"), ("AVIF", ".avif"), ("PPM", ".pgm"), ("TGA", ".tga"), ("PCX", ".pcx")]
)
def test_every_kind_of_image_is_prepared(tmp_path, kind, suffix):
    (tmp_path / "site").mkdir()
    draw_image(3).convert("L").save(tmp_path / "site" / f"x{suffix}", kind)
    (tmp_path / "site" / "x.txt").write_text("CT of the chest")
    dataset = prepare(str(tmp_path / "site"), tmp_path / "data", num_workers=1)
    assert sum(split["pairs"] for split in dataset["splits"].values()) == 1


def test_files_that_are_not_used_are_counted(tmp_path):
    write_files(tmp_path, ["a/1.png", "a/1.txt", "a/2.png", "a/3.txt"])
    (tmp_path / "README.md").write_text("read me")
    (tmp_path / "a" / "scan.psd").write_bytes(b"8BPS")
    (tmp_path / "a" / "4.png").symlink_to(tmp_path / "absent.png")
    (tmp_path / "z").symlink_to(tmp_path / "a")
    rows = {row.id: row for row in open_source(str(tmp_path))}
    assert {id: row.reason for id, row in rows.items() if isinstance(row, Dropped)} == {
        "a/2": "no caption beside the image",
        "a/3.txt": "caption without image",
        "README.md": "file of a kind that is not read: .md",
        "a/scan.psd": "file of a kind that is not read: .psd",
        "a/4.png": "link to a file that is absent: .png",
        "z": "link to a folder, which is not followed",
    }
    assert len(rows) == 7


def test_a_file_that_is_not_used_makes_no_split(tmp_path):
    write_files(tmp_path, ["test/1.png", "test/1.txt", "zz.txt", "test/notes.pdf"])
    assert {row.split for row in open_source(str(tmp_path))} == {"test"}


def test_images_without_any_caption_are_counted(tmp_path, medclip):
    write_files(tmp_path, ["site/1.png", "site/2.png"])
    code, out, err = medclip("prepare", tmp_path / "site", "--out", tmp_path / "data")
    assert code == 1 and "2 × no caption beside the image" in " ".join((out + err).split())


def test_figures_of_an_article_are_one_group(tmp_path):
    write_files(tmp_path, ["PMC1_Fig1_0.png", "PMC1_Fig1_0.txt", "PMC1_Fig1_1.png", "PMC1_Fig1_1.txt"])
    assert [row.article for row in open_source(str(tmp_path))] == ["PMC1", "PMC1"]


def test_a_folder_called_dicomweb_is_no_server(tmp_path, monkeypatch):
    write_files(tmp_path / "dicomweb", ["x.png", "x.txt"])
    monkeypatch.chdir(tmp_path)
    (pair,) = open_source("dicomweb")
    assert pair.caption == "CT of the chest, x.txt"


@pytest.mark.parametrize(
    ("prefix", "splits"),
    [("images", {""}), ("unpacked/images", {""}), ("set", {"train", "test"}), ("", {"train/images", "test/images"})],
)
def test_the_one_folder_that_holds_all_images_is_no_group(tmp_path, prefix, splits):
    names = [f"{prefix}/{split}/{number}".replace("//", "/").lstrip("/") for split in splits for number in range(3)]
    write_files(tmp_path, [f"{name}{suffix}" for name in names for suffix in (".png", ".txt")])
    write_files(tmp_path, ["docs/notes.txt"])
    rows = [row for row in open_source(str(tmp_path)) if isinstance(row, Pair)]
    assert {row.id: row.article for row in rows} == {name: name for name in names}
    assert splits == {""} or all(f"{row.split}/" in row.id for row in rows)


def test_folders_below_the_one_that_holds_all_are_groups(tmp_path):
    names = ["images/ann/1", "images/ann/2", "images/bob/1"]
    write_files(tmp_path, [f"{name}{suffix}" for name in names for suffix in (".png", ".txt")])
    assert [row.article for row in open_source(str(tmp_path))] == ["ann", "ann", "bob"]
