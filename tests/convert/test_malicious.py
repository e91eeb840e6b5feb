"""Files that mean harm: each is refused for its reason, and nothing in it is run."""

import copyreg
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from cellvit_convert.cli import main
from cellvit_jax.errors import CheckpointError, UnsafeFileError
from cellvit_jax.torch_files import LEGACY_MAGIC, LEGACY_PROTOCOL, read_torch
from cellvit_jax.torch_save import body, empty_dict, name, plain, proto2
from tests.convert.archives import write_archive, write_parts, write_pickle
from tests.convert.watch import nothing_runs

STORAGE = b"(" + plain("storage") + name("torch.FloatStorage")
REBUILD = "torch._utils._rebuild_tensor_v2"


def storage(key: str = "0", count: int = 4) -> bytes:
    return STORAGE + plain(key) + plain("cpu") + plain(count) + b"tQ"


def rebuild(*arguments: bytes) -> bytes:
    inside = b"".join(arguments) + plain(False) + empty_dict()
    return name(REBUILD) + b"(" + inside + b"tR"


def call(function: str, *arguments: object) -> bytes:
    return name(function) + plain(arguments) + b"R"


def laughs(levels: int) -> bytes:
    """Lists that hold the list before twice: small in memory, endless to whoever walks them."""
    return b"]" + b"".join(b"q\x01]h\x01ah\x01a" for _ in range(levels))


TOUCH = call("os.system", "touch pwned")
SET = name("builtins.set") + b"q\x02"
ENCODE = name("_codecs.encode") + b"q\x02"
ENDLESS = "out of all proportion"
DEEP = "levels deep"

# case: opcodes of a value, and the reason that it is refused for
HARMFUL = {
    "os.system": (TOUCH, r"asks for os\.system"),
    "posix.system": (call("posix.system", "touch pwned"), r"asks for posix\.system"),
    "subprocess": (call("subprocess.Popen", ["touch", "pwned"]), r"asks for subprocess\.Popen"),
    "eval": (call("builtins.eval", "open('pwned', 'w')"), r"asks for builtins\.eval"),
    "exec in python 2 names": (call("__builtin__.exec", "1"), r"asks for __builtin__\.exec"),
    "import": (call("builtins.__import__", "os"), r"asks for builtins\.__import__"),
    "open": (call("io.open", "pwned", "w"), r"asks for io\.open"),
    "stack global": (
        plain("os") + plain("system") + b"\x93" + plain(("touch pwned",)) + b"R",
        r"asks for os\.system",
    ),
    "dotted attribute": (call(f"{REBUILD}.__globals__.get", "os"), r"asks for .*__globals__\.get"),
    "attribute of an allowed class": (
        call("collections.OrderedDict.__init__.__globals__", "x"),
        r"asks for collections\.OrderedDict\.__init__",
    ),
    "torch's own loader": (call("torch.load", "pwned"), r"asks for torch\.load"),
    "numpy's own loader": (call("numpy.load", "pwned"), r"asks for numpy\.load"),
    "getattr": (call("builtins.getattr", "x", "y"), r"asks for builtins\.getattr"),
    "an attribute of a module": (call("operator.attrgetter", "system"), r"asks for operator\."),
    "a pickle inside a pickle": (call("pickle.loads", pickle.dumps(1)), r"asks for pickle\.loads"),
    "harmless but unknown": (call("decimal.Decimal", "1"), r"asks for decimal\.Decimal"),
    "nested in the config": (plain("config") + TOUCH + b"\x86", r"asks for os\.system"),
    "in a key": (b"}" + TOUCH + plain(1) + b"s", r"asks for os\.system"),
    "as a type of a storage": (STORAGE.replace(b"torch", b"os", 1), r"asks for os\."),
    "memo that changes its mind": (
        b"(" + plain("harmless") + b"q\0" + name("os.system") + b"q\0h\0" + plain(("ls",)) + b"Rt",
        r"asks for os\.system",
    ),
    "instance opcode": (b"(" + plain("touch pwned") + b"ios\nsystem\n", r"asks for os\.system"),
    "object opcode": (
        b"(" + name("os.system") + plain("touch pwned") + b"o",
        r"asks for os\.system",
    ),
    "new object": (name("subprocess.Popen") + plain((["ls"],)) + b"\x81", "asks for subprocess"),
    "new object with keywords": (name("subprocess.Popen") + b")}\x92", "asks for subprocess"),
    "class with a state": (
        name("logging.config.DictConfigurator") + b")\x81}b",
        r"asks for logging\.config",
    ),
    "deep nesting": (b"(" * 50_000 + b"l" * 50_000, DEEP),
    "deep tuples": (b")" + b"\x85" * 50_000, DEEP),
    "deep dictionaries": (b"}K\x01" * 20_000 + b"N" + b"s" * 20_000, DEEP),
    "endless work": (
        b"(" + b"N" * 100_000 + b"l\x85q\x01" + SET + b"h\x02h\x01R" * 9_000,
        ENDLESS,
    ),
    "endless memory": (
        plain("x" * 10**6) + b"q\x01" + ENCODE + b"h\x02h\x01\x8c\x06latin1\x86R" * 999,
        ENDLESS,
    ),
}

BROKEN = {
    "calling a value": (plain("x") + b")R", "a str stands where"),
    "calling an array": (
        plain("x") + rebuild(storage(), plain(0), plain((4,)), plain((1,))) + b"R",
        "a ndarray stands where",
    ),
    "tuple as a key": (b"}" + plain((1, 2)) + plain(1) + b"s", "used as a key"),
    "endless hash": (
        b"()q\x01" + b"h\x01h\x01\x86q\x01" * 64 + b"l}h\x01K\x01s",
        "used as a key",
    ),
    "memo without a value": (b"h\x07", "never made"),
    "memo with a giant index": (b"Nr\xff\xff\xff\x7fj\xfe\xff\xff\x7f", "never made"),
    "giant string": (b"X\xff\xff\xff\x7fabc", "ends in the middle"),
    "giant bytes": (b"\x8e\xff\xff\xff\xff\xff\xff\xff\x0fabc", "ends in the middle"),
    "giant integer": (b"\x8b\xff\xff\xff\x7fabc", "ends in the middle"),
    "extension code of one byte": (b"\x82\x77", "opcode EXT1"),
    "extension code of two": (b"\x83\x77\x00", "opcode EXT2"),
    "extension code of four": (b"\x84\x77\x00\x00\x00", "opcode EXT4"),
    "new object with keywords": (name("collections.OrderedDict") + b")}\x92", "opcode NEWOBJ_EX"),
    "a buffer from outside": (b"\x97", "opcode NEXT_BUFFER"),
    "empty stack": (b"Na", ""),
    "no mark": (b"N" + b"t", "never made"),
    "state for a function": (name(REBUILD) + b"}b", "cannot be given a state"),
    "state for a global type": (name("torch.float32") + plain((3, ">", None)) + b"b", "big-endian"),
    "state with __setstate__": (
        b"]" + plain({"__setstate__": 1}) + b"b",
        "cannot be given a state",
    ),
    "storage that is missing": (
        rebuild(storage("9"), plain(0), plain((4,)), plain((1,))),
        "'archive/data/9' is missing",
    ),
    "storage that claims more": (
        rebuild(storage("0", 10**12), plain(0), plain((4,)), plain((1,))),
        "does not hold 1000000000000 values",
    ),
    "storage by a path": (
        rebuild(storage("../data.pkl"), plain(0), plain((4,)), plain((1,))),
        "is missing",
    ),
    "negative storage": (
        rebuild(storage("0", -1), plain(0), plain((4,)), plain((1,))),
        "no proper name or size",
    ),
    "offset out of range": (rebuild(storage(), plain(2), plain((4,)), plain((1,))), ""),
    "negative offset": (rebuild(storage(), plain(-1), plain((4,)), plain((1,))), "few sizes"),
    "stride out of range": (rebuild(storage(), plain(0), plain((2, 2)), plain((4, 1))), ""),
    "negative stride": (rebuild(storage(), plain(3), plain((4,)), plain((-1,))), "few sizes"),
    "giant tensor of one value": (
        rebuild(storage(), plain(0), plain((10**9, 10**9)), plain((0, 0))),
        "does not fit its storage",
    ),
    "shape of lists": (
        rebuild(storage(), plain(0), laughs(64) + b"\x85", plain((1,))),
        "a list stands where",
    ),
    "too many dimensions": (
        rebuild(storage(), plain(0), plain((1,) * 999), plain((1,) * 999)),
        "few sizes",
    ),
    "strides missing": (rebuild(storage(), plain(0), plain((2, 2)), plain((1,))), ""),
    "whole module": (b"(" + plain("module") + b"NNNNtQ", "a whole module"),
    "persistent id of nothing": (b"NQ", "a NoneType stands where"),
    "persistent id in words": (b"Pos.system\n", "opcode PERSID"),
    "persistent id of a function": (
        b"(" + plain("storage") + name(REBUILD) + plain("0") + plain("cpu") + plain(4) + b"tQ",
        "a whole module",
    ),
    "view of a list": (rebuild(b"]", plain(0), plain((1,)), plain((1,))), "than numbers"),
    "device of lists": (name("torch.device") + laughs(64) + b"\x85R" + b"a", ""),
}


def write_legacy_pickle(path: Path, opcodes: bytes) -> Path:
    """The opcodes of one value where the format before torch 1.6 has it."""
    head = (plain(LEGACY_MAGIC), plain(LEGACY_PROTOCOL), plain({"little_endian": True}))
    path.write_bytes(b"".join(map(proto2, (*head, opcodes, plain([])))))
    return path


def refused(path: Path, error: type[Exception], reason: str) -> None:
    """Reading `path` is refused with a sentence about it, and does nothing else."""
    with pytest.raises(error, match=rf"{path.name} .*{reason}"), nothing_runs():
        read_torch(path)


@pytest.fixture(autouse=True, scope="module")
def _warm(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What a first use of the reader imports is no doing of a file."""
    read_torch(write_archive(tmp_path_factory.mktemp("warm") / "x.pth", {"w": np.ones(3)}))


@pytest.mark.parametrize("write", [write_pickle, write_legacy_pickle])
@pytest.mark.parametrize("case", HARMFUL)
def test_harmful_pickles_are_refused(tmp_path: Path, monkeypatch, case: str, write) -> None:
    monkeypatch.chdir(tmp_path)
    opcodes, reason = HARMFUL[case]
    refused(write(tmp_path / "x.pth", opcodes), UnsafeFileError, reason)
    assert [p.name for p in tmp_path.iterdir()] == ["x.pth"]


@pytest.mark.parametrize("case", BROKEN)
def test_broken_pickles_are_an_error(tmp_path: Path, case: str) -> None:
    opcodes, reason = BROKEN[case]
    path = write_pickle(tmp_path / "x.pth", opcodes, s0=bytes(16))
    refused(path, CheckpointError, f"is damaged.*{reason}")


def test_registered_extensions_are_not_looked_up(tmp_path: Path) -> None:
    copyreg.add_extension("os", "system", 0x77)
    try:
        path = write_pickle(tmp_path / "x.pth", b"\x82\x77" + plain(("touch pwned",)) + b"R")
        refused(path, CheckpointError, "opcode EXT1")
    finally:
        copyreg.remove_extension("os", "system", 0x77)


def test_a_name_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    path = write_pickle(tmp_path / "x.pth", plain("os\x1b[2J") + plain("x\n") + b"\x93")
    refused(path, UnsafeFileError, r"asks for os\?\?2J\.x\?")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_bare_pickles_are_read_as_carefully(tmp_path: Path, protocol: int) -> None:
    class Evil:
        def __reduce__(self):
            return eval, ("1 + 1",)

    path = tmp_path / "x.pth"
    path.write_bytes(pickle.dumps({"a": Evil()}, protocol))
    refused(path, UnsafeFileError, r"asks for (builtins|__builtin__)\.eval")


def test_dtype_singletons_are_left_alone(tmp_path: Path) -> None:
    opcodes, _ = BROKEN["state for a global type"]
    refused(write_pickle(tmp_path / "x.pth", opcodes), CheckpointError, "big-endian")
    assert np.dtype("float32").byteorder == "="


def test_the_command_refuses_in_one_sentence(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_pickle(tmp_path / "x.pth", plain("model_state_dict") + TOUCH + b"\x86")
    assert main([str(path), str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["x.pth"]


# ----- archives --------------------------------------------------------------------------------

GOOD = {"archive/data.pkl": proto2(body({"w": np.zeros(4, np.float32)}, []))}
STORED = GOOD | {"archive/data/0": bytes(16)}


@pytest.mark.parametrize(
    "part",
    [
        "../evil",
        "archive/../../evil",
        "/etc/evil",
        "archive\\evil",
        "archive//evil",
        "evil",
        "C:\\evil",
        "archive/\0evil",
    ],
)
def test_path_tricks_are_refused(tmp_path: Path, part: str) -> None:
    refused(write_parts(tmp_path / "x.pth", STORED | {part: b"x"}), UnsafeFileError, "has a part")


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressed_bombs_are_refused(tmp_path: Path, method: int) -> None:
    parts = GOOD | {"archive/data/0": bytes(10**7)}
    refused(write_parts(tmp_path / "x.pth", parts, method), CheckpointError, "is compressed")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_duplicate_entries_are_refused(tmp_path: Path) -> None:
    path = write_parts(tmp_path / "x.pth", STORED)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/data/0", b"\xff" * 16)
    refused(path, CheckpointError, "two parts claim one place or name")


def test_overlapping_entries_are_refused(tmp_path: Path) -> None:
    path = write_parts(tmp_path / "x.pth", STORED | {"archive/data/1": bytes(16)})
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        offset = archive.getinfo("archive/data/0").header_offset
    last = content.rindex(b"PK\1\2")
    content[last + 42 : last + 46] = struct.pack("<L", offset)
    path.write_bytes(content)
    refused(path, CheckpointError, "two parts claim one place or name")


def test_entries_beyond_the_end_are_refused(tmp_path: Path) -> None:
    path = write_parts(tmp_path / "x.pth", STORED)
    content = bytearray(path.read_bytes())
    last = content.rindex(b"PK\1\2")
    content[last + 20 : last + 28] = struct.pack("<LL", 10**9, 10**9)
    path.write_bytes(content)
    refused(path, CheckpointError, "is not where the directory says")


def test_a_directory_of_a_million_entries_is_refused(tmp_path: Path) -> None:
    path = write_parts(tmp_path / "x.pth", STORED)
    content = path.read_bytes()
    start = content.index(b"PK\1\2")
    end = bytearray(content[content.index(b"PK\5\6") :])
    entries = content[start : content.index(b"PK\1\2", start + 1)] * 100_000
    end[12:16] = struct.pack("<L", len(entries))
    path.write_bytes(content[:start] + entries + end)
    refused(path, CheckpointError, "directory is longer")


def test_big_endian_archives_are_refused(tmp_path: Path) -> None:
    path = write_parts(tmp_path / "x.pth", STORED | {"archive/byteorder": b"big"})
    refused(path, CheckpointError, "big-endian")


def test_archives_that_are_no_checkpoints(tmp_path: Path) -> None:
    path = write_parts(tmp_path / "x.pth", {"word/document.xml": b"<w/>"})
    refused(path, CheckpointError, r"0 files data\.pkl")
    path = write_parts(path, STORED | {"other/data.pkl": STORED["archive/data.pkl"]})
    refused(path, CheckpointError, r"2 files data\.pkl")
