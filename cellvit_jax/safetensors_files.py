"""`.safetensors` files: a header in JSON that says where each tensor lies, then their bytes.

Tensors come out as NumPy arrays that view the mapped file, as those of a `.pth` do: the library
of that name would copy each of them.
"""

import json
import mmap
import struct
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from cellvit_jax.errors import CheckpointError
from cellvit_jax.torch_files import DTYPES
from cellvit_jax.unpickle import expect, mapped, sizes

LENGTH = struct.Struct("<Q")
MAX_HEADER_BYTES = 4 * 2**20
TYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}


def is_safetensors(path: str | Path) -> bool:
    """Whether a file starts like one; no `.pth` does."""
    try:
        with open(path, "rb") as file:
            return file.read(LENGTH.size + 1)[LENGTH.size :] == b"{"
    except OSError:
        return False


def read_safetensors(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of a file by name, as read-only views; its metadata are left aside.

    Raises `CheckpointError` for a file that is missing or damaged, that gives a name twice, or
    whose tensors overlap, leave gaps or reach beyond the file.
    """
    with mapped(path, "a safetensors file", CheckpointError) as data:
        header, start = _header(data)
        header.pop("__metadata__", None)
        places = {name: _place(name, entry) for name, entry in header.items()}
        ends = sorted((first, last) for _, _, first, last in places.values())
        edges = [(0, 0), *ends, (len(data) - start, len(data) - start)]
        if any(before[1] != after[0] for before, after in pairwise(edges)):
            raise ValueError("its tensors overlap, leave gaps or reach beyond its end")
        return {
            name: np.ndarray(shape, dtype, data, start + first)
            for name, (shape, dtype, first, _) in places.items()
        }


def _header(data: mmap.mmap) -> tuple[dict[str, Any], int]:
    """The header, and where the tensors start."""
    (length,) = LENGTH.unpack(data[: LENGTH.size].ljust(LENGTH.size, b"\0"))
    start = LENGTH.size + length
    if length > MAX_HEADER_BYTES or start > len(data):
        raise ValueError("its header is longer than the file, or than that of any checkpoint")
    try:
        header = json.loads(data[LENGTH.size : start], object_pairs_hook=_unique)
    except RecursionError as problem:
        raise ValueError("its header is nested too deeply") from problem
    return expect(header, dict), start


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("its header gives a name twice")
    return found


def _place(name: str, entry: Any) -> tuple[tuple[int, ...], np.dtype, int, int]:
    """Shape, type, and where a tensor starts and stops."""
    kind, shape, offsets = (expect(entry, dict).get(k) for k in ("dtype", "shape", "data_offsets"))
    if expect(kind, str) not in TYPES:
        raise ValueError(f"its tensor {name[:80]!r} has the type {kind[:20]!r}")
    dtype = np.dtype(DTYPES[TYPES[kind]])
    shape, ends = sizes(tuple(expect(shape, list))), sizes(tuple(expect(offsets, list)))
    if len(ends) != 2 or ends[1] - ends[0] != prod(shape) * dtype.itemsize:
        raise ValueError(f"its tensor {name[:80]!r} is not as long as its shape and type say")
    return shape, dtype, ends[0], ends[1]
