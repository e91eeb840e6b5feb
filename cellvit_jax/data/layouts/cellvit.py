"""The folds of PNG and .npy files that CellViT trains on.

    ROOT/FOLD/{images/NAME.png, labels/NAME.npy, types.csv}    ROOT/dataset_config.yaml

A label is a pickled dictionary of `inst_map` and `type_map`, read without running anything;
`types.csv` has the tissue of every image (`img,type`), the config the ids of `nuclei_types` and
`tissue_types`. `cell_count.csv` and `weight_config.yaml` are not needed.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cellvit_jax import label_map
from cellvit_jax.data import files
from cellvit_jax.data.dataset import Dataset, Sample
from cellvit_jax.data.lazy import Lazy
from cellvit_jax.errors import InputError
from cellvit_jax.npy_files import read_npy

NEEDS = ("images/*", "labels/*.npy", "types.csv")
CONFIG, TISSUES = "dataset_config.yaml", "types.csv"
MAPS = ("inst_map", "type_map")


def open(root: Path) -> dict[str, Dataset]:
    """The folds by name, such as "fold0". Raises InputError."""
    return {fold: _dataset(root, part) for fold, part in files.parts(root, NEEDS).items()}


def _dataset(root: Path, fold: Path) -> Dataset:
    path = next((p for p in (fold / CONFIG, fold.parent / CONFIG) if p.is_file()), root / CONFIG)
    config = files.read_yaml(path)
    classes = label_map.of_masks(
        path, config.get("nuclei_types") and _by_id(config["nuclei_types"])
    )
    tissues: tuple[str, ...] = ()
    if config.get("tissue_types"):
        _, tissues = label_map.counted(path, _by_id(config["tissue_types"]))
    return Dataset(root.name, _samples(fold, len(classes), tissues), classes, tissues)


def _by_id(names: dict[str, int]) -> dict[int, str]:
    return {i: name for name, i in names.items()}


def _samples(fold: Path, classes: int, tissues: tuple[str, ...]) -> Lazy:
    known = files.read_tissues(fold / TISSUES, tissues) if tissues else {}
    pairs = paired(fold, ".npy")
    if missing := [image for image, _ in pairs if tissues and image.stem not in known]:
        raise InputError(f"{fold / TISSUES} has no tissue of {missing[0].name}")
    items = tuple((image, label, known.get(image.stem)) for image, label in pairs)
    return Lazy(partial(read, classes=classes), items)


def paired(folder: Path, ending: str) -> list[tuple[Path, Path]]:
    """Every image of a folder with the file in labels/ of that ending. Raises InputError."""
    images = files.images(folder / "images")
    pairs = [(path, folder / "labels" / f"{name}{ending}") for name, path in images.items()]
    if missing := [label for _, label in pairs if not label.is_file()]:
        raise InputError(
            f"{missing[0]} is missing, as are {len(missing) - 1} more of {len(pairs)}: every image "
            "needs one"
        )
    return pairs


def read(item: tuple[Path, Path, int | None], classes: int) -> Sample:
    """The field of an image, a label and a tissue."""
    image, label, tissue = item
    maps = read_maps(label)
    return files.field(
        image, files.read_image(image), maps["inst_map"], maps["type_map"], classes, tissue
    )


def read_maps(path: Path) -> dict[str, np.ndarray]:
    """`inst_map` and `type_map` of a pickled dictionary. Raises InputError, UnsafeFileError."""
    maps: Any = read_npy(path)
    for name in MAPS:
        if not isinstance(maps, dict) or not isinstance(maps.get(name), np.ndarray):
            held = ", ".join(map(str, maps)) if isinstance(maps, dict) else type(maps).__name__
            raise InputError(f"{path} has no {name}, it holds {held}; expected {', '.join(MAPS)}")
    return {name: maps[name] for name in MAPS}
