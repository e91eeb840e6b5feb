"""Every nucleus of an image: tiles through the network, planes, cells, in the image's pixels."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from cellvit_jax.cells import Cells, Planes, stitch
from cellvit_jax.errors import InputError
from cellvit_jax.inference.classify import check_head, classify
from cellvit_jax.inference.predictor import Maps, Predictor
from cellvit_jax.models import CellClassifier, CellViT
from cellvit_jax.slides import (
    ImageSlide,
    Tile,
    open_image,
    plan,
    read_tile,
    resample,
    resample_factor,
)

MARGIN = 8  # a tile keeps an eighth of its side as context on every side of its core
ASSUMED_MPP = 0.25

Source = str | os.PathLike[str] | np.ndarray
Track = Callable[[list[Tile]], Iterable[Tile]]


@dataclasses.dataclass(frozen=True, eq=False)
class Segmentation:
    """What was found in `image`: its `cells`, and `instances` uint32 (H, W), the ids as a map."""

    image: ImageSlide
    instances: np.ndarray
    cells: Cells


def segment(
    source: Source,
    model: CellViT,
    *,
    mpp: float | None = None,
    batch_size: int | None = None,
    head: CellClassifier | None = None,
    binary: bool = False,
) -> Cells:
    """Every nucleus of an image, in the image's own pixels, with its type.

    `source` is a PNG, JPEG, TIFF or .npy file, or an array uint8 (H, W, 3), from 16×16 pixels up;
    `model` comes from `cellvit_jax.load`; `mpp` (µm per pixel) wins over what the file says. An
    image whose resolution nobody knows is taken as 0.25 µm/px, with a warning. The result does not
    depend on `batch_size`.

    A cell classifier `head`, also from `load`, gives the same cells types of its own, from their
    tokens. With `binary` there are none: all nuclei are of one class, also those that the network
    takes for background. Raises `InputError` for what cannot be used.
    """
    predictor = predictor_of(model, batch_size, head=head, binary=binary)
    return segment_image(open_image(source, mpp=mpp), predictor, head=head).cells


def predictor_of(
    model: CellViT,
    batch_size: int | None = None,
    *,
    head: CellClassifier | None = None,
    binary: bool = False,
) -> Predictor:
    """A predictor of a loaded model, with all that a `head` needs.

    Raises `InputError` for another network, or without a card, and for a head that does not fit.
    """
    if not isinstance(model, CellViT):
        what = getattr(getattr(model, "config", model), "architecture", type(model).__name__)
        raise InputError(f"this is a {what}: segmentation needs a CellViT")
    if model.card is None:
        raise InputError("this model has no card; use one that cellvit_jax.load returned")
    if head is not None:
        check_head(head, model)
        if binary:
            raise InputError("a head gives types and binary none: choose one of the two")
    return Predictor(
        model, model.card, batch_size=batch_size, tokens=head is not None, binary=binary
    )


def segment_image(
    image: ImageSlide,
    predictor: Predictor,
    track: Track = iter,
    *,
    head: CellClassifier | None = None,
) -> Segmentation:
    """`segment` for an opened image; `track` wraps the list of tiles, to show progress.

    With a `head`, the predictor must be one that `predictor_of` made for it.
    """
    card = predictor.card
    mpp = known_mpp(image)
    factor = resample_factor(mpp, card.mpp)
    seen = ImageSlide(image.name, resample(image.pixels, factor), mpp / factor)
    tiles = plan(seen.size, card.tile, card.tile // MARGIN)
    planes = assemble(seen.size, tiles, predictor(read_tile(seen, tile) for tile in track(tiles)))
    instances, cells = stitch(planes)
    cells = dataclasses.replace(cells, classes=card.cell_classes)
    cells = cells if head is None else classify(cells, head)
    if factor != 1:
        instances, cells = enlarge(instances, image.size), cells.scaled(1 / factor, 1 / factor)
    cells = dataclasses.replace(cells, mpp=mpp)
    return Segmentation(dataclasses.replace(image, mpp=mpp), instances, cells)


def known_mpp(image: ImageSlide) -> float:
    """The image's resolution in µm per pixel; warns where it has to be assumed."""
    if image.mpp is not None:
        return image.mpp
    warnings.warn(
        f"{image.name} does not say its resolution: taken as {ASSUMED_MPP} µm per pixel (40×); "
        "give mpp if that is wrong",
        stacklevel=2,
    )
    return ASSUMED_MPP


def assemble(
    size: tuple[int, int], tiles: list[Tile], maps: Iterator[Maps], normalise: str = "fixed"
) -> Planes:
    """The planes of an image (height, width) from the maps of its tiles, in the tiles' order."""
    planes = None
    for tile, tile_maps in zip(tiles, maps, strict=True):
        part = Planes.of(
            tile_maps["binary"],
            tile_maps["hv"],
            tile_maps["types"],
            probabilities=tile_maps.get("probabilities"),
            tokens=tile_maps.get("tokens"),
            normalise=normalise,
        )
        if planes is None:
            planes = Planes.blank(*size, like=part)
        planes.paste(part, tile.row, tile.col, tile.core)
    assert planes is not None, "a plan has at least one tile"
    return planes


def enlarge(instances: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An instance map at another `size` (height, width), every pixel taking its nearest."""
    rows, columns = (
        np.minimum(((np.arange(n) + 0.5) * old / n).astype(int), old - 1)
        for n, old in zip(size, instances.shape, strict=True)
    )
    return instances[np.ix_(rows, columns)]
