"""The jitted network call: uint8 tiles in, what cells are made of out."""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache, partial
from itertools import islice
from typing import Any, TypeAlias

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cellvit_jax.card import ModelCard, cell_classes
from cellvit_jax.inference.memory import halved
from cellvit_jax.inference.reduction import reduced, unpacked
from cellvit_jax.models import CellClassifier, CellViT, folded
from cellvit_jax.sharding import over_batch

Maps = dict[str, np.ndarray]
Running: TypeAlias = dict[str, jax.Array] | Exception
BATCH_SIZES = {"cpu": 1}  # a device, by platform; accelerators want more work per call
DEFAULT_BATCH_SIZE = 8
NUCLEUS = cell_classes("Nucleus")


class Predictor:
    """Runs `model` on tiles of one size in batches of one size, so that it compiles once.

    `card` tells how pixels are normalised. With `tokens`, the last skip is returned too. With
    `binary`, the network's types are left aside: every nucleus pixel is of one class. A `head` is
    for the cells that are found, and needs their tokens, whether they are wanted or not.
    `predictor.card` names the classes that cells have in the end.

    A batch is divided among the local devices, as many of them as divide `batch_size`; by default
    each gets what suits its platform. Where a device has not enough memory, batches are halved, and
    the rest of the work goes on with those.

    What runs is the network's inference form (`models.folded`), with that `attention` kernel.
    Another network that gives the same maps runs as it is.
    """

    def __init__(
        self,
        model: CellViT,
        card: ModelCard,
        *,
        batch_size: int | None = None,
        tokens: bool = False,
        binary: bool = False,
        head: CellClassifier | None = None,
        attention: str = "xla",
    ):
        self.model = model
        self.card = _with_classes(card, head, binary)
        self.head, self.tokens = head, tokens
        self.busy = 0.0  # seconds in which the devices had work
        self.batch_size = batch_size or _default_batch_size()
        self._devices = max(
            n for n in range(1, jax.local_device_count() + 1) if self.batch_size % n == 0
        )
        self.divided, copied = over_batch(self._devices)  # the sharding of a batch
        run = folded(model, attention=attention) if isinstance(model, CellViT) else model
        # a pure dictionary under a closed-over graph is the cheapest call there is
        self.graphdef, state = nnx.split(run)
        self.state = jax.device_put(nnx.to_pure_dict(state), copied)
        with_tokens = tokens or head is not None
        self._predict = _program(self.graphdef, card, with_tokens, binary)

    @property
    def weights(self) -> Any:
        """The network's parameters and statistics, as nested dictionaries."""
        return nnx.to_pure_dict(nnx.state(self.model))

    @property
    def inputs(self) -> list[jax.Array]:
        """What the program takes beside tiles: the weights of the form that runs."""
        return jax.tree.leaves(self.state)

    def compiled(self, side: int) -> jax.stages.Compiled:
        """The program for tiles of that side, which the cache of compiled programs then holds."""
        return self._predict.lower(self.state, self._tiles(side, self.divided)).compile()

    def exported(self, side: int, platforms: Sequence[str]) -> jax.export.Exported:
        """The program for one device of any of the platforms, of the list of `inputs` and tiles."""
        leaves, tree = jax.tree.flatten(self.state)
        program = jax.jit(
            lambda leaves, tiles: self._predict(jax.tree.unflatten(tree, leaves), tiles)
        )
        inputs = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in leaves]
        return jax.export.export(program, platforms=platforms)(inputs, self._tiles(side))

    def _tiles(self, side: int, sharding: jax.sharding.Sharding | None = None) -> Any:
        shape = self.batch_size, side, side, 3
        return jax.ShapeDtypeStruct(shape, np.uint8, sharding=sharding)

    def __call__(self, tiles: Iterable[np.ndarray]) -> Iterator[Maps]:
        """One dictionary a tile (T,T,3) uint8, in order; a batch is in flight while one is read.

        `binary` (T,T) uint8, `edge` (T,T) float32, `types` (T,T) uint8 (0 outside of nuclei),
        `probabilities` (T,T,classes) uint8, in 255ths, unless `binary`, and `tokens` (h,w,D)
        float32 if asked for.
        Raises DeviceMemoryError where not even single tiles fit.
        """
        pending: tuple[list[np.ndarray], Running, float] | None = None
        remaining = iter(tiles)
        while batch := list(islice(remaining, self.batch_size)):
            running = batch, self._run(batch), time.perf_counter()
            if pending:
                yield from self._finish(*pending)
            pending = running
        if pending:
            yield from self._finish(*pending)

    def _finish(self, tiles: list[np.ndarray], running: Running, begun: float) -> list[Maps]:
        maps = self._maps(tiles, running)
        ended = time.perf_counter()
        self.busy += ended - max(begun, self._free)
        self._free = ended
        return maps

    _free = 0.0  # when the devices had last finished

    def _maps(self, tiles: list[np.ndarray], running: Running) -> list[Maps]:
        """The maps of every tile; in smaller batches where memory did not suffice."""
        try:
            if isinstance(running, Exception):
                raise running
            on_host = jax.device_get(running)
            return [
                self._unpacked({k: values[i] for k, values in on_host.items()})
                for i in range(len(tiles))
            ]
        except jax.errors.JaxRuntimeError as error:
            # a batch that was dispatched before may have been halved already
            if self.batch_size >= len(tiles):
                self._halve(error)
        maps = []
        for i in range(0, len(tiles), self.batch_size):
            part = tiles[i : i + self.batch_size]
            maps += self._maps(part, self._run(part))
        return maps

    def _unpacked(self, arrays: Maps) -> Maps:
        """What the host makes of the arrays that came of a tile."""
        return unpacked(arrays)

    def _halve(self, error: jax.errors.JaxRuntimeError) -> None:
        self.batch_size = halved(self.batch_size // self._devices, error) * self._devices
        warnings.warn(
            f"the device has not enough memory: going on with batches of {self.batch_size}",
            stacklevel=2,
        )

    def _run(self, tiles: list[np.ndarray]) -> Running:
        images = np.zeros((self.batch_size, *tiles[0].shape), np.uint8)
        images[: len(tiles)] = tiles
        try:
            return self._predict(self.state, jax.device_put(images, self.divided))
        except jax.errors.JaxRuntimeError as error:
            return error


def _with_classes(card: ModelCard, head: CellClassifier | None, binary: bool) -> ModelCard:
    if head is not None and head.card is not None:
        return dataclasses.replace(card, classes=head.card.classes)
    return dataclasses.replace(card, classes=NUCLEUS) if binary else card


def _default_batch_size() -> int:
    if (size := BATCH_SIZES.get(jax.default_backend())) is not None:
        return size
    return DEFAULT_BATCH_SIZE * jax.local_device_count()


def normalised(images: jax.Array, card: ModelCard) -> jax.Array:
    """uint8 RGB as the network sees it, float32."""
    mean, std = (np.asarray(values, np.float32) for values in (card.mean, card.std))
    return (images.astype(jnp.float32) / 255 - mean) / std


# a network in training is shown to a new predictor every epoch: all have one compiled program
@lru_cache(maxsize=4)
def _program(graphdef: Any, card: ModelCard, tokens: bool, binary: bool) -> Any:
    return jax.jit(partial(_predict, graphdef, card, tokens, binary))


def _predict(graphdef, card, tokens, binary, state, images):
    maps = nnx.merge(graphdef, state)(normalised(images, card), tokens=tokens)
    return reduced(maps, binary=binary) | ({"tokens": maps["tokens"]} if tokens else {})
