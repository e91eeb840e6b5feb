"""Reading `.pth` files: what torch writes comes out whole, and nothing else gets in."""

import zlib
from collections import OrderedDict
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from cellvit_jax.errors import CheckpointError
from cellvit_jax.torch_files import read_torch
from cellvit_jax.torch_save import body, plain, proto2, tensor
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


def test_archives_without_checksums_are_read(tmp_path: Path, monkeypatch) -> None:
    pickled = proto2(body({"w": np.zeros(4, np.float32)}, []))
    parts = {"archive/data.pkl": pickled, "archive/data/0": bytes(16)}
    # as torch.serialization.set_crc32_options(False) leaves them
    monkeypatch.setattr(zlib, "crc32", lambda *_: 0)
    path = write_parts(tmp_path / "x.pth", parts)
    monkeypatch.undo()
    np.testing.assert_array_equal(read_torch(path)["w"], np.zeros(4, np.float32))


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
