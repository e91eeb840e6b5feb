"""Images with instance masks (and types) in a folder, the plainest training layout.

    ROOT/{images,masks[,types]}/NAME.png

`masks` are integer label images (0 = background), `types` one class id per pixel.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

from cellvit_jax.data.dataset import Sample
from cellvit_jax.errors import InputError


def read_folder(root: str | Path, merge: Mapping[int, int] | None = None) -> list[Sample]:
    """All samples under `root`, sorted by name; `merge` maps type ids on disk to class ids.

    Raises `InputError` where images, masks or types are missing or do not fit together.
    """
    root = Path(root)
    images = sorted((root / "images").glob("*.png"))
    if not images:
        raise InputError(
            f"{root} holds no images/*.png (expected images/, masks/ and maybe types/)"
        )
    return [_read_sample(root, path, merge) for path in images]


def _read_sample(root: Path, path: Path, merge: Mapping[int, int] | None) -> Sample:
    image = cv2.cvtColor(_read_png(path, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    instances = _read_png(root / "masks" / path.name, cv2.IMREAD_UNCHANGED).astype(np.int32)
    types = None
    if (root / "types").is_dir():
        types = _merged(_read_png(root / "types" / path.name, cv2.IMREAD_UNCHANGED), merge)
    for part in (instances, types):
        if part is not None and part.shape != image.shape[:2]:
            raise InputError(f"{path} is {image.shape[:2]}, its mask or types are {part.shape}")
    return Sample(path.stem, image, instances, types)


def _merged(types: np.ndarray, merge: Mapping[int, int] | None) -> np.ndarray:
    table = np.arange(256, dtype=np.uint8)
    for old, new in (merge or {}).items():
        table[old] = new
    return table[types]


def _read_png(path: Path, flag: int) -> np.ndarray:
    array = cv2.imread(str(path), flag)
    if array is None:
        raise InputError(f"{path} is missing or not a readable image")
    return array
