"""From annotated fields to training batches: a Grain pipeline that can start at any step."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np

from cellvit_jax.data.augment import Augmentation
from cellvit_jax.data.dataset import Sample
from cellvit_jax.data.targets import hv_map, regression_map
from cellvit_jax.errors import InputError, MissingExtraError

try:
    import grain
except ImportError as error:
    raise MissingExtraError("grain", "train") from error

Batch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class RandomTile(grain.transforms.RandomMap):
    """A random augmented tile of a random field.

    `weights` are the fields' shares of the tiles (`Sampling.weights`). Element in: anything; out:
    `encode`'s dictionary, with the `regression_map` where it is asked for.
    """

    samples: Sequence[Sample]
    weights: np.ndarray
    tile: int = 256
    augmentation: Augmentation = dataclasses.field(default_factory=Augmentation.demo)
    regression: bool = False

    def random_map(self, element: object, rng: np.random.Generator) -> Batch:
        index = np.searchsorted(self._bounds, rng.random(), side="right")
        sample = self.augmentation(self.samples[int(index)], self.tile, rng)
        return encode(sample, regression=self.regression)

    @cached_property
    def _bounds(self) -> np.ndarray:
        """Where the fields' shares end, of the numbers from 0 to 1."""
        return np.cumsum(self.weights / np.sum(self.weights))[:-1]


def encode(sample: Sample, *, regression: bool = False) -> Batch:
    """The arrays that a training step takes, without the batch axis.

    `image` (H,W,3) uint8, `nuclei` (H,W) bool foreground, `hv` (H,W,2) float32, `types` (H,W)
    uint8, `typed` () float32: 1 where types are annotated, else 0; `tissue` () int32, -1 where
    unknown; `regression` (H,W,2) float32 if asked for.
    """
    types = np.zeros(sample.instances.shape, np.uint8) if sample.types is None else sample.types
    targets = {
        "image": sample.image,
        "nuclei": sample.instances > 0,
        "hv": hv_map(sample.instances),
        "types": types,
        "typed": np.asarray(sample.types is not None, np.float32),
        "tissue": np.asarray(-1 if sample.tissue is None else sample.tissue, np.int32),
    }
    return targets | ({"regression": regression_map(sample.instances)} if regression else {})


def batches(
    tiles: RandomTile,
    batch_size: int,
    *,
    seed: int,
    start: int = 0,
    workers: int = 0,
    shard: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
    """Endless batches from step `start` on; the batch of a step depends on `seed` alone.

    `batch_size` counts the tiles of all processes together; `shard` is which process this is, and
    of how many: their parts, joined in order, are the batch that a single process makes. The tiles
    are made by two threads, or by `workers` processes, which change nothing but the speed.
    """
    index, count = shard
    part = _part(batch_size, count)
    # tiles are numbered before they are divided: so no tile depends on how many processes there are
    data = grain.MapDataset.range(2**40).seed(seed).random_map(tiles).batch(part)
    return _read(data.slice(slice(start * count + index, None, count)), workers)


def _part(batch_size: int, processes: int) -> int:
    if batch_size % processes:
        raise InputError(f"a batch of {batch_size} cannot be divided among {processes} processes")
    return batch_size // processes


def _read(data: grain.MapDataset, workers: int) -> Iterator[Batch]:
    threads = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)
    if not workers:
        return iter(data.to_iter_dataset(threads))
    _parse_no_flags()
    processes = grain.MultiprocessingOptions(workers, per_worker_buffer_size=2)
    return iter(data.to_iter_dataset(threads).mp_prefetch(processes))


def _parse_no_flags() -> None:
    """Grain's processes read absl's flags, which nobody has parsed outside of an absl program."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
