import subprocess
import sys

import numpy as np
import pytest

from cellvit_jax import cells as room
from cellvit_jax.cells import extract_cells
from cellvit_jax.errors import InputError
from tests.cells.records import record


def test_ids_are_cells_then_the_rest():
    binary, hv, types = record("crowded-512").maps
    types = np.where(np.arange(512)[:, None] < 256, 0, types)
    inst, cells = extract_cells(binary, hv, types)
    assert cells.column("id").tolist() == list(range(1, len(cells) + 1))
    assert len(cells) < inst.max()
    for i in (1, len(cells)):
        assert cells.column("area")[i - 1] == (inst == i).sum()
    assert (types[inst > len(cells)] == 0).all()
    _, first = np.unique(inst, return_index=True)
    assert (np.diff(first[1 : len(cells) + 1]) > 0).all()


@pytest.mark.parametrize("size", [(16, 16), (16, 300), (77, 31)])
def test_any_size(size):
    binary, hv, types = (m[: size[0], : size[1]] for m in record("crowded-512").maps)
    inst, cells = extract_cells(binary, hv, types)
    assert inst.shape == size
    assert len(cells) > 0


@pytest.mark.parametrize("value", [0, 1])
def test_constant_tiles(value):
    flat = np.full((32, 48), value, np.uint8)
    inst, cells = extract_cells(flat, np.zeros((32, 48, 2), np.float32), flat)
    assert (len(cells), inst.max()) == (0, 0)
    assert cells.table["contour"].to_pylist() == []


def test_without_cells_columns_keep_their_types():
    maps = [np.zeros((32, 32, *rest), t) for rest, t in [((), bool), ((2,), "f4"), ((), int)]]
    extras = {
        "probabilities": np.zeros((32, 32, 3), np.float32),
        "tokens": np.zeros((2, 2, 7), np.float32),
    }
    _, none = extract_cells(*maps, **extras)
    full = record("nucls-256-0").maps
    extras["probabilities"] = np.zeros((256, 256, 3), np.float32)
    _, some = extract_cells(*full, **extras)
    assert none.table.schema == some.table.schema


@pytest.mark.parametrize("dtype", [bool, np.int64, np.uint16])
def test_integers_of_any_kind(dtype):
    binary, hv, types = record("nucls-256-0").maps
    expected, _ = extract_cells(binary, hv, types)
    inst, _ = extract_cells(binary.astype(dtype), hv.astype(np.float64), types.astype(int))
    np.testing.assert_array_equal(inst, expected)


def broken(**changes):
    good = {
        "binary": np.ones((32, 32), np.uint8),
        "hv": np.zeros((32, 32, 2), np.float32),
        "types": np.ones((32, 32), np.uint8),
    }
    return good | changes


NAN = np.full((32, 32, 2), np.nan, np.float32)


@pytest.mark.parametrize(
    ("maps", "words"),
    [
        (broken(hv=np.zeros((32, 32, 3), np.float32)), r"hv must have the shape \(H, W, 2\)"),
        (broken(hv=np.zeros((2, 32, 32), np.float32)), r"hv must have the shape"),
        (broken(hv=np.zeros((32, 32, 2), np.int32)), "hv must hold floats, not int32"),
        (broken(hv=NAN), "NaN"),
        (broken(hv=np.full_like(NAN, np.inf)), "infinite"),
        (broken(binary=np.ones((32, 32), np.float32)), "binary must hold integers"),
        (broken(binary=np.full((32, 32), 255, np.uint8)), r"binary must lie in 0\.\.1, not 255"),
        (broken(binary=np.ones((32, 32, 1), np.uint8)), r"binary must have the shape \(H, W\)"),
        (broken(types=np.ones((32, 31), np.uint8)), "types must have the shape"),
        (broken(types=np.full((32, 32), 256)), r"types must lie in 0\.\.255"),
        (broken(types=np.full((32, 32), -1)), r"types must lie in 0\.\.255"),
        (broken(probabilities=np.ones((31, 32, 6), np.float32)), "probabilities must have the"),
        (broken(tokens=np.ones((33, 2, 8), np.float32)), "no grid"),
        (broken(tokens=np.ones((0, 2, 8), np.float32)), "no grid"),
        (broken(normalise="both"), "normalise must be one of"),
        ({k: v[:8] for k, v in broken().items()}, "at least 16x16"),
        ({k: v[:0] for k, v in broken().items()}, "at least 16x16"),
    ],
)
def test_unusable_maps(maps, words):
    with pytest.raises(InputError, match=words):
        extract_cells(**maps)


def test_inputs_are_left_alone():
    maps = record("nucls-256-0").maps
    before = [m.copy() for m in maps]
    extract_cells(*maps)
    for map_, copy in zip(maps, before, strict=True):
        np.testing.assert_array_equal(map_, copy)


def test_public_names():
    assert room.__all__ == sorted(room.__all__)
    assert all(getattr(room, name) is not None for name in room.__all__)
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        _ = room.absent


def test_tables_need_no_compiler():
    code = "import sys; from cellvit_jax.cells import Cells; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
