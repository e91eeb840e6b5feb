"""PanNuke (Gamper et al. 2020) as it is published.

    ROOT/FOLD/**/{images.npy, masks.npy, types.npy}

`masks` (N,256,256,6) has a label image for each class, and the background last. The arrays, which
may be of any number type, stay on the disk: a field is read when it is asked for.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from cellvit_jax.card import PANNUKE_CLASSES, PANNUKE_TISSUES
from cellvit_jax.data import files
from cellvit_jax.data.dataset import Dataset, Sample
from cellvit_jax.data.lazy import Lazy
from cellvit_jax.errors import InputError
from cellvit_jax.npy_files import read_npy

NEEDS = ("**/images.npy", "**/masks.npy", "**/types.npy")
CLASSES = tuple(c.name for c in PANNUKE_CLASSES[1:])
CITATION = "Gamper et al., PanNuke, ECDP 2019; Gamper et al., arXiv:2003.10778, 2020"
LICENSE = "CC BY-NC-SA 4.0"

mapped = functools.lru_cache(maxsize=16)(read_npy)  # of each process: nothing is read by mapping


def open(root: Path) -> dict[str, Dataset]:
    """The folds by the names of their folders, such as "fold1". Raises InputError."""
    inside = [path for path in root.iterdir() if path.is_dir() and files.has(path, NEEDS)]
    if not inside:
        return {"all": _dataset(root)}
    return {path.name.lower().replace(" ", ""): _dataset(path) for path in sorted(inside)}


def _dataset(fold: Path) -> Dataset:
    paths = [min(fold.rglob(f"{name}.npy")) for name in ("images", "masks", "types")]
    shapes = [mapped(path).shape for path in paths]
    pixels, count = shapes[0][:3], shapes[0][:1]
    if shapes != [(*pixels, 3), (*pixels, len(CLASSES) + 1), count]:
        raise InputError(
            f"{fold} has images, masks and types of the shapes {', '.join(map(str, shapes))}; "
            f"expected (N, H, W, 3), (N, H, W, {len(CLASSES) + 1}) and (N,)"
        )
    tissues = _tissues(paths[2])
    items = tuple((*paths[:2], i, tissue) for i, tissue in enumerate(tissues))
    return Dataset(
        "PanNuke",
        Lazy(read, items),
        CLASSES,
        PANNUKE_TISSUES,
        license=LICENSE,
        citation=CITATION,
    )


def _tissues(path: Path) -> list[int]:
    names = [str(name) for name in mapped(path)]
    if unknown := set(names) - set(PANNUKE_TISSUES):
        raise InputError(f"{path} has a tissue {min(unknown)!r} that PanNuke has not")
    return [PANNUKE_TISSUES.index(name) for name in names]


def read(item: tuple[Path, Path, int, int]) -> Sample:
    """Field `i` of the arrays at two paths, of a tissue."""
    images, masks, i, tissue = item
    image = np.ascontiguousarray(mapped(images)[i].astype(np.uint8))
    instances, types = combined(np.asarray(mapped(masks)[i]))
    name = images.with_name(f"{images.parent.name}_{i}")
    return files.field(name, image, instances, types, len(CLASSES), tissue)


def combined(masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Instances 1..N and types of one field's masks (H,W,classes + 1).

    Ids are of a class's own, so they are numbered anew over all classes; where nuclei of two
    classes overlap, the later class has the pixel, as the originals have it.
    """
    instances = np.zeros(masks.shape[:2], np.int32)
    types = np.zeros(masks.shape[:2], np.uint8)
    count = 0
    for kind in range(masks.shape[2] - 1):
        inside = masks[..., kind] > 0
        ids, labels = np.unique(masks[..., kind][inside], return_inverse=True)
        instances[inside], types[inside] = labels + count + 1, kind + 1
        count += len(ids)
    return instances, types
