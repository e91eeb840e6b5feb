"""`.npy` files, plain or with a pickled object inside, read without running what they say."""

import mmap
import re
from pathlib import Path
from typing import Any

import numpy as np

from cellvit_jax.errors import InputError, UnsafeFileError
from cellvit_jax.unpickle import CONTAINERS, Function, Stream, expect, mapped, sizes, unpickle

HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
MAX_HEADER = 10_000


def read_npy(path: str | Path) -> Any:
    """What `np.load` gives for a `.npy` file, without the danger: an array, or a pickled object.

    Arrays of numbers are read-only views of the mapped file. A file that holds one pickled object
    (`np.save` of a dict of maps) gives that object: containers, plain values and arrays of them.
    Raises `InputError` for a file that is missing or damaged, `UnsafeFileError` for one that asks
    for more.
    """
    with mapped(path, "a NumPy file", InputError) as data:
        shape, fortran, dtype = _npy_header(data)
        if not dtype.hasobject:
            array = np.ndarray(shape[::-1] if fortran else shape, dtype, data, data.tell())
            return array.T if fortran else array
        array = unpickle(Stream(data, data.tell(), len(data)), CONTAINERS | NUMPY)
        if not isinstance(array, np.ndarray) or array.shape != shape:
            raise ValueError("its pickle does not hold the array that its header announces")
        return array if shape else array.item()


def _npy_header(data: mmap.mmap) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(data)
    if version not in HEADERS:
        raise ValueError(f"its format version is {version}")
    try:
        return HEADERS[version](data, MAX_HEADER)
    except Exception as problem:  # NumPy parses it as Python, which fails in many ways
        raise ValueError("its header makes no sense") from problem


def _dtype(code: str, *_: bool) -> np.dtype:
    if not re.fullmatch(r"b1|[iu][1248]|f[248]|c8|c16|O8", expect(code, str)):
        raise UnsafeFileError(
            f"holds NumPy values of type {code[:20]!r}, which are not plain numbers: refused"
        )
    return np.dtype(code)


def _scalar(dtype: np.dtype, data: bytes) -> np.generic:
    (value,) = _from_buffer(data, dtype, (1,), "C")
    return value


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    if not isinstance(dtype, np.dtype) or order not in ("C", "F"):
        raise TypeError("an array has no proper type or order")
    return np.frombuffer(expect(data, bytes, bytearray), dtype).reshape(sizes(shape), order=order)


NUMPY = {
    "numpy.ndarray": "numpy.ndarray",
    "numpy.dtype": Function(_dtype),
    **{
        f"numpy.{core}.{name}": Function(function)
        for core in ("core", "_core")
        for name, function in (
            ("multiarray._reconstruct", lambda *_: np.empty(0, np.int8)),
            ("multiarray.scalar", _scalar),
            ("numeric._frombuffer", _from_buffer),
        )
    },
}
