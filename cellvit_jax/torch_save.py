"""`.pth` files as `torch.save` writes them, written without torch.

The archive holds one pickle of protocol 2, put together from opcodes: the functions that it names
are torch's own, and none of them has to be there to write their names.
"""

import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

from cellvit_jax.torch_files import LOCAL_HEADER, STORAGES

ROOT = "archive"
ALIGNMENT = 64  # where torch puts the start of a storage, so that it can be mapped
TYPES = {dtype: storage for storage, dtype in STORAGES.items()}


def write_torch(file: BinaryIO, value: Any) -> None:
    """Write what `torch.save(value, file)` does, for nested dicts of arrays and plain values.

    NumPy arrays become tensors in row-major order. The bytes depend on the value alone. Raises
    KeyError for arrays of a type that torch has no storage for.
    """
    arrays: list[np.ndarray] = []
    parts = {"data.pkl": proto2(body(value, arrays)), "byteorder": b"little", "version": b"3\n"}
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in parts.items():
            archive.writestr(zipfile.ZipInfo(f"{ROOT}/{name}"), content)
        for i, array in enumerate(arrays):
            _write_storage(archive, f"{ROOT}/data/{i}", array)


def _write_storage(archive: zipfile.ZipFile, name: str, array: np.ndarray) -> None:
    info = zipfile.ZipInfo(name)
    info.file_size = array.nbytes
    start = archive.fp.tell() + LOCAL_HEADER.size + len(name) + 4  # type: ignore[union-attr]
    padding = -start % ALIGNMENT
    info.extra = b"FB" + padding.to_bytes(2, "little") + bytes(padding)
    with archive.open(info, "w") as part:
        part.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


# ----- opcodes ---------------------------------------------------------------------------------


def proto2(opcodes: bytes) -> bytes:
    """A whole pickle of the opcodes of one value."""
    return b"\x80\x02" + opcodes + b"."


def plain(value: Any) -> bytes:
    """A value as pickle writes it, without what starts and ends a pickle."""
    return pickle.dumps(value, 2)[2:-1]


def name(dotted: str) -> bytes:
    """The opcode that asks for a global."""
    module, _, attribute = dotted.rpartition(".")
    return f"c{module}\n{attribute}\n".encode()


def empty_dict() -> bytes:
    """An empty OrderedDict."""
    return name("collections.OrderedDict") + b")R"


def tensor(array: np.ndarray, key: str) -> bytes:
    """A tensor that is the whole of storage `key`, in row-major order."""
    strides = tuple(math.prod(array.shape[i + 1 :]) for i in range(array.ndim))
    identity = b"(" + plain("storage") + name(f"torch.{TYPES[str(array.dtype)]}")
    identity += plain(key) + plain("cpu") + plain(array.size) + b"tQ"
    rebuild = name("torch._utils._rebuild_tensor_v2") + b"(" + identity + plain(0)
    return rebuild + plain(array.shape) + plain(strides) + plain(False) + empty_dict() + b"tR"


def body(value: Any, arrays: list[np.ndarray]) -> bytes:
    """The opcodes of a nested dict with arrays for tensors, which are collected in `arrays`."""
    if isinstance(value, np.ndarray):
        arrays.append(value)
        return tensor(value, str(len(arrays) - 1))
    if isinstance(value, Mapping):
        items = (plain(key) + body(item, arrays) for key, item in value.items())
        empty = empty_dict() if isinstance(value, OrderedDict) else b"}"
        return empty + b"(" + b"".join(items) + b"u"
    return plain(value)
