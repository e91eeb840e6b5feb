"""Writing `.pth` files: what is written comes back, here and in torch."""

import zipfile
from collections import OrderedDict
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from cellvit_jax.torch_files import read_torch
from cellvit_jax.torch_save import ALIGNMENT, write_torch

VALUE = {
    "arch": "CellViT256",
    "epoch": None,
    "config": {"a.b": [1, 2], "rate": 0.5, "μ": "ü", "nothing": {}},
    "state": OrderedDict(
        transposed=np.arange(12, dtype=np.float32).reshape(3, 4).T,
        empty=np.zeros((0, 4), np.float16),
        scalar=np.array(7),
        bfloat16=np.arange(6, dtype=ml_dtypes.bfloat16),
        flags=np.array([True, False]),
    ),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with (tmp_path / "x.pth").open("wb") as file:
        write_torch(file, VALUE)
    return tmp_path / "x.pth"


def test_what_is_written_is_read(path: Path) -> None:
    found = read_torch(path)
    assert [found[key] for key in ("arch", "epoch", "config")] == list(VALUE.values())[:3]
    assert list(found["state"]) == list(VALUE["state"])
    for key, array in VALUE["state"].items():
        assert found["state"][key].dtype == array.dtype
        assert found["state"][key].flags.c_contiguous
        np.testing.assert_array_equal(found["state"][key], array)


def test_storages_are_aligned(path: Path) -> None:
    for array in read_torch(path)["state"].values():
        assert array.size == 0 or array.ctypes.data % ALIGNMENT == 0


def test_the_bytes_depend_on_the_value_alone(path: Path, tmp_path: Path) -> None:
    with (tmp_path / "y.pth").open("wb") as file:
        write_torch(file, VALUE)
    assert path.read_bytes() == (tmp_path / "y.pth").read_bytes()
    assert zipfile.ZipFile(path).testzip() is None


def test_types_without_a_storage_are_an_error(tmp_path: Path) -> None:
    with (tmp_path / "x.pth").open("wb") as file, pytest.raises(KeyError, match="complex64"):
        write_torch(file, {"a": np.ones(2, np.complex64)})


@pytest.mark.parametrize("mmap", [False, True])
def test_torch_reads_it_as_weights_only(path: Path, mmap: bool) -> None:
    torch = pytest.importorskip("torch")
    found = torch.load(path, weights_only=True, mmap=mmap)
    assert found["config"] == VALUE["config"]
    for key, array in VALUE["state"].items():
        tensor = found["state"][key]
        assert str(tensor.dtype) == f"torch.{array.dtype}"
        np.testing.assert_array_equal(tensor.float().numpy(), array.astype(np.float32))
