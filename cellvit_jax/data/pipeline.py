"""From annotated fields to training batches: a Grain pipeline that can start at any step."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from cellvit_jax.data import augment
from cellvit_jax.data.dataset import Sample
from cellvit_jax.data.targets import hv_map
from cellvit_jax.errors import MissingExtraError

try:
    import grain
except ImportError as error:
    raise MissingExtraError("grain", "train") from error

Batch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class RandomTile(grain.transforms.RandomMap):
    """A random augmented tile of a random field.

    `weights` are the fields' shares of the tiles; `zoom` the range of magnifications; `stain` and
    `colour` the strengths of these augmentations. Element in: anything; out: `encode`'s dictionary.
    """

    samples: Sequence[Sample]
    weights: np.ndarray
    tile: int = 256
    zoom: tuple[float, float] = (0.75, 1.6)
    stain: float = 0.35
    colour: float = 0.6

    def random_map(self, element: object, rng: np.random.Generator) -> Batch:
        sample = self.samples[rng.choice(len(self.samples), p=self.weights)]
        # half of the tiles keep the magnification they were annotated at
        zoom = self.zoom if rng.random() < 0.5 else (1.0, 1.0)
        sample = augment.random_crop(sample, self.tile, zoom, rng)
        sample = augment.random_symmetry(sample, rng)
        image = augment.random_stain(sample.image, self.stain, rng)
        # the other half of the tiles keep the colours that most slides have
        if rng.random() < 0.5:
            image = augment.random_colour(image, self.colour, rng)
        for change, probability in ((augment.random_blur, 0.2), (augment.random_noise, 0.2)):
            if rng.random() < probability:
                image = change(image, rng)
        return encode(dataclasses.replace(sample, image=image))


def encode(sample: Sample) -> Batch:
    """The arrays that a training step takes, without the batch axis.

    `image` (H,W,3) uint8, `instances` (H,W) bool foreground, `hv` (H,W,2) float32, `types` (H,W)
    uint8, `typed` () float32: 1 where types are annotated, else 0.
    """
    types = np.zeros(sample.instances.shape, np.uint8) if sample.types is None else sample.types
    return {
        "image": sample.image,
        "nuclei": sample.instances > 0,
        "hv": hv_map(sample.instances),
        "types": types,
        "typed": np.asarray(sample.types is not None, np.float32),
    }


def batches(tiles: RandomTile, batch_size: int, *, seed: int, start: int = 0) -> Iterator[Batch]:
    """Endless batches from step `start` on; the batch of a step depends on `seed` alone."""
    data = grain.MapDataset.range(2**40).seed(seed).random_map(tiles).batch(batch_size)
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)
    return iter(data.slice(slice(start, None)).to_iter_dataset(options))
