"""torch's checkpoints are read bit for bit as torch wrote them, and a hostile one runs nothing and takes no memory."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medclip.errors import UserError
from medclip.model.weights.torch_file import open_tensors
from support.torch_files import STORED, Call, Global, Storage, dump, tensor, write_zip

VALUES = dict(np.load(STORED / "values.npz"))
FOUR = np.arange(4, dtype="<f4").tobytes()


def open_content(path: Path, content: object, data: bytes = FOUR, key: str = "0") -> dict[str, np.ndarray]:
    """What is read from a zip around `content`, whose only storage is `data`."""
    write_zip(path / "model.bin", content if isinstance(content, bytes) else dump(content), {key: data})
    return {name: value.read() for name, value in open_tensors(path / "model.bin").items()}


@pytest.mark.parametrize("file", ["zip.bin", "legacy.bin", "protocol4.bin", "run.pt"])
def test_tensors_are_those_that_torch_wrote(file: str) -> None:
    tensors = open_tensors(STORED / file)
    prefix = "module." if file == "run.pt" else ""
    assert tensors.keys() == {prefix + name for name in VALUES}
    for name, wanted in VALUES.items():
        value = tensors[prefix + name].read()
        assert tensors[prefix + name].shape == value.shape == wanted.shape
        np.testing.assert_array_equal(value.astype(np.float64), wanted)
    assert tensors[f"{prefix}bfloat16"].dtype == "bfloat16"
    assert tensors[f"{prefix}long"].read().dtype == np.int64


def test_types_without_a_storage_class() -> None:
    tensors = open_tensors(STORED / "float8.bin")
    assert {name: tensor.dtype for name, tensor in tensors.items()} == {"a": "float8_e4m3fn", "b": "uint16"}
    np.testing.assert_array_equal(tensors["b"].read(), [1, 1])


@pytest.mark.parametrize(("file", "words"), [("module.pt", "torch.nn.modules"), ("script.pt", "TorchScript")])
def test_programs_are_refused_by_name(file: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        open_tensors(STORED / file)


def test_one_tensor_is_read_without_the_others(tmp_path: Path) -> None:
    content = {
        "a": tensor(Storage("Float", "0", 4), 0, (4,), (1,)),
        "b": tensor(Storage("Float", "1", 4), 0, (4,), (1,)),
    }
    path = write_zip(tmp_path / "model.bin", dump(content), {"0": FOUR, "1": b"\7" * 16})
    path.write_bytes(path.read_bytes().replace(b"\7" * 16, b"\6" * 16))
    tensors = open_tensors(path)
    np.testing.assert_array_equal(tensors["a"].read(), [0, 1, 2, 3])
    with pytest.raises(UserError, match="checksum"):
        tensors["b"].read()


EXECUTE = [
    Call(Global("os", "system"), "touch {mark}"),
    Call(Global("posix", "system"), "touch {mark}"),
    Call(Global("builtins", "eval"), "open('{mark}', 'w')"),
    Call(Global("__builtin__", "exec"), "open('{mark}', 'w')"),
    Call(Call(Global("builtins", "getattr"), Global("os", "path"), "join"), "a"),
    Call(Global("functools", "partial"), Global("os", "system"), "touch {mark}"),
    Call(Global("torch._utils", "_rebuild_tensor_v2.__globals__"), "a"),
    Call(Global("torch", "load"), "{mark}"),
    Call(Global("torch.hub", "load"), "x", "y"),
    Call(Global("operator", "attrgetter"), "system"),
    Call(Global("collections", "OrderedDict"), [["a", Call(Global("os", "system"), "touch {mark}")]]),
    {"a": [({"b": Call(Global("subprocess", "Popen"), ["touch", "{mark}"])},)]},
    Call(Global("argparse", "Namespace"), state=Call(Global("os", "system"), "touch {mark}")),
    Call(Global("torch._tensor", "_rebuild_from_type_v2"), Global("os", "system"), None, ("touch {mark}",), None),
]


@pytest.mark.parametrize("content", EXECUTE)
def test_no_code_of_a_file_runs(tmp_path: Path, content: object) -> None:
    code = dump(content).replace(b"{mark}", str(tmp_path / "mark").encode())
    with pytest.raises(UserError, match=r"only running code could open it|damaged"):
        open_content(tmp_path, code)
    assert [path.name for path in tmp_path.iterdir()] == ["model.bin"]


GOOD = Storage("Float", "0", 4)
HUGE = 10**12


@pytest.mark.parametrize(
    "content",
    [
        tensor(GOOD, 0, (HUGE,), (1,)),
        tensor(GOOD, 0, (HUGE,), (0,)),  # one number, repeated
        tensor(GOOD, 0, (10**6, 10**6), (0, 0)),
        tensor(GOOD, 0, (2, 2), (4, 1)),
        tensor(GOOD, 3, (2,), (1,)),
        tensor(GOOD, -1, (2,), (1,)),
        tensor(GOOD, 3, (2,), (-1,)),
        tensor(GOOD, 0, (-4,), (1,)),
        tensor(GOOD, 0, (4,), (1, 1)),
        tensor(GOOD, 0, (1,) * 40, (1,) * 40),
        tensor(GOOD, 0, (2**63, 2**63), (1, 1)),
        tensor(GOOD, 0, (0, 2**61), (2**61, 1)),
        tensor(GOOD, 0, [4], (1,)),
        tensor(GOOD, 0, (True,), (1,)),
        tensor(GOOD, "0", (4,), (1,)),
        tensor(None, 0, (4,), (1,)),
        tensor(Storage("Float", "0", HUGE), 0, (HUGE,), (1,)),
        tensor(Storage("Float", "1", 4), 0, (4,), (1,)),
        tensor(Storage("Float", "../data.pkl", 4), 0, (4,), (1,)),
        tensor(Storage("Float", 0, 4), 0, (4,), (1,)),
        tensor(Storage("Float", "0", "4"), 0, (4,), (1,)),
        tensor(Storage("Float", "0", -4), 0, (4,), (1,)),
        tensor(Storage("QInt8", "0", 4), 0, (4,), (1,)),
        Call(Global("torch._utils", "_rebuild_parameter"), "x", True, {}),
        Call(Global("torch._utils", "_rebuild_tensor_v2")),
        Call(Global("torch", "FloatStorage"), 4),
        Call(Global("collections", "OrderedDict"), 7),
        Call(Global("collections", "OrderedDict"), [[["a"], 7]]),
    ],
)
def test_tensors_that_cannot_be_are_refused(tmp_path: Path, content: object) -> None:
    with pytest.raises(UserError):
        values = open_content(tmp_path, {"a": content})
        assert sum(value.size for value in values.values()) == 0  # of an absurd but empty shape
        raise UserError


def put(*parts: bytes) -> bytes:
    return b"\x80\x02" + b"".join(parts) + b"."


@pytest.mark.slow
@pytest.mark.parametrize(
    "code",
    [
        put(b"}", b"r\xff\xff\xff\x7f"),  # memo index 2^31: C's unpickler takes 32 GB for its table
        put(b"X\xff\xff\xff\x7f"),
        put(b"\x8b\xff\xff\xff\x7f"),
        b"\x80\x04\x8e" + (2**62).to_bytes(8, "little") + b".",
        b"\x80\x05\x96" + (2**62).to_bytes(8, "little") + b".",
        put(b"]" + b"\x85" * 100_000 + b"}("),
        put(b"}(" + b")" + b"\x85" * 100_000 + b"Nu"),  # a deep tuple as key: its hash overflows the stack
        put(b"(" * 100_000),
        put(b"0" * 10),
        put(b"]q\0h\0" + b"h\0a" * 1000),  # lists in themselves
        put(b"\x82\x01"),  # the extension registry
        put(b"\x83\x01\x00"),
        put(b"(ios\nsystem\n"),
        put(b"Pname\n"),
        b"\x80\x04" + b")" + b"\x85" * 100_000 + b")\x93.",
        put(b"K\x01b"),
        put(b"}K\x01b" + b"K\x01K\x02b"),
        put(b"h\x05"),
        put(b"t"),
        put(b"Q"),
        put(),
        b"",
        b"\x80\x02}",
        put(b"I" + b"9" * 100_000 + b"\n"),
        put(b"c" + b"x" * 1_000_000),
        put(b"S'\\x'\n"),
    ],
)
def test_pickles_made_to_break_a_reader_are_refused(tmp_path: Path, code: bytes) -> None:
    with pytest.raises(UserError):
        open_content(tmp_path, code)


def test_a_pickle_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medclip.model.weights.pickle_reader.MAX_OPCODES", 1000)
    with pytest.raises(UserError, match="more than 1,000 operations"):
        open_content(tmp_path, put(b"N" * 2000))


def test_one_list_given_many_times_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medclip.model.weights.pickle_reader.MAX_OPCODES", 1000)
    pairs = b"(" + b"(X\x01\0\0\0aK\x02t" * 80 + b"t"  # 80 pairs of one key
    code = put(b"ccollections\nOrderedDict\nq\0", pairs + b"q\1", b"h\0h\1\x85R" * 20)
    with pytest.raises(UserError, match="gives functions more than 1,000 items"):
        open_content(tmp_path, code)


STEADY = {"a": tensor(GOOD, 0, (4,), (1,))}


def edit_directory(path: Path, old: bytes, new: bytes) -> None:
    path.write_bytes(path.read_bytes().replace(old, new))


def test_archives_that_torch_never_writes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"

    def expect_refusal(words: str) -> None:
        with pytest.raises(UserError, match=words):
            for value in open_tensors(path).values():
                value.read()

    write_zip(path, dump(STEADY), {"0": bytes(10**7)}, zipfile.ZIP_DEFLATED)
    expect_refusal("compressed")
    write_zip(path, dump(STEADY), {"0": FOUR})
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/data/0", FOUR)
    expect_refusal("two entries of one name")
    write_zip(path, dump(STEADY), {"../../../etc/0": FOUR})
    expect_refusal("numbers of a are not in it")
    write_zip(path, dump(STEADY), {"0": FOUR})
    path.write_bytes(path.read_bytes()[:-30])
    expect_refusal("damaged")
    content = {"a": tensor(GOOD, 0, (4,), (1,)), "b": tensor(Storage("Float", "1", 4), 0, (4,), (1,))}
    write_zip(path, dump(content), {"0": FOUR, "1": FOUR})
    with zipfile.ZipFile(path) as archive:
        places = [archive.getinfo(f"archive/data/{key}").header_offset.to_bytes(4, "little") for key in "01"]
    edit_directory(path, places[1] + b"archive/data/1", places[0] + b"archive/data/1")
    expect_refusal("contradicts itself")
    path.write_bytes(b"PK\3\4" + bytes(100))
    expect_refusal("damaged")


def test_a_kilobyte_that_claims_a_terabyte_takes_no_memory(tmp_path: Path) -> None:
    """In a process with 2 GiB of address space beyond what the imports take."""
    content = {"a": tensor(Storage("Float", "0", HUGE), 0, (HUGE,), (1,))}
    write_zip(tmp_path / "zip.bin", dump(content), {"0": FOUR})
    header = dump(0x1950A86A20F9469CFC6C) + dump(1001) + dump({"little_endian": True})
    legacy = header + dump(content) + dump(["0"]) + HUGE.to_bytes(8, "little") + FOUR
    (tmp_path / "legacy.bin").write_bytes(legacy)
    code = """
import resource, sys
from pathlib import Path
from medclip.errors import UserError
from medclip.model.weights.torch_file import open_tensors
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**31,) * 2)
for name in ("zip.bin", "legacy.bin"):
    try:
        open_tensors(Path(sys.argv[1]) / name)["a"].read()
    except UserError as error:
        print("refused", error)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.count("refused") == 2


def test_torch_is_not_imported() -> None:
    code = f"""
import sys
from pathlib import Path
from medclip.model.weights.torch_file import open_tensors
open_tensors(Path({str(STORED / "zip.bin")!r}))
assert "torch" not in sys.modules and "pickle" not in {{m for m in sys.modules if m == "torch"}}
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), file=st.sampled_from(["zip.bin", "legacy.bin", "run.pt"]))
def test_a_damaged_file_is_refused_or_the_same(tmp_path: Path, data: st.DataObject, file: str) -> None:
    """The archive has checksums; of the legacy form, which has none, only names and shapes are certain."""
    content = bytearray((STORED / file).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content))) if data.draw(st.booleans()) else len(content)
    path = tmp_path / file
    path.write_bytes(content[:cut])
    try:
        values = {name.removeprefix("module."): value.read() for name, value in open_tensors(path).items()}
    except UserError:
        return
    if file != "legacy.bin":
        for name in values.keys() & {"plain", "transposed", "bfloat16", "long", "scalar"}:
            np.testing.assert_array_equal(values[name].astype(np.float64), VALUES[name])


@pytest.mark.parity
def test_every_stored_file_is_what_torch_reads() -> None:
    import torch

    for file in ("zip.bin", "legacy.bin", "protocol4.bin"):
        theirs = torch.load(STORED / file, weights_only=False)  # its own reader of data knows protocol 2 alone
        for name, value in open_tensors(STORED / file).items():
            np.testing.assert_array_equal(value.read().astype(np.float64), theirs[name].detach().double().numpy())
