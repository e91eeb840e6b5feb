"""Reading `.npy` files: arrays and pickled dicts of arrays, and nothing that runs."""

import contextlib
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cellvit_jax.errors import CellViTError, InputError, UnsafeFileError
from cellvit_jax.npy_files import read_npy
from tests.shared import shared


class Evil:
    def __reduce__(self):
        return eval, ("1 + 1",)


def maps() -> dict[str, np.ndarray]:
    return {"inst_map": np.arange(12, dtype=np.int32).reshape(3, 4), "type_map": np.ones((3, 4))}


def write(path: Path, value: object) -> Path:
    np.save(path, np.array(value, dtype=object), allow_pickle=True)
    return path


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float16", "float64", "bool"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(), (5,), (3, 4), (0, 2)])
def test_arrays_come_back_whole(tmp_path: Path, dtype: str, order: str, shape) -> None:
    array = np.asarray(np.random.default_rng(0).integers(0, 2, shape), dtype, order=order)
    np.save(tmp_path / "x.npy", array)
    found = read_npy(tmp_path / "x.npy")
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)
    assert not found.flags.owndata


def test_a_pickled_dict_of_maps(tmp_path: Path) -> None:
    found = read_npy(write(tmp_path / "x.npy", maps()))
    assert list(found) == list(maps())
    for key, array in maps().items():
        assert found[key].dtype == array.dtype
        np.testing.assert_array_equal(found[key], array)


@pytest.mark.parametrize("protocol", range(2, 6))
def test_every_protocol_that_writes_bytes(tmp_path: Path, protocol: int) -> None:
    path = write(tmp_path / "x.npy", 0)
    header = path.read_bytes()[: path.read_bytes().index(b"\n") + 1]
    value = maps() | {"count": np.float32(2.5), "names": ["a", "b"]}
    path.write_bytes(header + pickle.dumps(np.array(value, dtype=object), protocol))
    found = read_npy(path)
    np.testing.assert_array_equal(found["inst_map"], maps()["inst_map"])
    assert found["count"] == 2.5
    assert found["names"] == ["a", "b"]


def test_arrays_of_objects(tmp_path: Path) -> None:
    found = read_npy(write(tmp_path / "x.npy", [{"a": 1}, {"b": [2]}]))
    assert found.tolist() == [{"a": 1}, {"b": [2]}]


def test_real_labels() -> None:
    labels = sorted(shared("data/cellvitpp-examples/Example-Segmentation").rglob("*.npy"))
    assert labels
    for path in labels:
        assert {k: v.shape for k, v in read_npy(path).items()} == dict.fromkeys(
            ("inst_map", "type_map"), (256, 256)
        )


@pytest.mark.parametrize("value", [Evil(), {"a": Evil()}, [Evil(), 1]])
def test_what_runs_is_refused_by_name(tmp_path: Path, value: object) -> None:
    with pytest.raises(UnsafeFileError, match=r"x\.npy asks for builtins\.eval"):
        read_npy(write(tmp_path / "x.npy", value))


def test_strings_as_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsafeFileError, match="not plain numbers"):
        read_npy(write(tmp_path / "x.npy", {"a": np.array(["x"])}))


def test_arrays_of_arrays_are_refused(tmp_path: Path) -> None:
    inner = np.empty(1, dtype=object)
    with pytest.raises(InputError, match="an array of arrays"):
        read_npy(write(tmp_path / "x.npy", {"a": np.array([inner, None], dtype=object)}))


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"hello", b"\x93NUMPY\x09\x00" + bytes(99)])
def test_other_files_are_named_in_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.npy"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"x\.npy is damaged or not a NumPy file"):
        read_npy(path)


def test_every_truncation_is_an_error(tmp_path: Path) -> None:
    for path in (write(tmp_path / "a.npy", {"a": np.ones(3)}), tmp_path / "b.npy"):
        if not path.exists():
            np.save(path, np.ones(3))
        whole = path.read_bytes()
        for size in range(len(whole)):
            path.write_bytes(whole[:size])
            with pytest.raises(InputError):
                read_npy(path)


def test_a_header_that_claims_more_than_the_file(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones(3))
    content = (tmp_path / "x.npy").read_bytes().replace(b"(3,), }         ", b"(3999999999999,)}")
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        read_npy(tmp_path / "x.npy")


@given(data=st.data())
@settings(
    max_examples=200, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_mutated_files_are_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(write(tmp_path / "x.npy", maps()).read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        position = data.draw(st.integers(0, len(content) - 1))
        content[position : position + data.draw(st.integers(0, 8))] = data.draw(
            st.binary(max_size=8)
        )
    (tmp_path / "x.npy").write_bytes(content)
    with contextlib.suppress(CellViTError):
        read_npy(tmp_path / "x.npy")
