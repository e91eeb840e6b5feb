"""Files like those of `torch.save`, whole ones and odd ones."""

import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cellvit_jax.torch_files import LEGACY_MAGIC, LEGACY_PROTOCOL
from cellvit_jax.torch_save import body, plain, proto2, write_torch


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
    with path.open("wb") as file:
        write_torch(file, value)
    return path


def write_legacy(path: Path, value: Any) -> Path:
    """The same in the format before torch 1.6."""
    arrays: list[np.ndarray] = []
    pickles = [plain(LEGACY_MAGIC), plain(LEGACY_PROTOCOL), plain({"little_endian": True})]
    # a storage could then be a view of another one: none of these is
    pickles.append(body(value, arrays).replace(b"tQ", b"NtQ"))
    pickles.append(plain([str(i) for i in range(len(arrays))]))
    storages = [struct.pack("<q", array.size) + array.tobytes() for array in arrays]
    path.write_bytes(b"".join(map(proto2, pickles)) + b"".join(storages))
    return path
