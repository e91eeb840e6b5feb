"""MoNuSAC (Verma et al. 2021): four types in four organs.

    ROOT[/SPLIT]/PATIENT/{NAME.svs or NAME.tif, NAME.xml}

What is marked as ambiguous is left out of the instances, so that it counts as background.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cellvit_jax.data import files
from cellvit_jax.data.aperio import read_outlines
from cellvit_jax.data.dataset import Dataset, Sample
from cellvit_jax.data.layouts.monuseg import with_xml
from cellvit_jax.data.lazy import Lazy
from cellvit_jax.data.rasterise import label_image
from cellvit_jax.errors import InputError

NEEDS = ("**/*.xml",)
CLASSES = ("Epithelial", "Lymphocyte", "Macrophage", "Neutrophil")
AMBIGUOUS = "Ambiguous"


def holds(root: Path) -> bool:
    """Whether the first XML file has layers that are named after the classes."""
    first = min(root.rglob("*.xml"), default=None)
    text = first.read_bytes() if first else b""
    return any(f'Name="{name}"'.encode() in text for name in (*CLASSES, AMBIGUOUS))


def open(root: Path) -> dict[str, Dataset]:
    """The folders of patients' folders, each a split; a single one is "all". Raises InputError."""
    if any(root.glob("*.xml")) or any(root.glob("*/*.xml")):
        return {"all": _dataset(root)}
    inside = sorted(path for path in root.iterdir() if any(path.glob("*/*.xml")))
    return {path.name.lower(): _dataset(path) for path in inside}


def _dataset(folder: Path) -> Dataset:
    return Dataset(
        "MoNuSAC",
        Lazy(read, with_xml(folder)),
        CLASSES,
        license="CC BY-NC-SA 4.0",
        citation="Verma et al., MoNuSAC2020, IEEE TMI 40, 2021",
    )


def read(item: tuple[Path, Path]) -> Sample:
    """The field of an image and its XML file."""
    path, xml = item
    outlines, image = read_outlines(xml), files.read_image(path)
    if unknown := set(outlines.layers) - {*CLASSES, AMBIGUOUS}:
        raise InputError(
            f"{xml} has a layer {min(unknown)!r}; expected {', '.join((*CLASSES, AMBIGUOUS))}"
        )
    kinds = np.array([0, *(_class(layer) for layer in outlines.layers)], np.int64)
    instances = label_image(outlines.shapes, image.shape[:2])
    types = kinds[instances]
    return files.field(path, image, np.where(types, instances, 0), types, len(CLASSES))


def _class(layer: str) -> int:
    return 0 if layer == AMBIGUOUS else CLASSES.index(layer) + 1
