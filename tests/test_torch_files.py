"""Reading `.pth` files: what torch writes comes out whole, and nothing else gets in."""

import contextlib
import pickle
import struct
import zipfile
import zlib
from collections import OrderedDict
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cellvit_jax.errors import CellViTError, CheckpointError, UnsafeFileError
from cellvit_jax.torch_files import read_torch
from cellvit_jax.torch_save import body, empty_dict, name, plain, proto2, tensor
from tests.convert.archives import write_archive, write_legacy, write_parts, write_pickle
from tests.shared import shared

WRITERS = [write_archive, write_legacy]
DTYPES = ["float64", "float32", "float16", "int64", "int32", "uint8", "bool"]


def example() -> dict[str, object]:
    arrays = {dtype: np.arange(6).reshape(2, 3).astype(dtype) for dtype in DTYPES}
    arrays |= {"scalar": np.array(3.5, np.float32), "empty": np.zeros((0, 4), np.float32)}
    arrays["bfloat16"] = np.arange(6, dtype=ml_dtypes.bfloat16)
    return {"arch": "CellViT256", "epoch": 3, "config": {"lr": 1e-4}, "state": arrays}


def assert_same(found: object, expected: object) -> None:
    if isinstance(expected, dict):
        assert isinstance(found, dict)
        assert list(found) == list(expected)
        for key in expected:
            assert_same(found[key], expected[key])
    elif isinstance(expected, np.ndarray):
        assert isinstance(found, np.ndarray)
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
    else:
        assert found == expected


@pytest.mark.parametrize("write", WRITERS)
def test_both_formats_come_back_whole(tmp_path: Path, write) -> None:
    assert_same(read_torch(write(tmp_path / "x.pth", example())), example())


def test_tensors_are_views_of_the_file(tmp_path: Path) -> None:
    array = read_torch(write_archive(tmp_path / "x.pth", {"w": np.ones((64, 64), np.float32)}))["w"]
    assert not array.flags.owndata
    assert not array.flags.writeable


def test_transposed_and_overlapping_views(tmp_path: Path) -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    whole = tensor(array, "0")
    transposed = tensor(array.T, "0").replace(plain((3, 1)), plain((1, 4)))
    path = write_pickle(tmp_path / "x.pth", transposed + whole + b"\x86", s0=array.tobytes())
    first, second = read_torch(path)
    np.testing.assert_array_equal(first, array.T)
    np.testing.assert_array_equal(second, array)


def test_real_classifier_heads() -> None:
    heads = sorted(shared("data/classifiers/sam-h").glob("*.pth"))
    assert heads
    for head in heads:
        state = read_torch(head)["model_state_dict"]
        assert [array.ndim for array in state.values()] == [2, 1, 2, 1]
        assert all(np.isfinite(array).all() for array in state.values())


# ----- files that are not checkpoints ----------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [b"", b"\x80", b"hello, world\n" * 9, b"\x89PNG\r\n\x1a\n" * 4, b"PK\3\4", b"\0" * 99],
)
def test_other_files_are_named_in_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"x\.pth is damaged or not a PyTorch checkpoint"):
        read_torch(path)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not there"):
        read_torch(tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="is a folder"):
        read_torch(tmp_path)


@pytest.mark.parametrize("write", WRITERS)
def test_every_truncation_is_an_error(tmp_path: Path, write) -> None:
    whole = write(tmp_path / "x.pth", {"w": np.arange(9.0)}).read_bytes()
    short = tmp_path / "short.pth"
    for size in range(len(whole)):
        short.write_bytes(whole[:size])
        with pytest.raises(CheckpointError):
            read_torch(short)


def test_a_flipped_bit_in_a_weight_is_noticed(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "x.pth", {"w": np.full(999, 1.5, np.float32)})
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="checksum"):
        read_torch(path)


# ----- files that mean harm --------------------------------------------------------------------

STORAGE = b"(" + plain("storage") + name("torch.FloatStorage")


def storage(key: str = "0", count: int = 4) -> bytes:
    return STORAGE + plain(key) + plain("cpu") + plain(count) + b"tQ"


def rebuild(*arguments: bytes) -> bytes:
    inside = b"".join(arguments) + plain(False) + empty_dict()
    return name("torch._utils._rebuild_tensor_v2") + b"(" + inside + b"tR"


def call(function: str, *arguments: object) -> bytes:
    return name(function) + plain(arguments) + b"R"


def laughs(levels: int) -> bytes:
    """Lists that hold the list before twice: small in memory, endless to whoever walks them."""
    return b"]" + b"".join(b"q\x01]h\x01ah\x01a" for _ in range(levels))


SET = name("builtins.set") + b"q\x02"
ENCODE = name("_codecs.encode") + b"q\x02"

HARMFUL = {
    "os.system": call("os.system", "touch pwned"),
    "posix.system": call("posix.system", "touch pwned"),
    "subprocess": call("subprocess.Popen", ["touch", "pwned"]),
    "eval": call("builtins.eval", "open('pwned', 'w')"),
    "exec in python 2 names": call("__builtin__.exec", "open('pwned', 'w')"),
    "stack global": plain("os") + plain("system") + b"\x93" + plain(("touch pwned",)) + b"R",
    "dotted attribute": call("torch._utils._rebuild_tensor_v2.__globals__.get", "os"),
    "attribute of an allowed class": call("collections.OrderedDict.__init__.__globals__", "x"),
    "torch's own loader": call("torch.load", "pwned"),
    "numpy's own loader": call("numpy.load", "pwned"),
    "getattr": call("builtins.getattr", "x", "y"),
    "harmless but unknown": call("decimal.Decimal", "1"),
    "nested in the config": plain("config") + call("os.system", "touch pwned") + b"\x86",
    "in a key": b"}" + call("os.system", "touch pwned") + plain(1) + b"s",
    "instance opcode": b"(" + plain("touch pwned") + b"ios\nsystem\n",
    "object opcode": b"(" + name("os.system") + plain("touch pwned") + b"o",
    "deep nesting": b"(" * 50_000 + b"l" * 50_000,
    "deep tuples": b")" + b"\x85" * 50_000,
    "endless work": b"(" + b"N" * 100_000 + b"l\x85q\x01" + SET + b"h\x02h\x01R" * 9_000,
    "endless memory": plain("x" * 10**6)
    + b"q\x01"
    + ENCODE
    + b"h\x02h\x01\x8c\x06latin1\x86R" * 999,
}

BROKEN = {
    "calling a value": plain("x") + b")R",
    "calling an array": plain("x") + rebuild(storage(), plain(0), plain((4,)), plain((1,))) + b"R",
    "tuple as a key": b"}" + plain((1, 2)) + plain(1) + b"s",
    "endless hash": b"}"
    + laughs(64).replace(b"]h\x01ah\x01a", b"h\x01h\x01\x86")
    + plain(1)
    + b"s",
    "memo without a value": b"h\x07",
    "memo with a giant index": b"Nr\xff\xff\xff\x7fj\xfe\xff\xff\x7f",
    "giant string": b"X\xff\xff\xff\x7fabc",
    "giant bytes": b"\x8e\xff\xff\xff\xff\xff\xff\xff\x0fabc",
    "giant integer": b"\x8b\xff\xff\xff\x7fabc",
    "extension registry": b"\x82\x01",
    "new object with keywords": name("collections.OrderedDict") + b")}\x92",
    "empty stack": b"Na",
    "no mark": b"N" + b"t",
    "state for a global type": name("torch.float32") + plain((3, ">", None)) + b"b",
    "storage that is missing": rebuild(storage("9"), plain(0), plain((4,)), plain((1,))),
    "storage that claims more": rebuild(storage("0", 10**12), plain(0), plain((4,)), plain((1,))),
    "storage by a path": rebuild(storage("../data.pkl"), plain(0), plain((4,)), plain((1,))),
    "negative storage": rebuild(storage("0", -1), plain(0), plain((4,)), plain((1,))),
    "offset out of range": rebuild(storage(), plain(2), plain((4,)), plain((1,))),
    "negative offset": rebuild(storage(), plain(-1), plain((4,)), plain((1,))),
    "stride out of range": rebuild(storage(), plain(0), plain((2, 2)), plain((4, 1))),
    "negative stride": rebuild(storage(), plain(3), plain((4,)), plain((-1,))),
    "giant tensor of one value": rebuild(storage(), plain(0), plain((10**9, 10**9)), plain((0, 0))),
    "shape of lists": rebuild(storage(), plain(0), laughs(64) + b"\x85", plain((1,))),
    "too many dimensions": rebuild(storage(), plain(0), plain((1,) * 999), plain((1,) * 999)),
    "strides missing": rebuild(storage(), plain(0), plain((2, 2)), plain((1,))),
    "whole module": b"(" + plain("module") + b"NNNNtQ",
    "persistent id of nothing": b"NQ",
    "view of a list": rebuild(b"]", plain(0), plain((1,)), plain((1,))),
    "device of lists": name("torch.device") + laughs(64) + b"\x85R" + b"a",
}


@pytest.mark.parametrize("case", HARMFUL)
def test_harmful_pickles_are_refused_and_not_run(tmp_path: Path, monkeypatch, case: str) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_pickle(tmp_path / "x.pth", HARMFUL[case], s0=bytes(16))
    with pytest.raises(UnsafeFileError, match=r"x\.pth "):
        read_torch(path)
    assert [p.name for p in tmp_path.iterdir()] == ["x.pth"]


@pytest.mark.parametrize("case", BROKEN)
def test_broken_pickles_are_an_error(tmp_path: Path, case: str) -> None:
    path = write_pickle(tmp_path / "x.pth", BROKEN[case], s0=bytes(16))
    with pytest.raises(CheckpointError, match=r"x\.pth is damaged"):
        read_torch(path)


def test_what_is_refused_is_named(tmp_path: Path) -> None:
    path = write_pickle(tmp_path / "x.pth", HARMFUL["posix.system"])
    with pytest.raises(UnsafeFileError, match=r"asks for posix\.system"):
        read_torch(path)


def test_a_name_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    path = write_pickle(tmp_path / "x.pth", plain("os\x1b[2J") + plain("x\n") + b"\x93")
    with pytest.raises(UnsafeFileError, match=r"asks for os\?\?2J\.x\?"):
        read_torch(path)


def test_bare_pickles_are_read_as_carefully(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return eval, ("1 + 1",)

    path = tmp_path / "x.pth"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        path.write_bytes(pickle.dumps({"a": Evil()}, protocol))
        with pytest.raises(UnsafeFileError, match=r"asks for (builtins|__builtin__)\.eval"):
            read_torch(path)


def test_dtype_singletons_are_left_alone(tmp_path: Path) -> None:
    path = write_pickle(tmp_path / "x.pth", BROKEN["state for a global type"])
    with pytest.raises(CheckpointError):
        read_torch(path)
    assert np.dtype("float32").byteorder == "="


# ----- archives that mean harm -----------------------------------------------------------------

GOOD = {"archive/data.pkl": proto2(body({"w": np.zeros(4, np.float32)}, []))}
STORED = GOOD | {"archive/data/0": bytes(16)}


@pytest.mark.parametrize(
    "part", ["../evil", "archive/../../evil", "/etc/evil", "archive\\evil", "archive//evil", "evil"]
)
def test_path_tricks_are_refused(tmp_path: Path, part: str) -> None:
    with pytest.raises(UnsafeFileError, match="has a part"):
        read_torch(write_parts(tmp_path / "x.pth", STORED | {part: b"x"}))


def test_compressed_bombs_are_refused(tmp_path: Path) -> None:
    path = write_parts(
        tmp_path / "x.pth", GOOD | {"archive/data/0": bytes(10**7)}, zipfile.ZIP_DEFLATED
    )
    with pytest.raises(CheckpointError, match="is compressed"):
        read_torch(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_duplicate_entries_are_refused(tmp_path: Path) -> None:
    path = write_parts(tmp_path / "x.pth", STORED)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/data/0", b"\xff" * 16)
    with pytest.raises(CheckpointError, match="two parts claim one place or name"):
        read_torch(path)


def test_overlapping_entries_are_refused(tmp_path: Path) -> None:
    path = write_parts(tmp_path / "x.pth", STORED | {"archive/data/1": bytes(16)})
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        offset = archive.getinfo("archive/data/0").header_offset
    last = content.rindex(b"PK\1\2")
    content[last + 42 : last + 46] = struct.pack("<L", offset)
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="two parts claim one place or name"):
        read_torch(path)


def test_directory_of_a_million_entries_is_refused(tmp_path: Path) -> None:
    path = write_parts(tmp_path / "x.pth", STORED)
    content = path.read_bytes()
    start = content.index(b"PK\1\2")
    end = bytearray(content[content.index(b"PK\5\6") :])
    entries = content[start : content.index(b"PK\1\2", start + 1)] * 100_000
    end[12:16] = struct.pack("<L", len(entries))
    path.write_bytes(content[:start] + entries + end)
    with pytest.raises(CheckpointError, match="directory is longer"):
        read_torch(path)


def test_big_endian_archives_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="big-endian"):
        read_torch(write_parts(tmp_path / "x.pth", STORED | {"archive/byteorder": b"big"}))


def test_archives_that_are_no_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"0 files data\.pkl"):
        read_torch(write_parts(tmp_path / "x.pth", {"word/document.xml": b"<w/>"}))
    two = STORED | {"other/data.pkl": STORED["archive/data.pkl"]}
    with pytest.raises(CheckpointError, match=r"2 files data\.pkl"):
        read_torch(write_parts(tmp_path / "x.pth", two))


def test_archives_without_checksums_are_read(tmp_path: Path, monkeypatch) -> None:
    # as torch.serialization.set_crc32_options(False) leaves them
    monkeypatch.setattr(zlib, "crc32", lambda *_: 0)
    path = write_parts(tmp_path / "x.pth", STORED)
    monkeypatch.undo()
    np.testing.assert_array_equal(read_torch(path)["w"], np.zeros(4, np.float32))


# ----- anything at all -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("originals")
    return [write(folder / "x.pth", example()).read_bytes() for write in WRITERS]


@given(data=st.data())
@settings(
    max_examples=300, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_mutated_files_are_read_or_refused(tmp_path: Path, originals, data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from(originals)))
    for _ in range(data.draw(st.integers(1, 8))):
        position = data.draw(st.integers(0, len(content) - 1))
        chunk = data.draw(st.binary(min_size=0, max_size=8))
        content[position : position + data.draw(st.integers(0, 8))] = chunk
    path = tmp_path / "mutated.pth"
    path.write_bytes(content)
    with contextlib.suppress(CellViTError):
        read_torch(path)


@given(opcodes=st.binary(max_size=200))
@settings(
    max_examples=300, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_opcodes_are_read_or_refused(tmp_path: Path, opcodes: bytes) -> None:
    path = write_pickle(tmp_path / "mutated.pth", opcodes, s0=bytes(16))
    with contextlib.suppress(CellViTError):
        read_torch(path)


# ----- torch itself ----------------------------------------------------------------------------


@pytest.mark.parametrize("zipped", [True, False])
def test_files_of_torch_itself(tmp_path: Path, zipped: bool) -> None:
    torch = pytest.importorskip("torch")
    shared_storage = torch.arange(12.0).reshape(3, 4)
    value = {
        "transposed": shared_storage.T,
        "slice": shared_storage[1:, ::2],
        "parameter": torch.nn.Parameter(torch.ones(2, 3)),
        "scalar": torch.tensor(2.5, dtype=torch.float64),
        "empty": torch.zeros(0, 3),
        "flags": torch.tensor([True, False]),
        "batches": torch.tensor(1000),
        "half": torch.linspace(-2, 2, 7).half(),
        "bytes": torch.arange(5, dtype=torch.uint8),
    }
    more = {
        "lr": [1e-4, None],
        "size": shared_storage.shape,
        "set": {1, 2},
        "metric": np.float64(3),
    }
    layers = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)).state_dict()
    torch.save(
        {"tensors": value, "more": more, "layers": layers, "dtype": torch.float16},
        tmp_path / "x.pth",
        _use_new_zipfile_serialization=zipped,
    )
    found = read_torch(tmp_path / "x.pth")
    assert_same(found["tensors"], {k: v.detach().numpy() for k, v in value.items()})
    assert found["more"] == more
    assert_same(found["layers"], OrderedDict((k, v.numpy()) for k, v in layers.items()))
    assert found["dtype"] == np.float16


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn", "float8_e5m2", "uint16", "uint32"])
def test_rare_types_of_torch_itself(tmp_path: Path, dtype: str) -> None:
    torch = pytest.importorskip("torch")
    values = torch.arange(1, 9).to(getattr(torch, dtype)).reshape(2, 4)
    torch.save({"w": values[:, 1:]}, tmp_path / "x.pth")
    array = read_torch(tmp_path / "x.pth")["w"]
    assert array.dtype.name == dtype
    np.testing.assert_array_equal(array.astype(np.float32), values[:, 1:].to(torch.float32).numpy())


@pytest.mark.parametrize("kind", ["Adam", "AdamW", "SGD"])
@pytest.mark.parametrize("zipped", [True, False])
def test_an_optimiser_saved_whole_is_read_past(tmp_path, kind, zipped):
    """As SAM-Med2D's training saves it, with its parameters for keys."""
    torch = pytest.importorskip("torch")
    layer = torch.nn.Linear(3, 2)
    optimiser = getattr(torch.optim, kind)(layer.parameters(), lr=0.5)
    layer(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    value = {"model": layer.state_dict(), "optimizer": optimiser}
    torch.save(value, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    found = read_torch(tmp_path / "x.pth")
    np.testing.assert_array_equal(found["model"]["weight"], layer.weight.detach().numpy())
    assert found["optimizer"]["defaults"]["lr"] == 0.5
