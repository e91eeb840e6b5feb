"""From annotated fields to batches: Grain pipelines that any process can start at any step."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Awaitable, Iterator, Sequence
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from cellvit_jax.data import geometry
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

    def __post_init__(self) -> None:
        if len(self.samples) != len(self.weights) or not np.sum(self.weights) > 0:
            raise InputError(
                f"{len(self.samples)} fields need as many weights, some of them above 0, "
                f"not {len(self.weights)} of sum {np.sum(self.weights):g}"
            )

    def random_map(self, element: object, rng: np.random.Generator) -> Batch:
        sample = self.augmentation(checked(self.drawn(rng)), self.tile, rng)
        return encode(sample, regression=self.regression)

    def drawn(self, rng: np.random.Generator) -> Sample:
        """A field, as often as its share says."""
        return self.samples[int(np.searchsorted(self._bounds, rng.random(), side="right"))]

    @cached_property
    def _bounds(self) -> np.ndarray:
        """Where the fields' shares end, of the numbers from 0 to 1."""
        return np.cumsum(self.weights / np.sum(self.weights))[:-1]


@dataclasses.dataclass(frozen=True)
class EveryTile(grain.transforms.Map):
    """Tiles that cover every field, unchanged, in order: for validation.

    A field is cut into as few windows as cover it, evenly placed, so that some may overlap; one
    smaller than the tile goes on as its mirror image. Element in: one of `windows`, or () for
    filling; out: `encode`'s dictionary and `valid` () float32, 0 for filling, else 1.
    """

    samples: Sequence[Sample]
    tile: int = 256
    regression: bool = False

    @cached_property
    def windows(self) -> list[tuple[int, int, int]]:
        """Field, top and left of each tile. Reads every field once."""
        shapes = [sample.instances.shape for sample in self.samples]
        return [
            (index, top, left)
            for index, (height, width) in enumerate(shapes)
            for top in _places(height, self.tile)
            for left in _places(width, self.tile)
        ]

    def map(self, element: tuple[int, ...]) -> Batch:
        sample = self._window(*element) if element else self._blank()
        valid = np.asarray(bool(element), np.float32)
        return encode(sample, regression=self.regression) | {"valid": valid}

    def _window(self, index: int, top: int, left: int) -> Sample:
        field = geometry.padded(self._field(index), self.tile)
        return geometry.window(field, top, left, self.tile, self.tile)

    @cached_property
    def _field(self):
        # neighbouring windows are of one field
        return lru_cache(maxsize=2)(lambda index: checked(self.samples[index]))

    def _blank(self) -> Sample:
        empty = np.zeros((self.tile, self.tile, 3), np.uint8)
        return Sample("filling", empty, empty[..., 0].astype(np.int32), None)


def _places(length: int, tile: int) -> list[int]:
    count = max(1, -(-length // tile))
    return [round(place) for place in np.linspace(0, max(0, length - tile), count)]


def checked(sample: Sample) -> Sample:
    """The sample; raises `InputError` where its image, instances and types differ in size."""
    shapes = {"image": sample.image.shape[:2], "instances": sample.instances.shape}
    if sample.types is not None:
        shapes["types"] = sample.types.shape
    if len(set(shapes.values())) > 1:
        sizes = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise InputError(f"{sample.name} has parts of different sizes: {sizes}")
    return sample


def encode(sample: Sample, *, regression: bool = False) -> Batch:
    """The arrays that a training step takes, without the batch axis.

    `image` (H,W,3) uint8, `nuclei` (H,W) bool foreground, `hv` (H,W,2) float32, `types` (H,W)
    uint8, 0 outside of nuclei, `typed` () float32: 1 where types are annotated, else 0; `tissue` ()
    int32, -1 where unknown; `regression` (H,W,2) float32 if asked for.
    """
    nuclei = sample.instances > 0
    targets = {
        "image": sample.image,
        "nuclei": nuclei,
        "hv": hv_map(sample.instances),
        "types": np.uint8(0) * nuclei if sample.types is None else sample.types * nuclei,
        "typed": np.asarray(sample.types is not None, np.float32),
        "tissue": np.asarray(-1 if sample.tissue is None else sample.tissue, np.int32),
    }
    return targets | ({"regression": regression_map(sample.instances)} if regression else {})


class Batches(Iterator[Batch]):
    """Endless batches; `step`, the number of the next one, is all that has to be kept of them.

    Orbax keeps it: `ocp.save_checkpointables(path, {"batches": stream, ...})`; what one number of
    processes saved, any other can load.
    """

    def __init__(self, data: grain.MapDataset, step: int, options: dict[str, int]):
        self.step = step
        self._data = data
        self._options = options
        self._source: Any = None

    def __next__(self) -> Batch:
        if self._source is None:
            self._source = _read(self._data.slice(slice(self.step, None)), **self._options)
        batch = next(self._source)
        self.step += 1
        return batch

    def get_state(self) -> dict[str, int]:
        """`{"step": step}`."""
        return {"step": self.step}

    def set_state(self, state: dict[str, int]) -> None:
        """Go on from the step in `state`."""
        self.close()
        self.step = state["step"]

    def close(self) -> None:
        """End the threads and processes that work ahead."""
        if self._source is not None:
            self._source.close()
        self._source = None

    # Grain's own iterators keep a file a process, which other numbers of processes cannot load
    async def save(self, directory: Any) -> Awaitable[None]:
        """For Orbax."""
        return self._write(directory, json.dumps(self.get_state()))

    async def _write(self, directory: Any, state: str) -> None:
        (await directory.await_creation() / "batches.json").write_text(state)

    async def load(self, directory: Any) -> Awaitable[None]:
        """For Orbax."""
        return self._load(directory)

    async def _load(self, directory: Any) -> None:
        self.set_state(json.loads((directory / "batches.json").read_text()))


def batches(
    tiles: grain.transforms.RandomMap,
    batch_size: int,
    *,
    seed: int,
    count: int | None = None,
    start: int = 0,
    threads: int = 2,
    workers: int = 0,
    shard: tuple[int, int] = (0, 1),
) -> Batches:
    """Endless batches from step `start` on; the batch of a step depends on `seed` alone.

    `batch_size` counts the tiles of all hosts together; `shard` is which process this is, and of
    how many: their parts, joined in order, are the batch that a single process makes. Tiles are
    made by `threads` of this process, or of each of `workers` others: that changes the speed alone.
    Each worker has a copy of what `tiles` holds in memory. With `count` the elements that `tiles`
    maps are the numbers below it, in another order every epoch; no batch has one twice, for those
    that would not fill a batch are left out of an epoch.
    """
    index, processes = shard
    # tiles are numbered before they are divided: so no tile depends on how many processes there are
    numbers = grain.MapDataset.range(2**40 if count is None else count).seed(seed)
    if count is not None:
        numbers = numbers.shuffle().slice(slice(count - count % batch_size)).repeat()
    data = numbers.random_map(tiles).batch(_part(batch_size, processes))
    return Batches(
        data.slice(slice(index, None, processes)), start, {"threads": threads, "workers": workers}
    )


def validation_batches(
    tiles: EveryTile, batch_size: int, *, threads: int = 2, shard: tuple[int, int] = (0, 1)
) -> Iterator[Batch]:
    """Every tile once, in batches of one shape, the last ones filled up: see `valid`.

    `batch_size` and `shard` are those of `batches`; all processes get the same number of batches.
    """
    index, count = shard
    part = _part(batch_size, count)
    filling = [()] * (-len(tiles.windows) % batch_size)
    data = grain.MapDataset.source([*tiles.windows, *filling]).map(tiles).batch(part)
    return _read(data.slice(slice(index, None, count)), threads=threads, workers=0)


def _part(batch_size: int, processes: int) -> int:
    if batch_size % processes:
        raise InputError(f"a batch of {batch_size} cannot be divided among {processes} processes")
    return batch_size // processes


def _read(data: grain.MapDataset, *, threads: int, workers: int) -> Any:
    stream = data.to_iter_dataset(grain.ReadOptions(threads, prefetch_buffer_size=2 * threads))
    if workers:
        _parse_no_flags()
        stream = stream.mp_prefetch(grain.MultiprocessingOptions(workers, 2))
    return iter(stream)


def _parse_no_flags() -> None:
    """Grain's processes read absl's flags, which nobody has parsed outside of an absl program."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
