"""`.pth` files written without torch, byte by byte as `torch.save` lays them out."""

import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cellvit_jax.torch_files import LEGACY_MAGIC, LEGACY_PROTOCOL

STORAGES = {
    "float64": "Double",
    "float32": "Float",
    "float16": "Half",
    "bfloat16": "BFloat16",
    "int64": "Long",
    "int32": "Int",
    "uint8": "Byte",
    "bool": "Bool",
}


def name(dotted: str) -> bytes:
    """The opcode that asks for a global."""
    module, _, attribute = dotted.rpartition(".")
    return f"c{module}\n{attribute}\n".encode()


def plain(value: Any) -> bytes:
    """A value as pickle writes it, without what starts and ends a pickle."""
    return pickle.dumps(value, 2)[2:-1]


def tensor(array: np.ndarray, key: str, *, legacy: bool = False) -> bytes:
    """A tensor that is the whole of storage `key`."""
    strides = tuple(s // array.itemsize for s in array.strides)
    view = plain(None) if legacy else b""
    identity = b"(" + plain("storage") + name(f"torch.{STORAGES[str(array.dtype)]}Storage")
    identity += plain(key) + plain("cpu") + plain(array.size) + view + b"tQ"
    rebuild = name("torch._utils._rebuild_tensor_v2") + b"(" + identity + plain(0)
    return rebuild + plain(array.shape) + plain(strides) + plain(False) + empty_dict() + b"tR"


def empty_dict() -> bytes:
    return name("collections.OrderedDict") + b")R"


def body(value: Any, arrays: list[np.ndarray], *, legacy: bool = False) -> bytes:
    """The opcodes of a nested dict with arrays for tensors, which are collected in `arrays`."""
    if isinstance(value, np.ndarray):
        arrays.append(value)
        return tensor(value, str(len(arrays) - 1), legacy=legacy)
    if isinstance(value, Mapping):
        items = [plain(k) + body(v, arrays, legacy=legacy) for k, v in value.items()]
        return empty_dict() + b"(" + b"".join(items) + b"u"
    return plain(value)


def proto2(opcodes: bytes) -> bytes:
    return b"\x80\x02" + opcodes + b"."


def write_parts(path: Path, parts: Mapping[str, bytes], compression: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for part, content in parts.items():
            archive.writestr(part, content)
    return path


def write_pickle(path: Path, opcodes: bytes, **storages: bytes) -> Path:
    """An archive around the opcodes of one value; `s0=...` becomes the storage "0"."""
    data = {f"archive/data/{key[1:]}": content for key, content in storages.items()}
    return write_parts(path, {"archive/data.pkl": proto2(opcodes), **data})


def write_archive(path: Path, value: Any) -> Path:
    """What `torch.save(value, path)` writes for nested dicts of tensors and plain values."""
    arrays: list[np.ndarray] = []
    parts = {"archive/data.pkl": proto2(body(value, arrays)), "archive/byteorder": b"little"}
    write_parts(path, parts)
    with zipfile.ZipFile(path, "a") as archive:
        for i, array in enumerate(arrays):
            archive.writestr(f"archive/data/{i}", array.data)
    return path


def write_legacy(path: Path, value: Any) -> Path:
    """The same in the format before torch 1.6."""
    arrays: list[np.ndarray] = []
    pickles = [plain(LEGACY_MAGIC), plain(LEGACY_PROTOCOL), plain({"little_endian": True})]
    pickles.append(body(value, arrays, legacy=True))
    pickles.append(plain([str(i) for i in range(len(arrays))]))
    storages = [struct.pack("<q", array.size) + array.tobytes() for array in arrays]
    path.write_bytes(b"".join(map(proto2, pickles)) + b"".join(storages))
    return path
