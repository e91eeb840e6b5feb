"""Images to learn from without annotations: plain folders of them, or annotated data."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cellvit_jax.card import cited
from cellvit_jax.data import files
from cellvit_jax.data.dataset import Dataset, Sample
from cellvit_jax.data.lazy import Lazy
from cellvit_jax.data.open import is_annotated
from cellvit_jax.data.pipeline import Batch, RandomTile
from cellvit_jax.errors import InputError
from cellvit_jax.training import fields
from cellvit_jax.training.config import Source, Validation

ENDINGS = files.PLAIN | files.TIFFS


class Images(NamedTuple):
    """What is learnt from, `weights` being the images' shares of the tiles.

    `classes` and µm per pixel are known of annotated data alone; `measured` are annotated fields to
    measure on, None where there are none.
    """

    name: str
    samples: Sequence[Sample]
    weights: np.ndarray
    classes: tuple[str, ...]
    mpp: float | None
    citation: str
    measured: Dataset | None


@dataclasses.dataclass(frozen=True)
class RandomImage(RandomTile):
    """A random augmented tile of a random image: `image` (H,W,3) uint8, whatever is annotated."""

    def random_map(self, element: object, rng: np.random.Generator) -> Batch:
        sample = bare(self.drawn(rng))
        return {"image": self.augmentation(sample, self.tile, rng).image}


def open_images(sources: Sequence[Source], validation: Validation) -> Images:
    """The images that sources name, annotated or not. Raises `InputError` where there are none.

    Of annotated data it is the split "train", as in training; of other folders all PNG, JPEG and
    TIFF files at any depth. What there is to measure on is looked for as in training, but nothing
    is held out.
    """
    if not sources:
        raise InputError("say what to learn from: --data FOLDER")
    parts = [_part(source, index) for index, source in enumerate(sources)]
    shares = [np.full(len(p.samples), s.share) for s, p in zip(sources, parts, strict=True)]
    annotated = [p for s, p in zip(sources, parts, strict=True) if is_annotated(s.path)]
    return Images(
        name=", ".join(part.name for part in parts),
        samples=fields.joined(parts),
        weights=np.concatenate(shares),
        classes=annotated[0].classes if annotated else (),
        mpp=annotated[0].mpp if annotated else None,
        citation=cited(*(part.citation for part in parts)),
        measured=_measured(sources[0], validation),
    )


def bare(sample: Sample) -> Sample:
    """The image alone."""
    nothing = np.zeros(sample.image.shape[:2], np.int32)
    return Sample(sample.name, sample.image, nothing, None)


def read(path: Path) -> Sample:
    """The image of a file. Raises `InputError`."""
    image = files.read_image(path)
    return Sample(path.stem, image, np.zeros(image.shape[:2], np.int32), None)


def _part(source: Source, index: int) -> Dataset:
    root = Path(source.path)
    if not root.is_dir():
        what = "a file" if root.exists() else "not there"
        raise InputError(f"{root} is {what}, expected a folder")
    if is_annotated(root):
        return fields.training_part(source, index)
    if source.split:
        raise InputError(f"{root} is a folder of images: it has no split {source.split!r}")
    paths = sorted(p for p in root.rglob("*") if p.suffix.lower() in ENDINGS and p.is_file())
    if not paths:
        raise InputError(f"{root} holds no images: expected PNG, JPEG or TIFF files")
    return Dataset(root.resolve().name, Lazy(read, tuple(paths)), ())


def _measured(first: Source, validation: Validation) -> Dataset | None:
    if not validation.path and not is_annotated(first.path):
        return None
    measured, _ = fields.measured_part(validation, first)
    return measured and fields.at_most(measured, validation.fields)
