"""Labels in MATLAB files, as CoNSeP and Lizard come with."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import scipy.io

from cellvit_jax.data import files
from cellvit_jax.errors import InputError


def read_mat(path: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """The arrays of these names in a .mat file. Raises InputError where one is not there."""
    try:
        found = scipy.io.loadmat(path, variable_names=list(names))
    except Exception as error:  # whatever SciPy makes of bad bytes
        raise InputError(f"{path} is missing or no MATLAB file ({error})") from error
    if missing := [name for name in names if name not in found]:
        held = ", ".join(sorted(_variables(path))) or "nothing"
        raise InputError(f"{path} lacks {', '.join(missing)}; it holds {held}")
    return {name: found[name] for name in names}


def first_variables(root: Path) -> set[str]:
    """What the first .mat file somewhere in a folder holds; nothing where it cannot be read."""
    path = min(root.rglob("*.mat"), default=None)
    return _variables(path) if path else set()


def _variables(path: Path) -> set[str]:
    try:
        return {name for name, _, _ in scipy.io.whosmat(path)}
    except Exception:  # damaged: whoever reads the arrays says how
        return set()


def paired(images: Path, labels: Path) -> tuple[tuple[Path, Path], ...]:
    """The image and the label of every .mat file in two trees, in order of names.

    Raises InputError where a label has no image.
    """
    found = {
        path.stem: path
        for path in sorted(images.rglob("*"))
        if path.suffix.lower() in files.IMAGES and "overlay" not in path.parent.name.lower()
    }
    mats = sorted(labels.rglob("*.mat"))
    if missing := [path for path in mats if path.stem not in found]:
        raise InputError(f"{missing[0]} has no image of the same name in {images}")
    return tuple((found[path.stem], path) for path in mats)
