"""`.pth` files, as `torch.save` writes them, read without torch and without running them.

Tensors come out as NumPy arrays that view the mapped file: nothing is copied, and a page is read
from disk when somebody looks at it.
"""

import math
import mmap
import re
import struct
import zipfile
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from cellvit_jax.errors import CheckpointError, UnsafeFileError
from cellvit_jax.npy_files import NUMPY
from cellvit_jax.unpickle import (
    CONTAINERS,
    Function,
    Namespace,
    Stream,
    expect,
    mapped,
    sizes,
    unpickle,
)

MAX_DIRECTORY_BYTES = 4 * 2**20
MAX_PICKLE_BYTES = 64 * 2**20
LOCAL_HEADER = struct.Struct("<4s5H3L2H")
LEGACY_MAGIC, LEGACY_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001

STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}

DTYPES = {
    "float64": np.float64,
    "float32": np.float32,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
    "float8_e4m3fnuz": ml_dtypes.float8_e4m3fnuz,
    "float8_e5m2": ml_dtypes.float8_e5m2,
    "float8_e5m2fnuz": ml_dtypes.float8_e5m2fnuz,
    "int64": np.int64,
    "int32": np.int32,
    "int16": np.int16,
    "int8": np.int8,
    "uint64": np.uint64,
    "uint32": np.uint32,
    "uint16": np.uint16,
    "uint8": np.uint8,
    "bool": np.bool_,
}


def read_torch(path: str | Path) -> Any:
    """What `torch.load` gives for a file, with NumPy arrays (read-only views) for tensors.

    Reads the zip archives and the older format without one. bfloat16 and the float8 types are
    those of `ml_dtypes`. Raises `CheckpointError` for a file that is missing, damaged or something
    else, `UnsafeFileError` for one that asks for more than tensors, containers and plain values.
    """
    with mapped(path, "a PyTorch checkpoint", CheckpointError) as data:
        return _Archive(data).load() if data[:4] == b"PK\3\4" else _read_legacy(data)


# ----- zip archives ----------------------------------------------------------------------------


class _Directory:
    """The mapped file as zipfile reads it, which would take a directory of any length."""

    def __init__(self, data: mmap.mmap):
        self.data, self.seek, self.tell = data, data.seek, data.tell

    def read(self, size: int | None = None) -> bytes:
        if size is not None and size > MAX_DIRECTORY_BYTES:
            raise ValueError("its directory is longer than that of any checkpoint")
        return self.data.read(size)


class _Archive:
    """The members of a zip file as stretches of the mapped file, each whole and on its own."""

    def __init__(self, data: mmap.mmap):
        self.data = data
        self.members: dict[str, tuple[int, int, int]] = {}
        self.intact: set[str] = set()
        end = 0
        for info in sorted(_entries(data), key=lambda info: info.header_offset):
            if info.header_offset < end or info.orig_filename in self.members:
                raise ValueError(f"two parts claim one place or name, {info.filename[:80]!r}")
            start = _content(data, info)
            end = start + info.file_size
            self.members[info.orig_filename] = start, end, info.CRC

    def find(self, name: str) -> tuple[int, int]:
        """Where a member starts and stops, after a look at its checksum."""
        if name not in self.members:
            raise ValueError(f"its part {name[:80]!r} is missing")
        start, stop, checksum = self.members[name]
        if name not in self.intact:
            # torch can be told to leave checksums out, and then writes 0.
            if checksum not in (0, zlib.crc32(memoryview(self.data)[start:stop])):
                raise ValueError(f"the checksum of its part {name[:80]!r} is wrong")
            self.intact.add(name)
        return start, stop

    def load(self) -> Any:
        names = [name for name in self.members if name.endswith("/data.pkl")]
        if len(names) != 1:
            raise ValueError(f"it holds {len(names)} files data.pkl instead of one")
        root = names[0].removesuffix("data.pkl")
        if f"{root}byteorder" in self.members:
            start, stop = self.find(f"{root}byteorder")
            _check_byte_order(self.data[start:stop] == b"little")
        start, stop = self.find(names[0])
        if stop - start > MAX_PICKLE_BYTES:
            raise ValueError("its data.pkl is longer than that of any checkpoint")
        return unpickle(Stream(self.data, start, stop), GLOBALS, partial(self.storage, root))

    def storage(self, root: str, identity: Any) -> np.ndarray:
        dtype, key, count = _storage(identity)
        start, stop = self.find(f"{root}data/{key}")
        if stop - start != count * dtype.itemsize:
            raise ValueError(f"storage {key[:80]!r} does not hold {count} values of {dtype}")
        return np.ndarray(count, dtype, self.data, start)


def _entries(data: mmap.mmap) -> list[zipfile.ZipInfo]:
    try:
        return zipfile.ZipFile(_Directory(data)).infolist()  # type: ignore[call-overload]
    except (zipfile.BadZipFile, NotImplementedError, struct.error) as problem:
        raise ValueError(f"its zip directory is unreadable ({problem})") from problem


def _content(data: mmap.mmap, info: zipfile.ZipInfo) -> int:
    """Where the content of an entry starts, if it is an entry of the kind that torch writes."""
    name = info.orig_filename
    part = f"its part {name[:80]!r}"
    if not re.fullmatch(r"[^/\\\0]+(/[^/\\\0]+)+", name) or {".", ".."} & set(name.split("/")):
        raise UnsafeFileError(f"has a part {name[:80]!r}, a name that torch never gives: refused")
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
        raise ValueError(f"{part} is compressed, which torch never does")
    header = data[info.header_offset : info.header_offset + LOCAL_HEADER.size]
    signature, *_, name_length, extra_length = LOCAL_HEADER.unpack(header)
    start = info.header_offset + LOCAL_HEADER.size + name_length + extra_length
    if signature != b"PK\3\4" or start + info.file_size > len(data):
        raise ValueError(f"{part} is not where the directory says")
    return start


def _check_byte_order(little: bool) -> None:
    if not little:
        raise ValueError("it was written on a big-endian machine")


# ----- the older format ------------------------------------------------------------------------


def _read_legacy(data: mmap.mmap) -> Any:
    """Five pickles (magic number, version, system, value, keys of the storages), then storages.

    The storages lie behind the pickle that speaks of them, so it is read twice: first for how
    long they are, and then to build views of them.
    """
    stream = Stream(data, 0, min(len(data), MAX_PICKLE_BYTES))
    if [unpickle(stream, GLOBALS) for _ in range(2)] != [LEGACY_MAGIC, LEGACY_PROTOCOL]:
        raise ValueError("it does not start like one")
    _check_byte_order(unpickle(stream, {}).get("little_endian") is True)
    start = stream.position
    storages: dict[str, tuple[np.dtype, str, int]] = {}
    unpickle(stream, GLOBALS | FORGET_TENSORS, lambda identity: _note(storages, identity))
    keys = unpickle(stream, {})
    if not all(type(key) is str and key in storages for key in keys):
        raise ValueError("its list of storages does not fit its tensors")
    views = _legacy_views(data, stream.position, [storages[key] for key in keys])
    return unpickle(
        Stream(data, start, stream.position), GLOBALS, lambda identity: views[_storage(identity)]
    )


def _note(storages: dict[str, tuple[np.dtype, str, int]], identity: Any) -> None:
    found = _storage(identity)
    if storages.setdefault(found[1], found) != found:
        raise ValueError(f"storage {found[1][:80]!r} has two types or sizes")


def _legacy_views(
    data: mmap.mmap, position: int, storages: list[tuple[np.dtype, str, int]]
) -> dict[tuple[np.dtype, str, int], np.ndarray]:
    views = {}
    for dtype, key, count in storages:
        if data[position : position + 8] != struct.pack("<q", count):
            raise ValueError(f"storage {key[:80]!r} has another length than its tensors say")
        views[dtype, key, count] = np.ndarray(count, dtype, data, position + 8)
        position += 8 + count * dtype.itemsize
    return views


# ----- tensors ---------------------------------------------------------------------------------


def _storage(identity: Any) -> tuple[np.dtype, str, int]:
    """dtype, key and number of values, from `("storage", dtype, key, device, count[, view])`."""
    kind, dtype, key, _, count, *view = expect(identity, tuple)[:6]
    if kind != "storage" or not isinstance(dtype, np.dtype) or view not in ([], [None]):
        raise ValueError("it holds a whole module or a view of a storage, not plain tensors")
    if type(key) is not str or type(count) is not int or count < 0:
        raise ValueError("a storage has no proper name or size")
    return dtype, key, count


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> np.ndarray:
    """A view of a storage; NumPy checks that it stays inside."""
    (offset,) = sizes((offset,))
    if math.prod(sizes(shape)) > _plain(storage).size:
        raise ValueError(f"a tensor of shape {shape} does not fit its storage of {storage.size}")
    if 0 in shape:
        return np.empty(shape, storage.dtype)
    size = storage.itemsize
    steps = tuple(stride * size for stride in sizes(strides))
    return np.ndarray(shape, storage.dtype, storage, offset * size, steps)


def _typed_tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, grad: Any, hooks: Any, dtype: Any, *_: Any
) -> np.ndarray:
    if not isinstance(dtype, np.dtype) or dtype.hasobject:
        raise TypeError("a tensor has no proper type")
    return _tensor(_plain(storage).view(dtype), offset, shape, strides)


def _plain(array: Any) -> np.ndarray:
    if not isinstance(array, np.ndarray) or array.dtype.hasobject:
        raise TypeError("a tensor is made of something else than numbers")
    return array


TENSORS = {
    "torch._utils._rebuild_tensor": Function(_tensor),
    "torch._utils._rebuild_tensor_v2": Function(_tensor),
    "torch._utils._rebuild_tensor_v3": Function(_typed_tensor),
    "torch._utils._rebuild_parameter": Function(lambda tensor, *_: tensor),
}
FORGET_TENSORS = dict.fromkeys(TENSORS, Function(lambda *_: None))

# optimisers that were saved whole, beside a network: their fields, as plain values
OPTIMISERS = ("adam.Adam", "adamw.AdamW", "sgd.SGD")

GLOBALS = {
    **CONTAINERS,
    **NUMPY,
    **TENSORS,
    **{f"torch.{name}": np.dtype(DTYPES[dtype]) for name, dtype in STORAGES.items()},
    **{f"torch.{name}": np.dtype(dtype) for name, dtype in DTYPES.items()},
    "torch.storage.UntypedStorage": np.dtype(np.uint8),
    **{f"torch.optim.{name}": Function(lambda: Namespace()) for name in OPTIMISERS},
    "torch.Size": Function(sizes),
    "torch.device": Function(lambda kind, *index: kind),
}
