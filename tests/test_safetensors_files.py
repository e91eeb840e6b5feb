"""Reading `.safetensors` files: good ones come out whole, all others are refused."""

import json
import struct
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from cellvit_jax.errors import CheckpointError
from cellvit_jax.safetensors_files import TYPES, is_safetensors, read_safetensors

ARRAYS = {
    "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "half": np.arange(4, dtype=ml_dtypes.bfloat16),
    "scalar": np.array(7),
    "empty": np.zeros((0, 3), np.float16),
}


def header(arrays: dict[str, np.ndarray]) -> dict[str, dict]:
    kinds = {dtype: kind for kind, dtype in TYPES.items()}
    entries, end = {}, 0
    for name, array in arrays.items():
        end += array.nbytes
        entries[name] = {
            "dtype": kinds[str(array.dtype)],
            "shape": list(array.shape),
            "data_offsets": [end - array.nbytes, end],
        }
    return entries


def write(path: Path, text: str, arrays: dict[str, np.ndarray] = ARRAYS) -> Path:
    content = b"".join(array.tobytes() for array in arrays.values())
    path.write_bytes(struct.pack("<Q", len(text.encode())) + text.encode() + content)
    return path


def test_tensors_are_views_of_the_file(tmp_path: Path) -> None:
    entries = {"__metadata__": {"format": "pt"}} | header(ARRAYS)
    path = write(tmp_path / "x", json.dumps(entries))
    assert is_safetensors(path)
    found = read_safetensors(path)
    assert list(found) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        assert not found[name].flags.owndata
        assert not found[name].flags.writeable
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda e: e["half"].update(data_offsets=[16, 24]), "overlap"),
        (lambda e: e["scalar"].update(data_offsets=[36, 44]), "overlap, leave gaps"),
        (lambda e: e["scalar"].update(data_offsets=[2**70, 2**70 + 8]), "reach beyond"),
        (lambda e: e["half"].update(shape=[2**62, 2**62]), "not as long"),
        (lambda e: e["half"].update(shape=[-4, -1]), "a few sizes"),
        (lambda e: e["half"].update(shape="4"), "a str stands where"),
        (lambda e: e["half"].update(dtype="F4"), "has the type 'F4'"),
        (lambda e: e["half"].pop("data_offsets"), "a NoneType stands where"),
        (lambda e: e.pop("scalar"), "leave gaps"),
        (lambda e: e.update(x=[]), "a list stands where"),
    ],
)
def test_headers_that_lie_are_refused(tmp_path: Path, change, sentence: str) -> None:
    entries = header(ARRAYS)
    change(entries)
    with pytest.raises(CheckpointError, match=f"x is damaged or not a safetensors.*{sentence}"):
        read_safetensors(write(tmp_path / "x", json.dumps(entries)))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"a": {}, "a": {}}', "a name twice"),
        ("[" * 10**5, "nested too deeply"),
        ("[1, 2]", "a list stands where a dict"),
        ("{", "Expecting"),
    ],
)
def test_headers_that_are_none_are_refused(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(CheckpointError, match=sentence):
        read_safetensors(write(tmp_path / "x", text, {}))


@pytest.mark.parametrize("content", [b"", b"abc", b"\xff" * 64, struct.pack("<Q", 99) + b"{}"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(CheckpointError, match="x is damaged or not a safetensors file"):
        read_safetensors(tmp_path / "x")
    assert not is_safetensors(tmp_path / "missing")
