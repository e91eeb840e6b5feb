"""Files of annotated data: found, read, and held against each other."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
import yaml

from cellvit_jax.data.dataset import Sample
from cellvit_jax.errors import InputError
from cellvit_jax.slides import open_slide

PLAIN = {".png", ".jpg", ".jpeg"}  # what OpenCV decodes as well, without Python's lock
TIFFS = {".tif", ".tiff"}
IMAGES = PLAIN | TIFFS | {".svs"}
MAX_TYPE = 255


def images(folder: Path) -> dict[str, Path]:
    """The images of a folder, by name without ending, in order of names."""
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGES and p.is_file())
    return {path.stem: path for path in found if not path.name.startswith(".")}


def read_image(path: Path) -> np.ndarray:
    """(H,W,3) uint8 RGB of a PNG, JPEG, TIFF or slide. Raises InputError."""
    if path.suffix.lower() in PLAIN:
        return cv2.cvtColor(_decoded(path, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    slide = open_slide(path)
    return np.ascontiguousarray(slide.read(0, 0, *slide.size))


def read_labels(path: Path) -> np.ndarray:
    """(H,W) integers of a PNG or TIFF of labels. Raises InputError."""
    tiff = path.suffix.lower() in TIFFS
    labels = _tiff(path) if tiff else _decoded(path, cv2.IMREAD_UNCHANGED)
    if labels.ndim != 2 or labels.dtype.kind not in "iu":
        raise InputError(
            f"{path} is no label image: {labels.dtype} of shape {labels.shape}, expected one "
            "integer a pixel"
        )
    return labels


def _decoded(path: Path, flag: int) -> np.ndarray:
    array = cv2.imread(str(path), flag)
    if array is None:
        raise InputError(f"{path} is missing or not a readable image")
    return array


def _tiff(path: Path) -> np.ndarray:
    try:
        return tifffile.imread(path)
    except Exception as error:  # whatever a decoder makes of bad bytes
        raise InputError(f"{path} is missing or not a readable image ({error})") from error


def field(
    path: Path,
    image: np.ndarray,
    instances: np.ndarray,
    types: np.ndarray | None,
    classes: int,
    tissue: int | None = None,
) -> Sample:
    """The field of the image at `path`; maps may have any integer type.

    Raises `InputError` where sizes differ, or where type ids are not among 0..`classes`.
    """
    for what, part in (("instances", instances), ("types", types)):
        if part is not None and part.shape != image.shape[:2]:
            raise InputError(f"{path} is {image.shape[:2]}, its {what} are {part.shape}")
    if types is not None:
        types = _checked_types(path, types, classes)
    return Sample(path.stem, image, instances.astype(np.int32), types, tissue)


def _checked_types(path: Path, types: np.ndarray, classes: int) -> np.ndarray:
    low, high = types.min(initial=0), types.max(initial=0)
    if low < 0 or high > min(classes, MAX_TYPE):
        raise InputError(
            f"{path} has the type {high if low >= 0 else low}, but there are {classes} classes, "
            f"ids 1 to {classes}"
        )
    return types.astype(np.uint8)


def read_yaml(path: Path) -> dict[Any, Any]:
    """The mapping in a YAML file. Raises InputError."""
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"{path} cannot be read as YAML ({error})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no mapping of ids to names")
    return content


def read_csv(path: Path) -> list[list[str]]:
    """The rows of a CSV file that are not empty. Raises InputError."""
    try:
        text = path.read_text("utf-8-sig")
        return [row for row in csv.reader(text.splitlines()) if any(row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as CSV ({error})") from error


def read_tissues(path: Path, tissues: tuple[str, ...]) -> dict[str, int]:
    """Which of the tissues an image is of, by its name, from rows image,tissue under a head.

    Images may be named with or without their ending. Raises InputError for other tissues.
    """
    found = {}
    for image, tissue in (row[:2] for row in read_csv(path)[1:] if len(row) > 1):
        if tissue not in tissues:
            raise InputError(
                f"{path} says {tissue} of {image}; the tissues are {', '.join(tissues) or 'none'}"
            )
        known = Path(image).suffix.lower() in IMAGES
        found[Path(image).stem if known else image] = tissues.index(tissue)
    return found


def has(folder: Path, patterns: Iterable[str]) -> bool:
    """Whether every pattern has a file in the folder."""
    return all(any(folder.glob(pattern)) for pattern in patterns)


def parts(root: Path, patterns: tuple[str, ...]) -> dict[str, Path]:
    """The folders that hold what the patterns ask for: the root as "all", else folders in it."""
    if has(root, patterns):
        return {"all": root}
    inside = sorted(path for path in root.iterdir() if path.is_dir())
    return {path.name.lower(): path for path in inside if has(path, patterns)}
