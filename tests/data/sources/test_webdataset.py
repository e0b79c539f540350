"""Every member of an archive is in a pair or counted, in whatever order and under whatever name it comes."""

import gzip
import json
import tarfile

import pytest

from medclip.data.prepare import drop_repeated_ids
from medclip.data.schema import Dropped, Pair, is_made_up
from medclip.data.sources import webdataset as module
from medclip.data.sources.detect import open_source
from medclip.errors import UserError
from support.archives import tar_bytes, zip_bytes
from support.material import draw_image, image_bytes

IMAGES = [image_bytes(draw_image(number), "PNG") for number in range(8)]


def write_tar(path, members):
    path.write_bytes(tar_bytes(members))
    return str(path)


def read(path, members):
    rows = list(open_source(write_tar(path, members)))
    pairs = [(row.id, row.caption) for row in rows if isinstance(row, Pair)]
    return pairs, [(row.id, row.reason) for row in rows if isinstance(row, Dropped)]


@pytest.mark.parametrize("key", ["1.2.840.5", "d.1/1.2", "scan", "a.b", "x.v2"])
def test_names_may_hold_dots(tmp_path, key):
    pairs, dropped = read(tmp_path / "x.tar", [(f"{key}.png", IMAGES[0]), (f"{key}.TXT", b"CT of the chest")])
    assert (pairs, dropped) == ([(key, "CT of the chest")], [])


def test_dotted_names_of_one_beginning_are_samples_of_their_own(tmp_path):
    names = ("1.2.840.5", "1.2.840.6")
    members = [(f"{name}{end}", data) for name in names for end, data in ((".png", IMAGES[0]), (".txt", name.encode()))]
    assert read(tmp_path / "x.tar", members) == ([(name, name) for name in names], [])


def test_a_second_extension_is_said(tmp_path):
    members = [("x.input.jpg", IMAGES[0]), ("x.txt", b"CT of the chest")]
    pairs, dropped = read(tmp_path / "x.tar", members)
    assert not pairs
    assert dropped == [("x.input", module.SECOND_EXTENSION), ("x", module.INCOMPLETE)]


def test_images_first_and_captions_later_are_paired(tmp_path):
    members = [(f"s{n}.png", IMAGES[n]) for n in range(4)] + [(f"s{n}.txt", b"CT %d" % n) for n in range(4)]
    assert read(tmp_path / "x.tar", members) == ([(f"s{n}", f"CT {n}") for n in range(4)], [])
    assert read(tmp_path / "y.tar", members[::-1]) == ([(f"s{n}", f"CT {n}") for n in reversed(range(4))], [])


@pytest.mark.parametrize("limit", [{"WINDOW_SAMPLES": 3}, {"WINDOW_BYTES": 3 * len(IMAGES[0])}])
def test_beyond_the_window_the_remedy_is_said(tmp_path, monkeypatch, limit):
    for name, value in limit.items():
        monkeypatch.setattr(module, name, value)
    members = [(f"s{n}.png", IMAGES[0]) for n in range(6)] + [(f"s{n}.txt", b"CT") for n in range(6)]
    pairs, dropped = read(tmp_path / "x.tar", members)
    assert any("tar --sort=name" in reason for _, reason in dropped)
    ids = {id for id, _ in pairs} | {id for id, _ in dropped}
    assert ids == {f"s{n}" for n in range(6)}


def test_the_same_name_twice_is_counted(tmp_path):
    members = [("a.png", IMAGES[0]), ("a.png", IMAGES[1]), ("a.txt", b"CT"), ("b.png", IMAGES[2]), ("b.txt", b"MRI")]
    members.append(("a.txt", b"PET"))  # after its sample has passed
    rows = list(open_source(write_tar(tmp_path / "x.tar", members)))
    assert [(row.id, row.image, row.caption) for row in rows if isinstance(row, Pair)] == [
        ("a", IMAGES[0], "CT"),
        ("b", IMAGES[2], "MRI"),
    ]
    assert [(row.id, row.reason) for row in rows if isinstance(row, Dropped)] == [
        ("a.png", module.SAME_NAME),
        ("a.txt", module.SAME_NAME),
    ]


def test_members_that_are_not_used_are_counted(tmp_path):
    members = [
        ("a.png", IMAGES[0]),
        ("a.jpg", IMAGES[1]),
        ("a.cls", b"3"),
        ("a.txt", b"CT"),
        ("b.png", tarfile.SYMTYPE[0]),
        ("c.png", tarfile.LNKTYPE[0]),
        ("d.png", tarfile.CHRTYPE[0]),
        ("folder", tarfile.DIRTYPE[0]),
        ("README", b"read me"),
    ]
    pairs, dropped = read(tmp_path / "x.tar", members)
    assert pairs == [("a", "CT")]
    assert dropped == [
        ("a.jpg", module.SECOND_IMAGE),
        ("a.cls", f"{module.UNKNOWN_KIND}: .cls"),
        ("b.png", module.NOT_A_FILE),
        ("c.png", module.NOT_A_FILE),
        ("d.png", module.NOT_A_FILE),
        ("README", f"{module.UNKNOWN_KIND}: no suffix"),
    ]


@pytest.mark.parametrize("names", [("000000", "000001"), ("sample_0", "sample_1")])
def test_shards_that_count_anew_lose_nothing(tmp_path, names):
    for shard in range(3):
        members = [(f"{name}.{kind}", IMAGES[shard] if kind == "png" else f"CT {shard} {name}".encode())
                   for name in names for kind in ("png", "txt")]  # fmt: skip
        write_tar(tmp_path / f"{shard:05}.tar", members)
    rows = list(drop_repeated_ids(open_source(str(tmp_path))))
    assert len({row.id for row in rows if isinstance(row, Pair)}) == 6
    assert len({row.caption for row in rows}) == 6 and len({row.article for row in rows}) == 6
    assert sum(is_made_up(row.id) for row in rows) == (6 if names[0].isdecimal() else 4)


def test_subfigures_of_an_article_are_one_group(tmp_path):
    members = [
        (f"PMC7_Fig1_{n}.{kind}", IMAGES[n] if kind == "png" else b"CT") for n in range(3) for kind in ("png", "txt")
    ]
    assert {row.article for row in open_source(write_tar(tmp_path / "x.tar", members))} == {"PMC7"}


def test_a_list_of_captions_is_a_pair_each(tmp_path):
    members = [("a.png", IMAGES[0]), ("a.json", json.dumps({"caption": ["CT", "", "MRI"]}).encode())]
    assert read(tmp_path / "x.tar", members) == ([("a-0", "CT"), ("a-1", "MRI")], [])


def test_files_beside_the_archives_are_counted(tmp_path):
    write_tar(tmp_path / "x.tar", [("a.png", IMAGES[0]), ("a.txt", b"CT")])
    (tmp_path / "1.png").write_bytes(IMAGES[1])
    (tmp_path / "1.txt").write_text("MRI")
    rows = list(open_source(str(tmp_path)))
    assert [row.id for row in rows] == ["a", "1.png", "1.txt"] and all(isinstance(row, Dropped) for row in rows[1:])


def write_zip(path, members):
    path.write_bytes(zip_bytes(members))
    return str(path)


def test_a_zip_is_read_as_an_archive(tmp_path):
    members = [
        ("s/1.2.5.png", IMAGES[0]),
        ("s/2.png", IMAGES[1]),
        ("s/1.2.5.TXT", b"CT"),
        ("s/x.cls", b"3"),
        ("s/1.2.5.a.png", IMAGES[2]),
    ]
    rows = list(open_source(write_zip(tmp_path / "x.zip", members)))
    assert [(row.id, row.caption, row.image) for row in rows if isinstance(row, Pair)] == [("s/1.2.5", "CT", IMAGES[0])]
    assert [(row.id, row.reason) for row in rows if isinstance(row, Dropped)] == [
        ("s/1.2.5.a", module.SECOND_EXTENSION),
        ("s/2", "sample without image or caption"),
        ("s/x.cls", f"{module.UNKNOWN_KIND}: .cls"),
    ]


@pytest.mark.parametrize(("members", "message"), [([("a/x.csv", b"image,caption")], "Unpack a/x.csv beside"), ([], "")])
def test_a_zip_that_is_no_archive_of_samples_says_why(tmp_path, members, message):
    path = write_zip(tmp_path / "x.zip", members)
    if not members:
        (tmp_path / "x.zip").write_bytes(b"PK\3\4 and no more")
    with pytest.raises(UserError, match=message or "is damaged"):
        list(open_source(path))


def header(kind, size, byte_482=0):
    """A header of a member, and the content that it claims."""
    member = tarfile.TarInfo("x")
    member.type, member.size = kind, size
    block = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    block[482] = byte_482
    block[148:156] = b"%06o\0 " % tarfile.calc_chksums(bytes(block))[0]
    return bytes(block) + bytes(size + -size % 512)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_headers_that_unpack_to_more_than_the_memory_are_refused(tmp_path, kind):
    samples = tar_bytes([("a.png", image_bytes(draw_image(0))), ("a.txt", b"CT of the chest")])
    (tmp_path / "x.tar.gz").write_bytes(gzip.compress(header(kind, 2**20 + 1) + samples))
    with pytest.raises(UserError, match="a member has headers of more than 1 MiB"):
        list(open_source(str(tmp_path / "x.tar.gz")))


def test_a_map_of_holes_without_end_is_refused(tmp_path):
    (tmp_path / "x.tar.gz").write_bytes(gzip.compress(header(tarfile.GNUTYPE_SPARSE, 0, byte_482=1)))
    with pytest.raises(UserError, match="or many holes"):
        list(open_source(str(tmp_path / "x.tar.gz")))


def test_a_map_of_holes_in_the_data_is_not_read(tmp_path):
    """A member of PAX, whose data begin with as many numbers as its first line says."""
    member = tarfile.TarInfo("hole.png")
    member.size = 512
    member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9"}
    sparse = member.tobuf(tarfile.PAX_FORMAT) + b"999999999\n".ljust(512, b"1")
    path = tmp_path / "x.tar"
    path.write_bytes(sparse + tar_bytes([("a.png", IMAGES[0]), ("a.txt", b"CT of the chest")]))
    assert [getattr(row, "reason", row.id) for row in open_source(str(path))] == [module.NOT_A_FILE, "a"]


SPLIT_NAMES = [f"{split}/{number}" for split in ("test", "train") for number in range(3)]


def samples(names):
    return [m for name in names for m in ((f"{name}.png", IMAGES[0]), (f"{name}.txt", b"CT of the chest"))]


@pytest.mark.parametrize("form", ["tar", "zip"])
@pytest.mark.parametrize("top", ["", "set/images/"])
def test_a_folder_of_an_archive_that_is_called_a_split_is_one(tmp_path, form, top):
    members = samples(f"{top}{name}" for name in SPLIT_NAMES)
    path = tmp_path / f"x.{form}"
    path.write_bytes(tar_bytes(members) if form == "tar" else zip_bytes(members))
    rows = list(open_source(str(path)))
    assert [row.split for row in rows] == [name.partition("/")[0] for name in SPLIT_NAMES]
    assert len({row.article for row in rows}) == 6


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        (("ann/1", "ann/2", "bob/1"), ["ann", "ann", "bob"]),
        (("set/ann/1", "set/ann/2", "set/bob/1"), ["ann", "ann", "bob"]),
        (("train/ann/1", "test/ann/1"), ["ann", "ann"]),
        (("set/images/a", "set/images/b"), ["set/images/a", "set/images/b"]),
        (("train/images/a", "test/images/b"), ["test/images/b", "train/images/a"]),
    ],
)
@pytest.mark.parametrize(("form", "pack"), [("zip", zip_bytes), ("tar", tar_bytes)])
def test_folders_of_an_archive_are_groups_as_those_on_the_disk(tmp_path, names, groups, form, pack):
    members = [*samples(names), ("__MACOSX/set/._x.txt", b"\0"), ("README.md", b"a set")]
    (tmp_path / f"x.{form}").write_bytes(pack(members))
    rows = open_source(str(tmp_path / f"x.{form}"))
    assert sorted(row.article for row in rows if isinstance(row, Pair)) == sorted(groups)


@pytest.mark.parametrize(("form", "pack"), [("zip", zip_bytes), ("tar", tar_bytes)])
def test_an_archive_of_each_patient_is_a_group(tmp_path, form, pack):
    for patient in ("ann", "bob"):
        (tmp_path / f"{patient}.{form}").write_bytes(pack(samples([f"{patient}/a", f"{patient}/b"])))
    assert [row.article for row in open_source(str(tmp_path))] == ["ann", "ann", "bob", "bob"]


def test_keys_that_two_zips_share_are_two_pairs(tmp_path):
    for name in "xy":
        (tmp_path / f"{name}.zip").write_bytes(zip_bytes([("a.png", IMAGES[0]), ("a.txt", b"CT of " + name.encode())]))
    assert len({row.id for row in drop_repeated_ids(open_source(str(tmp_path))) if isinstance(row, Pair)}) == 2


@pytest.mark.parametrize(
    "fields",
    [
        {"patient_id": "P-0815"},
        {"PatientID": "P-0815", "article": "A1", "StudyInstanceUID": "1.2"},
        {"patient": {"id": "P-0815", "age": 63}},
        {"metadata": {"dicom": {"PatientID": "P-0815"}}},
    ],
)
@pytest.mark.parametrize(("form", "pack"), [("zip", zip_bytes), ("tar", tar_bytes)])
def test_the_patient_that_a_json_names_is_the_group_and_private(tmp_path, fields, form, pack):
    text = json.dumps({"caption": "CT of the chest", **fields}).encode()
    members = [m for key in ("a", "P-0815/b") for m in ((f"{key}.png", IMAGES[0]), (f"{key}.json", text))]
    (tmp_path / f"x.{form}").write_bytes(pack(members))
    rows = list(open_source(str(tmp_path / f"x.{form}")))
    assert [row.article for row in rows] == ["P-0815"] * 2
    assert all("P-0815" in row.private for row in rows)


@pytest.mark.parametrize("caption", ["a/1.2.txt", "a/1.2.jpg.txt"])
def test_a_caption_may_be_named_after_the_file_of_its_image(tmp_path, caption):
    (tmp_path / "x.tar").write_bytes(tar_bytes([("a/1.2.jpg", IMAGES[0]), (caption, b"CT of the chest")]))
    assert [row.id for row in open_source(str(tmp_path / "x.tar"))] == ["a/1.2"]


@pytest.mark.parametrize("field", ["caption", "text", "report"])
def test_a_caption_of_json_has_any_of_its_usual_names(tmp_path, field):
    text = json.dumps({field: "CT of the chest"}).encode()
    (tmp_path / "x.tar").write_bytes(tar_bytes([("a.jpg", IMAGES[0]), ("a.json", text)]))
    assert [row.caption for row in open_source(str(tmp_path / "x.tar"))] == ["CT of the chest"]


def test_a_caption_of_an_archive_may_be_utf_16_and_its_encoding_is_said(tmp_path):
    texts = {"a": "Röntgen des Thorax".encode("utf-16"), "b": "Röntgen des Thorax".encode("latin-1")}
    members = [m for key, text in texts.items() for m in ((f"{key}.jpg", IMAGES[0]), (f"{key}.txt", text))]
    expected = ([("a", "Röntgen des Thorax")], [("b", "caption is not UTF-8")])
    assert read(tmp_path / "x.tar", members) == expected
