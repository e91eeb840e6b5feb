"""Every nucleus of an image or a slide, in its own pixels: the Python side of `segment`."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from cellvit_jax.card import ModelCard
from cellvit_jax.cells import Cells, joined, painted
from cellvit_jax.errors import InputError
from cellvit_jax.inference.classify import architecture_of, check_head, remark
from cellvit_jax.inference.pipeline import rows
from cellvit_jax.inference.plan import Plan, planned
from cellvit_jax.inference.predictor import Predictor
from cellvit_jax.inference.report import Report
from cellvit_jax.models import CellClassifier, CellViT
from cellvit_jax.slides import ImageSlide, open_slide
from cellvit_jax.slides.open import Source
from cellvit_jax.slides.slide import Box


@dataclasses.dataclass(frozen=True, eq=False)
class Segmentation:
    """What was found in `image`: its `cells`, and `instances` uint32 (H, W), the ids as a map."""

    image: ImageSlide
    instances: np.ndarray
    cells: Cells

    @property
    def mpp(self) -> float | None:
        """µm per pixel."""
        return self.image.mpp

    def blocks(self) -> Iterator[Cells]:
        """The cells as one block."""
        return iter([self.cells])

    def label_image(self) -> np.ndarray:
        """The `instances`."""
        return self.instances

    def picture(self) -> tuple[np.ndarray, float]:
        """The image's pixels, as large as they are."""
        return self.image.pixels, 1.0


def segment(
    source: Source,
    model: CellViT,
    *,
    mpp: float | None = None,
    batch_size: int | None = None,
    tissue: str | None = None,
    roi: Box | None = None,
    head: CellClassifier | None = None,
    binary: bool = False,
) -> Cells:
    """Every nucleus of a slide or an image, in its own level-0 pixels, with its type.

    `source` is a whole slide, a folder of DICOM files, a PNG, JPEG, TIFF or .npy file, or an array
    uint8 (H, W, 3), from 16×16 pixels up; `model` comes from `cellvit_jax.load`; `mpp` (µm per
    pixel) wins over what the file says. An image whose resolution nobody knows is taken as
    0.25 µm/px, with a warning. `tissue` says where to look: "otsu" (whole slides, by default),
    "none" (images, by default) or a mask as PNG or GeoJSON; `roi` is a box r0, c0, r1, c1 of
    level-0 pixels. The result does not depend on `batch_size`.

    A cell classifier `head`, also from `load`, gives the same cells types of its own, from their
    tokens; where a token is no numbers the type is 0, none, and a warning says so. With `binary`
    there are no types: all nuclei are of one class, also those that the network takes for
    background. Raises `InputError` for what cannot be used.
    """
    predictor = predictor_of(model, batch_size, head=head, binary=binary)
    plan = planned(open_slide(source, mpp=mpp), predictor.card, where=tissue, roi=roi)
    table = joined(row.table for row in rows(plan, predictor, Report(plan.slide.name)))
    if untyped := int((table["type"].to_numpy() == 0).sum()):
        warnings.warn(remark(untyped), stacklevel=2)
    return cells_of(table, plan, predictor.card)


def predictor_of(
    model: CellViT,
    batch_size: int | None = None,
    *,
    tokens: bool = False,
    head: CellClassifier | None = None,
    binary: bool = False,
    attention: str = "xla",
) -> Predictor:
    """A predictor of a loaded model, which a `head` goes with; `attention` names its kernel.

    Raises `InputError` for another network, or without a card, and for a head that does not fit.
    """
    if not isinstance(model, CellViT):
        raise InputError(f"this is a {architecture_of(model)}: segmentation needs a CellViT")
    if model.card is None:
        raise InputError("this model has no card; use one that cellvit_jax.load returned")
    if head is not None:
        if binary:
            raise InputError("a head gives types and binary none: choose one of the two")
        check_head(head, model)
    return Predictor(
        model,
        model.card,
        batch_size=batch_size,
        tokens=tokens,
        head=head,
        binary=binary,
        attention=attention,
    )


def segment_image(image: ImageSlide, predictor: Predictor, tile: int | None = None) -> Segmentation:
    """`segment` for an image in memory, with its label image; in tiles of a side, if given."""
    plan = planned(image, predictor.card, tile=tile)
    found = rows(plan, predictor, Report(image.name), runs=True)
    table = joined(row.table for row in found)
    instances = enlarge(painted(table, plan.view.size), image.size)
    cells = cells_of(table.drop_columns(["runs"]), plan, predictor.card)
    return Segmentation(dataclasses.replace(image, mpp=plan.mpp), instances, cells)


def cells_of(table: pa.Table, plan: Plan, card: ModelCard) -> Cells:
    """Cells in level-0 pixels from a table of the pipeline."""
    cells = Cells(table)
    if plan.view.factor != 1:
        cells = cells.scaled(1 / plan.view.factor, 1 / plan.view.factor)
    return dataclasses.replace(cells, classes=card.cell_classes, mpp=plan.mpp)


def enlarge(instances: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An instance map at another `size` (height, width), every pixel taking its nearest."""
    if instances.shape == size:
        return instances
    rows, columns = (
        np.minimum(((np.arange(n) + 0.5) * old / n).astype(int), old - 1)
        for n, old in zip(size, instances.shape, strict=True)
    )
    return instances[np.ix_(rows, columns)]
