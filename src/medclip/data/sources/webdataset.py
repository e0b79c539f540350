"""Reads WebDataset archives: files that share a name up to their suffix are one sample."""

from __future__ import annotations

import json
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import chain, groupby, takewhile
from pathlib import PurePosixPath
from typing import Any, Self, cast

from medclip.atomic_io import unique_keys
from medclip.data.normalize import SPLITS, canonical_split, split_in, split_of
from medclip.data.paths import AnyPath, is_url, relative_path
from medclip.data.prepare_config import Columns
from medclip.data.schema import Dropped, Pair, is_row_number, make_up_id
from medclip.data.sources import dialogues
from medclip.data.sources.image_caption_folder import IMAGE_FOLDERS, IMAGE_SUFFIXES
from medclip.data.sources.image_cells import MAX_MEMBER_BYTES, UsedFiles, is_link, read_member
from medclip.data.sources.reports import decode_report, split_reading
from medclip.data.sources.stated_groups import article_of_file, private_fields, stated_group
from medclip.data.sources.table_files import TABLE_SUFFIXES
from medclip.data.sources.tables import as_strings, cell_captions, extra_fields
from medclip.errors import ImageError, UserError

MAX_TEXT_BYTES = 2**24  # JSON takes some 25 times as many as values of Python
WINDOW_SAMPLES, WINDOW_BYTES = 10_000, 2**28  # of incomplete samples: what waits for the rest is in memory
_EXTRA_HEADERS = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)
_MAX_HEADER_BYTES = 2**20  # names and times; tarfile holds them all
_SPARSE_IS_EXTENDED = 482  # offset in a header of GNU's old sparse format
_TEXT_SUFFIXES = (".txt", ".json")
_CAPTION_FIELDS = ("caption", "captions", "text", "report", *dialogues.COLUMNS)
_OF_MACOS = "__MACOSX"
_TABLES = tuple(suffix for suffix in TABLE_SUFFIXES if suffix not in _TEXT_SUFFIXES)
_SORT = "Sort the archive: tar --sort=name."
INCOMPLETE = "sample without image or caption"
NOT_A_FILE = "archive member that is a link, a device or sparse"
SAME_NAME = "second archive member of the same name"
SECOND_IMAGE = "second image of a sample"
SECOND_EXTENSION = "image with a second extension and no caption of that name"
APART = f"image and caption too far apart in the archive. {_SORT}"
UNKNOWN_KIND = "archive member of a kind that is not read"


class _SmallHeader(tarfile.TarInfo):
    """A member whose headers are small: a few bytes of a compressed archive can unpack to more than the memory."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        member = super().frombuf(buf, encoding, errors)
        is_long_map = member.type == tarfile.GNUTYPE_SPARSE and buf[_SPARSE_IS_EXTENDED]
        if is_long_map or (member.type in _EXTRA_HEADERS and member.size > _MAX_HEADER_BYTES):
            raise ValueError(f"a member has headers of more than {_MAX_HEADER_BYTES >> 20} MiB, or many holes")
        return member

    def _proc_gnusparse_10(self, next: tarfile.TarInfo, pax_headers: Any, tarfile: Any) -> None:
        """Leave a map of holes unread, as it may have no end: such a member is not used."""
        cast("Any", next).sparse = ()


@dataclass
class _Sample:
    """The members of one key by suffix."""

    files: dict[str, bytes] = field(default_factory=dict)

    @property
    def num_bytes(self) -> int:
        return sum(map(len, self.files.values()))

    @property
    def is_complete(self) -> bool:
        has_image = any(suffix in IMAGE_SUFFIXES for suffix in self.files)
        return has_image and any(suffix in self.files for suffix in _TEXT_SUFFIXES)


def is_tar(path: AnyPath) -> bool:
    """Whether a file is a tar archive by its name, compressed or not."""
    return path.name.lower().endswith((".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz"))


def read_tars(paths: list[AnyPath], folder: AnyPath, used: UsedFiles) -> Iterator[Pair | Dropped]:
    """Every sample of the archives, in order: an image with a caption in KEY.txt or in KEY.json.

    KEY is a name up to the last dot, or where the rest of it is no suffix that is read, as it is. KEY.json may hold id,
    caption, license, concepts, split and the other fields of `medclip export`, and a patient, study or article, which
    is the group; else, as in a folder, images of one folder are one, but for a folder that holds all of them or is
    called a split. The split is that of KEY.json, else of the archive's path below `folder`, else of a folder in KEY;
    else a hash decides. A number is no id, as archives count anew; neither is a key that another archive had. An image
    and its caption may lie apart, with WINDOW_SAMPLES incomplete samples between them; members that belong to no pair
    are counted. Raises UserError for a damaged archive, with the last sample before the damage.
    """
    splits = {path: split_in(str(relative_path(path, folder))) for path in paths}
    if set(splits.values()) == {"train"}:  # the name that collections without splits give their archives
        splits = {}
    earlier_keys: set[int] = set()
    last_split = ""
    outer = _outer_folders(chain.from_iterable(map(_list_members, paths)))
    for path in paths:
        used.add(path)
        keys: set[int] = set()
        split = splits.get(path, "")
        for key, sample in _read_samples(path):
            if isinstance(sample, str):  # what belongs to no sample makes no split of its own
                yield Dropped(key, split or last_split or split_of(key), sample, path.name)
                continue
            group = _group_of_folder(key, outer)
            for row in _parse_sample(key, sample.files, path, split, group, hash(key) in earlier_keys):
                yield row
                last_split = row.split
            keys.add(hash(key))
        earlier_keys |= keys if len(paths) > 1 else set()


def _parse_sample(
    key: str, files: dict[str, bytes], path: AnyPath, split: str, folder: str, repeats: bool
) -> list[Pair | Dropped]:
    split = split or _split_of_folder(key)
    try:
        fields: dict[str, Any] = json.loads(files.get(".json") or b"{}", object_pairs_hook=unique_keys)
        captions = cell_captions(next((fields[name] for name in _CAPTION_FIELDS if fields.get(name)), None))
        captions = cell_captions(decode_report(files[".txt"])) if ".txt" in files else captions
    except UnicodeDecodeError:
        return [Dropped(key, split or split_of(key), "caption is not UTF-8", path.name)]
    except (ValueError, AttributeError, RecursionError, MemoryError):
        return [Dropped(key, split or split_of(key), "caption unreadable", path.name)]
    stated = str(fields.get("id") or ("" if repeats or key.isdecimal() else key))
    images = [data for suffix, data in files.items() if suffix in IMAGE_SUFFIXES]
    made_up = make_up_id(path.name, key, *captions, *images)
    id, unnumbered = stated or made_up, made_up if is_row_number(stated) else stated
    group, private = stated_group(fields), private_fields(fields, Columns())
    group = group or folder or article_of_file(f"{key}_") or unnumbered or id
    split = canonical_split(str(fields.get("split") or "")) or split or split_of(group)
    if not images or not captions:
        return [Dropped(key, split, _missing(key, files, bool(images)), path.name, **private)]
    return [
        Pair(
            id=id if len(captions) == 1 else f"{id}-{number}",
            image=images[0],
            caption=caption,
            split=split,
            article=group,
            license=str(fields.get("licence") or fields.get("license") or ""),
            attribution=str(fields.get("attribution") or ""),
            concepts=as_strings(fields.get("concepts")),
            removed=removed,
            **private,
            **extra_fields(fields, path.stem),
        )
        for number, (caption, removed) in enumerate(map(split_reading, captions))
    ]


def _split_of_folder(key: str) -> str:
    """The split that a folder of a key is called, "" where none is."""
    names = map(canonical_split, PurePosixPath(key).parts[:-1])
    return next((name for name in names if name in SPLITS), "")


def _missing(key: str, files: dict[str, bytes], has_image: bool) -> str:
    """Why a sample is no pair."""
    extension = PurePosixPath(key).suffix[1:]
    if has_image and extension.isalpha() and not set(files) & set(_TEXT_SUFFIXES):
        return SECOND_EXTENSION
    return INCOMPLETE


def _read_samples(path: AnyPath) -> Iterator[tuple[str, _Sample | str]]:
    """Every key with its sample, or with the reason why a member is not used, under the member's name."""
    position = "its beginning"
    try:
        with path.open("rb") as stream, tarfile.open(fileobj=stream, mode="r|*", tarinfo=_SmallHeader) as archive:
            for key, sample in _collect(archive):
                yield key, sample
                position = f"sample {key}"
    except Exception as error:  # what tarfile raises for a damaged one has many types
        raise UserError(f"{path} is damaged after {position} ({error}). Fetch it again.") from None


def _collect(archive: tarfile.TarFile) -> Iterator[tuple[str, _Sample | str]]:
    """Samples in the order in which they are whole: at the next key, when the rest comes, or never, at the end."""
    names: set[str] = set()
    waiting: OrderedDict[str, _Sample] = OrderedDict()
    num_bytes, current = 0, ""
    for member in archive:
        cast("Any", archive).members.clear()  # or it would hold every one
        if member.isdir():
            continue
        key, suffix = split_name(member.name)
        reason = _reason_not_to_use(
            member.isfile() and not member.issparse(), member.name, suffix, names, waiting.get(key)
        )
        names.add(member.name)
        if reason:
            yield member.name, reason
            continue
        if current in waiting and key != current and waiting[current].is_complete:
            sample = waiting.pop(current)
            num_bytes -= sample.num_bytes
            yield current, sample
        if member.size > (most := _max_bytes(suffix)):
            yield member.name, f"archive member over {most >> 20} MiB"
            continue
        file = archive.extractfile(member)
        data = file.read() if file else b""
        waiting.setdefault(key, _Sample()).files[suffix] = data
        num_bytes, current = num_bytes + len(data), key
        while len(waiting) > WINDOW_SAMPLES or (num_bytes > WINDOW_BYTES and len(waiting) > 1):
            oldest, sample = waiting.popitem(last=False)
            num_bytes -= sample.num_bytes
            yield oldest, sample if sample.is_complete else APART
    yield from waiting.items()


def _max_bytes(suffix: str) -> int:
    return MAX_TEXT_BYTES if suffix in _TEXT_SUFFIXES else MAX_MEMBER_BYTES


def _reason_not_to_use(is_file: bool, name: str, suffix: str, names: set[str], sample: _Sample | None) -> str:
    if not is_file:
        return NOT_A_FILE
    if suffix not in (*IMAGE_SUFFIXES, *_TEXT_SUFFIXES):
        return f"{UNKNOWN_KIND}: {suffix[:12] or 'no suffix'}"
    if name in names or (sample and suffix in sample.files):
        return SAME_NAME
    if sample and suffix in IMAGE_SUFFIXES and any(other in IMAGE_SUFFIXES for other in sample.files):
        return SECOND_IMAGE
    return ""


def split_name(name: str) -> tuple[str, str]:
    """The key and the suffix, in lower case, of a member: names such as 1.2.840.5.png hold dots of their own.

    The caption of x.png may be x.txt or x.png.txt.
    """
    path = PurePosixPath(name)
    stem = PurePosixPath(path.stem)
    has_two = path.suffix.lower() in _TEXT_SUFFIXES and stem.suffix.lower() in IMAGE_SUFFIXES
    return (path.parent / (stem.stem if has_two else path.stem)).as_posix(), path.suffix.lower()


def read_zips(paths: Sequence[AnyPath]) -> Iterator[Pair | Dropped]:
    """Every sample of .zip files, as `read_tars` reads them, in the order of their names; nothing is unpacked.

    Raises UserError for a damaged archive and for one that holds a table.
    """
    earlier_keys: set[int] = set()
    outer = _outer_folders(chain.from_iterable(map(_list_zip, paths)))
    for path in paths:
        keys: set[int] = set()
        with _open_zip(path) as archive:
            members = sorted(_members(archive), key=lambda member: (_key(member), member.filename))
            for key, group in groupby(members, key=_key):
                folder = _group_of_folder(key, outer)
                yield from _parse_members(archive, key, list(group), path, folder, hash(key) in earlier_keys)
                keys.add(hash(key))
        earlier_keys |= keys if len(paths) > 1 else set()


@contextmanager
def _open_zip(path: AnyPath) -> Iterator[zipfile.ZipFile]:
    with ExitStack() as stack:
        try:
            archive = stack.enter_context(zipfile.ZipFile(stack.enter_context(path.open("rb"))))
        except Exception as error:  # what zipfile raises for a damaged one has many types
            raise UserError(f"{path} is damaged ({error}). Fetch it again.") from None
        yield archive


def _members(archive: zipfile.ZipFile) -> Iterator[zipfile.ZipInfo]:
    return (member for member in archive.infolist() if not member.filename.endswith("/"))


def _list_zip(path: AnyPath) -> list[PurePosixPath]:
    """The members of a .zip. UserError where one is a table."""
    with _open_zip(path) as archive:
        names = [member.filename for member in _members(archive)]
    if table := next((name for name in names if name.lower().removesuffix(".gz").endswith(_TABLES)), None):
        raise UserError(f"{path} holds a table. Unpack {table} beside the archive, which stays, and give that.")
    return list(map(PurePosixPath, names))


def _list_members(path: AnyPath) -> Iterator[PurePosixPath]:
    """The members of a tar archive, as far as it can be read."""
    mode = "r|*" if is_url(path) else "r:*"  # a file is sought in
    try:
        with path.open("rb") as stream, tarfile.open(fileobj=stream, mode=mode, tarinfo=_SmallHeader) as archive:
            for member in archive:
                cast("Any", archive).members.clear()
                yield PurePosixPath(member.name)
    except Exception:  # reading the samples says what is wrong
        return


def _outer_folders(files: Iterable[PurePosixPath]) -> int:
    """How many folders hold all images of archives. Reads no further than to an image that shares none."""
    shared: tuple[str, ...] | None = None
    for file in files:
        if file.suffix.lower() in IMAGE_SUFFIXES and _OF_MACOS not in file.parts:
            folders = file.parent.parts
            shared = folders if shared is None else _common_start(shared, folders)
            if not shared:
                break
    return len(shared or ())


def _common_start(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(part for part, _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _group_of_folder(key: str, outer: int) -> str:
    """The folders of a key that are a group, "" where none is."""
    folders = PurePosixPath(key).parent.parts[outer:]
    return "/".join(name for name in folders if canonical_split(name) not in SPLITS and name not in IMAGE_FOLDERS)


def _key(member: zipfile.ZipInfo) -> str:
    return split_name(member.filename)[0]


def _parse_members(
    archive: zipfile.ZipFile, key: str, members: list[zipfile.ZipInfo], path: AnyPath, folder: str, repeats: bool
) -> Iterator[Pair | Dropped]:
    split, sample, names = split_in(path.name), _Sample(), set[str]()
    for member in members:
        suffix = split_name(member.filename)[1]
        reason = _reason_not_to_use(not is_link(member), member.filename, suffix, names, sample)
        names.add(member.filename)
        try:
            if not reason:
                sample.files[suffix] = read_member(archive, member, _max_bytes(suffix))
        except ImageError as error:
            reason = str(error)
        if reason:
            yield Dropped(member.filename, split or split_of(key), reason, path.name)
    if sample.files:
        yield from _parse_sample(key, sample.files, path, split, folder, repeats)
