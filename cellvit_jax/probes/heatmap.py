"""What a probe looked at or saw, drawn where the patches lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from cellvit_jax.errors import MissingExtraError
from cellvit_jax.files import atomic_open
from cellvit_jax.probes.bags import Patches
from cellvit_jax.slides import Slide, overview

LONGER = 1024  # pixels of the longer side


def write(
    path: Path, patches: Patches, values: np.ndarray, what: str, slide: Slide | None = None
) -> None:
    """The values (N,) of patches as a PNG, over the slide where there is one.

    Raises OutputError, MissingExtraError.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingExtraError("matplotlib", "evaluate") from error
    height, width = slide.size if slide else extent(patches)
    factor = min(1.0, LONGER / max(height, width))
    figure = Figure(figsize=(8, 1 + 6 * height / width), layout="constrained")
    axes: Any = figure.subplots()
    if slide:
        axes.imshow(overview(slide, factor), extent=(0, width, height, 0))
    shown = axes.imshow(
        painted(patches, values, (height, width), factor),
        extent=(0, width, height, 0),
        cmap="inferno",
        alpha=0.5 if slide else 1,
        vmin=0,
    )
    figure.colorbar(shown, label=what, shrink=0.8)
    axes.set(xlabel="x in level-0 pixels", ylabel="y", title=path.parent.name)
    with atomic_open(path) as file:
        figure.savefig(file, format="png", dpi=120)


def extent(patches: Patches) -> tuple[int, int]:
    """Height and width in level-0 pixels of an image that the patches cover."""
    ends = (patches.centres + 0.5 + patches.sides[:, None] / 2).max(0)
    return int(ends[1]), int(ends[0])


def painted(
    patches: Patches, values: np.ndarray, size: tuple[int, int], factor: float
) -> np.ndarray:
    """A picture of the values, `size` times `factor`: the mean where patches overlap, else nan."""
    shape = tuple(max(1, round(side * factor)) for side in size)
    total, count = np.zeros(shape), np.zeros(shape)
    for (x, y), side, value in zip(patches.centres, patches.sides, values, strict=True):
        low = np.array([y, x]) + 0.5 - side / 2
        (r0, c0), (r1, c1) = (np.rint(edge * factor).astype(int) for edge in (low, low + side))
        place = np.s_[max(r0, 0) : max(r1, r0 + 1), max(c0, 0) : max(c1, c0 + 1)]
        total[place] += value
        count[place] += 1
    return np.divide(total, count, out=np.full(shape, np.nan), where=count > 0)
