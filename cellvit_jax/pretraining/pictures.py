"""Which pictures people mean: annotated data, slides and images, or tiles with labels."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cellvit_jax.data.dataset import Sample
from cellvit_jax.data.open import TRAINING, VALIDATION, is_annotated
from cellvit_jax.errors import InputError
from cellvit_jax.pretraining.tiles import Picture
from cellvit_jax.slides import Slide, collection, open_slide
from cellvit_jax.training.config import Source
from cellvit_jax.training.fields import training_part

COLUMNS = ("path", "label", "split")
TEST = "test"


class Labelled(NamedTuple):
    """Pictures of known classes, and which of them, (pictures,) bool, are to be measured on."""

    pictures: tuple[Picture, ...]
    classes: tuple[str, ...]
    measured: np.ndarray


class Line(NamedTuple):
    """A picture's file, its class, and its part: "" where nobody said."""

    path: Path
    label: str
    split: str


def unlabelled(sources: Sequence[Source], mpp: float | None = None) -> tuple[Picture, ...]:
    """The pictures of sources: of annotated data the split "train", else all slides and images.

    `mpp` wins over what files say. Raises `InputError` where there are none.
    """
    if not sources:
        raise InputError("say what to learn from: --data FOLDER")
    return tuple(
        picture
        for index, source in enumerate(sources)
        for picture in (_annotated if is_annotated(source.path) else _listed)(source, index, mpp)
    )


def labelled(source: Source, share: float, mpp: float | None = None) -> Labelled:
    """Pictures of a folder with a folder for each class, or of a CSV file of path,label[,split].

    There may be such folders for `train` and `val`; `test` is left alone. Where nothing says so,
    the last pictures of each class by name, `share` of them, are measured on: neighbours are rather
    on one side then.
    Raises `InputError`.
    """
    root = Path(source.path)
    lines = _csv(root) if root.suffix.lower() == ".csv" else _folders(root)
    lines = [line for line in lines if line.split != TEST]
    classes = tuple(sorted({line.label for line in lines}))
    if len(classes) < 2:
        raise InputError(f"{root} has one class, {classes[0]}: there is nothing to tell apart")
    pictures = tuple(_picture(line.path, mpp, label=classes.index(line.label)) for line in lines)
    return Labelled(pictures, classes, _measured(root, lines, share))


def _annotated(source: Source, index: int, mpp: float | None) -> Iterator[Picture]:
    part = training_part(source, index)
    for i in range(len(part.samples)):
        name = f"field {i + 1} of {part.name}"
        yield Picture(name, partial(_field, part.samples, i, mpp or part.mpp))


def _field(samples: Sequence[Sample], index: int, mpp: float) -> Slide:
    return open_slide(np.ascontiguousarray(samples[index].image), mpp=mpp)


def _listed(source: Source, index: int, mpp: float | None) -> Iterator[Picture]:
    if source.split:
        raise InputError(f"{source.path} is no annotated data: it has no split {source.split!r}")
    for one in collection.find([Path(source.path)]):
        yield _picture(one.path, mpp or one.mpp)


def _picture(path: Path, mpp: float | None, label: int | None = None) -> Picture:
    return Picture(collection.slide_name(path), partial(open_slide, path, mpp=mpp), label)


def _folders(root: Path) -> list[Line]:
    """The pictures of ROOT[/SPLIT]/CLASS/."""
    parts = _inside(root)
    split = any(part.name.lower() in TRAINING for part in parts)
    lines = [
        Line(one.path, folder.name, part.name.lower() if split else "")
        for part in (parts if split else [root])
        for folder in _inside(part)
        for one in collection.find([folder])
    ]
    if not lines:
        raise InputError(f"{root} must hold a folder of tiles for each class, or be a CSV file")
    return lines


def _inside(root: Path) -> list[Path]:
    try:
        found = sorted(path for path in root.iterdir() if path.is_dir())
    except OSError as error:
        raise InputError(f"{root} cannot be read: {error.strerror}") from error
    return [path for path in found if not path.name.startswith(".")]


def _csv(path: Path) -> list[Line]:
    try:
        rows = [row for row in csv.reader(path.read_text("utf-8-sig").splitlines()) if any(row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"the list {path} cannot be read ({error})") from error
    head = [name.strip().lower() for name in rows[0]] if rows else []
    names = head if {"path", "label"} <= set(head) else list(COLUMNS)
    lines = [_line(path, names, row) for row in (rows[1:] if names is head else rows)]
    if not lines:
        raise InputError(f"the list {path} names no tiles: each line is path,label[,split]")
    return lines


def _line(source: Path, names: list[str], row: list[str]) -> Line:
    values = dict(zip(names, (field.strip() for field in row), strict=False))
    if not values.get("path") or not values.get("label"):
        raise InputError(f"the list {source} has a line that is no path,label: {','.join(row)}")
    return Line(source.parent / values["path"], values["label"], values.get("split", "").lower())


def _measured(root: Path, lines: Sequence[Line], share: float) -> np.ndarray:
    """Which of the lines are to be measured on."""
    splits = {line.split for line in lines}
    if splits == {""}:
        return _last(lines, share)
    if splits - {*TRAINING, *VALIDATION} or not splits & set(TRAINING):
        raise InputError(
            f"{root} has the splits {', '.join(sorted(splits))}: call them train and val"
        )
    return np.array([line.split in VALIDATION for line in lines])


def _last(lines: Sequence[Line], share: float) -> np.ndarray:
    measured = np.zeros(len(lines), bool)
    labels = np.array([line.label for line in lines])
    for label in np.unique(labels):
        mine = np.flatnonzero(labels == label).tolist()
        mine.sort(key=lambda i: str(lines[i].path))
        measured[mine[len(mine) - round(share * len(mine)) :]] = True
    return measured
