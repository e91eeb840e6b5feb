"""A network that annotated fields are shown to."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cellvit_jax.card import ModelCard
from cellvit_jax.data.dataset import Sample
from cellvit_jax.evaluation.jobs import Maps, Prediction
from cellvit_jax.evaluation.tta import EightViews
from cellvit_jax.inference.predictor import Predictor, normalised
from cellvit_jax.inference.segment import Segmentation, predictor_of, segment_image
from cellvit_jax.models import CellViT, folded
from cellvit_jax.slides import ImageSlide
from cellvit_jax.stains import stained_as

MIN_SIDE = 16  # of maps that nuclei are looked for in
SAME_MPP = 0.02  # relative difference of resolutions that are one
Found = Prediction | Maps


class Network:
    """Finds the nuclei of fields: `model` as it is, or with `tta` the mean of its eight views.

    Fields that are one tile, squares of whole patches up to the side of the card's tiles, go
    through the network as they are, in batches; all others as images do in `segment`. Raises
    InputError for other networks, and without a card.
    """

    def __init__(self, model: CellViT, *, batch_size: int | None = None, tta: bool = False):
        plain = predictor_of(model, batch_size)
        self.patch = model.config.patch_size
        views: Any = EightViews(folded(model)) if tta else None
        self.predictor = Predictor(views, plain.card, batch_size=plain.batch_size) if tta else plain

    @property
    def card(self) -> ModelCard:
        """What is known of the network."""
        return self.predictor.card

    @property
    def class_names(self) -> dict[int, str]:
        """Names of the cell types by id, without the background."""
        return {i: name for i, (name, _) in self.card.cell_classes.items()}

    def __call__(self, samples: Iterable[Sample], mpp: float) -> Iterator[tuple[Sample, Found]]:
        """Every sample, in order, with what is found in it; `mpp` is their µm per pixel."""
        for side, group in itertools.groupby(samples, lambda sample: self.side(sample, mpp)):
            if side:
                yield from self._tiles(group)
            else:
                yield from segmented(group, mpp, self.predictor)

    def side(self, sample: Sample, mpp: float) -> int:
        """The side of a sample that is one tile, else 0."""
        height, width = sample.image.shape[:2]
        fits = height == width and MIN_SIDE <= height <= self.card.tile and height % self.patch == 0
        return height if fits and math.isclose(mpp, self.card.mpp, rel_tol=SAME_MPP) else 0

    def shown(self, image: np.ndarray) -> np.ndarray:
        """An image in the colours that the network was trained on."""
        return stained_as(image) if self.card.stain else image

    def _tiles(self, samples: Iterator[Sample]) -> Iterator[tuple[Sample, Found]]:
        size = self.predictor.batch_size
        before: tuple[list[Sample], Any] | None = None
        while batch := list(itertools.islice(samples, size)):
            images = np.zeros((size, *batch[0].image.shape), np.uint8)
            images[: len(batch)] = [self.shown(sample.image) for sample in batch]
            on_device = jax.device_put(images, self.predictor.divided)
            running = _see(self.predictor.graphdef, self.card, self.predictor.state, on_device)
            if before:
                yield from self._finish(*before)
            before = batch, running
        if before:
            yield from self._finish(*before)

    def _finish(self, batch: list[Sample], running: Any) -> Iterator[tuple[Sample, Found]]:
        maps = jax.device_get(running)
        tissues = maps.pop("tissue", None)
        names = self.card.tissues
        for i, sample in enumerate(batch):
            tissue = names[int(tissues[i])] if tissues is not None and names else None
            yield sample, Maps(**{name: values[i] for name, values in maps.items()}, tissue=tissue)


def segmented(
    samples: Iterable[Sample], mpp: float, predictor: Predictor
) -> Iterator[tuple[Sample, Prediction]]:
    """Every sample with what `segment` finds in it."""
    for sample in samples:
        found = segment_sample(sample, predictor, mpp)
        yield sample, Prediction.of(found.instances, found.cells)


def segment_sample(sample: Sample, predictor: Predictor, mpp: float | None = None) -> Segmentation:
    """What is found in an annotated field, taken to be at the model's resolution unless told."""
    image = ImageSlide(sample.name, sample.image, mpp or predictor.card.mpp)
    return segment_image(image, predictor)


# of the module, with the structure of the network as an argument: compiled once for all epochs
@partial(jax.jit, static_argnums=(0, 1))
def _see(graphdef: Any, card: ModelCard, state: Any, images: jax.Array) -> dict[str, jax.Array]:
    maps = nnx.merge(graphdef, state)(normalised(images, card))
    kept = {
        "binary": jnp.argmax(maps["nuclei_binary_map"], -1).astype(jnp.uint8),
        "hv": maps["hv_map"],
        "types": jnp.argmax(maps["nuclei_type_map"], -1).astype(jnp.uint8),
    }
    return kept | (
        {"tissue": jnp.argmax(maps["tissue_types"], -1)} if "tissue_types" in maps else {}
    )
