"""The folders that CellViT++ trains its cell classifiers on.

    ROOT/{train,test}/{images/NAME.png, labels/NAME.npy}    outlined: 0 is the background
    ROOT/{train,test}/{images/NAME.png, labels/NAME.csv}    pointed at: rows x,y,class
    ROOT/label_map.yaml    ROOT/splits/fold_K/{train,val}.csv

Of points, classes count from where the label map does, 0 or 1; of outlines from 1.

The folds, lists of names of `train`, are splits as well: `fold_0_train`, `fold_0_val`, ...
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from cellvit_jax import label_map
from cellvit_jax.data import files
from cellvit_jax.data.dataset import Dataset, Sample
from cellvit_jax.data.layouts.cellvit import paired, read_maps
from cellvit_jax.data.lazy import Lazy
from cellvit_jax.errors import InputError

NEEDS = ("label_map.yaml", "*/images/*", "*/labels/*.npy")
POINT_NEEDS = ("label_map.yaml", "*/images/*", "*/labels/*.csv")
LABEL_MAP = "label_map.yaml"

Item = tuple[Path, Path]


def open(root: Path) -> dict[str, Dataset]:
    """`train`, `test` and the folds of outlined nuclei. Raises InputError."""
    classes = label_map.of_masks(root / LABEL_MAP, files.read_yaml(root / LABEL_MAP))
    return _splits(root, ".npy", partial(read, classes=len(classes)), classes, True)


def open_points(root: Path) -> dict[str, Dataset]:
    """`train`, `test` and the folds of nuclei that were pointed at. Raises InputError."""
    first, classes = label_map.counted(root / LABEL_MAP, files.read_yaml(root / LABEL_MAP))
    reader = partial(read_points, classes=len(classes), first=first)
    return _splits(root, ".csv", reader, classes, False)


def _splits(
    root: Path,
    ending: str,
    reader: Callable[[Item], Sample],
    classes: tuple[str, ...],
    outlined: bool,
) -> dict[str, Dataset]:
    folders = files.parts(root, ("images/*", f"labels/*{ending}"))
    items = {split: tuple(paired(folder, ending)) for split, folder in folders.items()}
    for path in sorted(root.glob("splits/*/*.csv")):
        items[f"{path.parent.name}_{path.stem}"] = _fold(path, items.get("train", ()))
    return {
        split: Dataset(root.name, Lazy(reader, part), classes, outlined=outlined)
        for split, part in items.items()
    }


def _fold(path: Path, train: tuple[Item, ...]) -> tuple[Item, ...]:
    by_name = {image.stem: (image, label) for image, label in train}
    names = [row[0].strip() for row in files.read_csv(path)]
    if missing := [
        name for name in names if Path(name).stem not in by_name and name not in by_name
    ]:
        raise InputError(f"{path} names {missing[0]}, which is not in train/images")
    return tuple(by_name.get(name) or by_name[Path(name).stem] for name in names)


def read(item: Item, classes: int) -> Sample:
    """The field of an image and its .npy file."""
    image, label = item
    maps = read_maps(label)
    return files.field(image, files.read_image(image), maps["inst_map"], maps["type_map"], classes)


def read_points(item: Item, classes: int, first: int = 0) -> Sample:
    """The field of an image and the points in its CSV file, whose classes count from `first`."""
    path, label = item
    image = files.read_image(path)
    points = _points(label)
    x, y, kinds = points.T
    last = first + classes - 1
    if not ((kinds >= first) & (kinds <= last)).all() or (kinds % 1).any():
        raise InputError(f"{label} has a class that is not among {first} to {last}")
    height, width = image.shape[:2]
    if not ((x >= 0) & (x < width) & (y >= 0) & (y < height)).all():
        raise InputError(f"{label} has a point outside of its image, {width} × {height} pixels")
    points[:, 2] += 1 - first
    return Sample(path.stem, image, np.zeros((height, width), np.int32), None, points=points)


def _points(path: Path) -> np.ndarray:
    try:
        rows = [[float(value) for value in row] for row in files.read_csv(path)]
        return np.array(rows, np.float32).reshape(-1, 3)
    except ValueError as error:
        raise InputError(f"{path} has a row that is not x,y,class in numbers") from error
