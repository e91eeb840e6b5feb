"""Lizard (Graham et al. 2021): 20×, six types.

    ROOT/**/NAME.png    ROOT/**/Labels/NAME.mat    [ROOT/**/info.csv]

A .mat has `inst_map`, and of every nucleus `id` and `class`; `info.csv` says which of the splits
1, 2 and 3 an image is in. Nothing needs to be moved after the archives were unpacked.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cellvit_jax.data import files
from cellvit_jax.data.dataset import Dataset, Sample
from cellvit_jax.data.instances import type_map
from cellvit_jax.data.lazy import Lazy
from cellvit_jax.data.mat import first_variables, paired, read_mat
from cellvit_jax.errors import InputError

NEEDS = ("**/*.mat",)
MAPS = ("inst_map", "id", "class")
CLASSES = ("Neutrophil", "Epithelial", "Lymphocyte", "Plasma", "Eosinophil", "Connective tissue")
MPP = 0.5


def holds(root: Path) -> bool:
    """Whether the .mat files list the classes of nuclei."""
    return set(MAPS) <= first_variables(root)


def open(root: Path) -> dict[str, Dataset]:
    """The splits that info.csv names, or all as one. Raises InputError."""
    pairs = paired(root, root)
    splits = _splits(root)
    named = {splits.get(image.stem, "all") for image, _ in pairs}
    return {
        split: _dataset(tuple(p for p in pairs if splits.get(p[0].stem, "all") == split))
        for split in sorted(named)
    }


def _splits(root: Path) -> dict[str, str]:
    path = min(root.rglob("info.csv"), default=None)
    if path is None:
        return {}
    head, *rows = files.read_csv(path)
    try:
        name, split = head.index("Filename"), head.index("Split")
        return {row[name]: f"split{row[split]}" for row in rows}
    except (ValueError, IndexError) as error:
        raise InputError(f"{path} lacks a column Filename or Split") from error


def read(item: tuple[Path, Path]) -> Sample:
    """The field of an image and its .mat file."""
    image, label = item
    maps = read_mat(label, MAPS)
    instances, ids = maps["inst_map"].astype(np.int32), maps["id"].ravel().astype(np.int32)
    types = type_map(instances, ids, maps["class"].ravel())
    return files.field(image, files.read_image(image), instances, types, len(CLASSES))


def _dataset(pairs: tuple[tuple[Path, Path], ...]) -> Dataset:
    return Dataset(
        "Lizard",
        Lazy(read, pairs),
        CLASSES,
        mpp=MPP,
        license="CC BY-NC-SA 4.0",
        citation="Graham et al., Lizard, ICCV Workshops, 2021",
    )
