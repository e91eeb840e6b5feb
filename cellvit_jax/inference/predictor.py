"""The jitted network call: uint8 tiles in, what cells are made of out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cellvit_jax.card import ModelCard, cell_classes
from cellvit_jax.models import CellViT

Maps = dict[str, np.ndarray]
BATCH_SIZES = {"cpu": 1}  # by platform; accelerators want more work per call
DEFAULT_BATCH_SIZE = 8
NUCLEUS = cell_classes("Nucleus")


class Predictor:
    """Runs `model` on tiles of one size in batches of one size, so that it compiles once.

    `card` tells how pixels are normalised. With `tokens`, the last skip is returned too. With
    `binary`, the network's types are left aside: every nucleus pixel is of the one class of
    `predictor.card`.
    """

    def __init__(
        self,
        model: CellViT,
        card: ModelCard,
        *,
        batch_size: int | None = None,
        tokens: bool = False,
        binary: bool = False,
    ):
        self.card = dataclasses.replace(card, classes=NUCLEUS) if binary else card
        self.batch_size = batch_size or BATCH_SIZES.get(jax.default_backend(), DEFAULT_BATCH_SIZE)
        # a pure dictionary under a closed-over graph is the cheapest call there is
        graphdef, state = nnx.split(model)
        self._state = jax.device_put(nnx.to_pure_dict(state))
        self._predict = jax.jit(partial(_predict, graphdef, card, tokens, binary))

    def __call__(self, tiles: Iterable[np.ndarray]) -> Iterator[Maps]:
        """One dictionary a tile (T,T,3) uint8, in order; a batch is in flight while one is read.

        `binary` (T,T) uint8, `hv` (T,T,2) float32, `types` (T,T) uint8, `probabilities`
        (T,T,classes) float16 unless `binary`, and `tokens` (h,w,D) float32 if asked for.
        """
        pending: tuple[int, dict[str, jax.Array]] | None = None
        remaining = iter(tiles)
        while batch := tuple(islice(remaining, self.batch_size)):
            running = len(batch), self._run(batch)
            if pending:
                yield from _split(*pending)
            pending = running
        if pending:
            yield from _split(*pending)

    def _run(self, tiles: tuple[np.ndarray, ...]) -> dict[str, jax.Array]:
        images = np.zeros((self.batch_size, *tiles[0].shape), np.uint8)
        images[: len(tiles)] = tiles
        return self._predict(self._state, jax.device_put(images))


def _predict(graphdef, card, tokens, binary, state, images):
    pixels = (images.astype(jnp.float32) / 255 - np.float32(card.mean)) / np.float32(card.std)
    maps = nnx.merge(graphdef, state)(pixels, tokens=tokens)
    nuclei = jnp.argmax(maps["nuclei_binary_map"], -1).astype(jnp.uint8)
    kept = {"binary": nuclei, "hv": maps["hv_map"]}
    kept |= {"types": nuclei} if binary else _types(maps["nuclei_type_map"])
    return kept | ({"tokens": maps["tokens"]} if tokens else {})


def _types(logits):
    return {
        "types": jnp.argmax(logits, -1).astype(jnp.uint8),
        "probabilities": jax.nn.softmax(logits).astype(jnp.float16),
    }


def _split(count: int, maps: dict[str, jax.Array]) -> Iterator[Maps]:
    on_host = jax.device_get(maps)
    for i in range(count):
        yield {name: values[i] for name, values in on_host.items()}
