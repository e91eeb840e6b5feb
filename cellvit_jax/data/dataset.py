"""What every kind of annotated data becomes: fields, and what their numbers mean."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Sample:
    """One annotated field: (H,W,3) uint8 RGB, (H,W) int32 instances, 0 = background.

    `types` are (H,W) uint8 class ids, or None where nobody annotated types; `tissue` is the index
    of the tissue's name in its `Dataset`, or None. Nuclei that were pointed at, not outlined, are
    `points` (N,3) float32: x and y in pixel-centre coordinates, class id; `instances` are then 0.
    """

    name: str
    image: np.ndarray
    instances: np.ndarray
    types: np.ndarray | None
    tissue: int | None = None
    points: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Annotated fields, read when they are asked for.

    `classes` are the names of the cell types, ids 1, 2, … in that order; `mpp` is the resolution of
    the images in µm per pixel. Where not `outlined`, the nuclei of some fields are but pointed at
    (`Sample.points`): good for a cell classifier head, no truth for a segmentation.
    """

    name: str
    samples: Sequence[Sample]
    classes: tuple[str, ...]
    tissues: tuple[str, ...] = ()
    mpp: float = 0.25
    license: str = ""
    citation: str = ""
    outlined: bool = True
