"""A teacher: a trained network whose outputs another one learns to give."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jax.typing import DTypeLike

from cellvit_jax import checkpoint, sharding
from cellvit_jax.card import ModelCard
from cellvit_jax.errors import InputError
from cellvit_jax.initialise import Source
from cellvit_jax.models import EncoderConfig, ModelConfig
from cellvit_jax.models.config import quarters
from cellvit_jax.models.vit import precise
from cellvit_jax.training.objective import normalise
from cellvit_jax.training.optimizer import in_encoder
from cellvit_jax.training.state import Arrays, named, nested, put, rules


class Seen(NamedTuple):
    """What a network makes of images: four skips as grids (B,h,w,D), and maps if it has any."""

    skips: tuple[jax.Array, ...]
    maps: dict[str, jax.Array]


@dataclasses.dataclass(frozen=True, eq=False)
class Teacher:
    """A frozen network: its structure, where its weights lie, and the weights themselves."""

    config: EncoderConfig
    card: ModelCard
    graphdef: nnx.GraphDef
    weights: Arrays

    def __call__(self, weights: Arrays, images: jax.Array) -> Seen:
        """What it makes of uint8 images (B,H,W,3), with its weights as a program is given them."""
        places: Any = {name: weight.sharding for name, weight in self.weights.items()}
        values = sharding.gathered(weights, places)
        model = nnx.merge(self.graphdef, nested(values))
        return see(model, images, maps=isinstance(self.config, ModelConfig))


def see(model: Any, images: jax.Array, *, maps: bool) -> Seen:
    """What a network makes of uint8 images (B,H,W,3); the decoder runs for its `maps` alone."""
    h, w = (n // model.config.patch_size for n in images.shape[1:3])
    images, outputs = normalise(model, images), {}
    if maps:
        outputs = model(images, skips=True)
        skips = [outputs.pop(f"skip{i}") for i in range(1, 5)]
    else:
        skips = model.encoder(images).skips
    return Seen(tuple(z[:, -h * w :].reshape(len(z), h, w, -1) for z in skips), outputs)


def find(name: str | Path, *, maps: bool) -> tuple[Source, EncoderConfig]:
    """A teacher's checkpoint and config: with `maps` of a whole CellViT, else of an encoder alone.

    An encoder's skips are its blocks at every quarter of its depth, or those of the CellViT that it
    is part of. Raises `InputError` for what has no encoder, or no maps.
    """
    source = Source.find(name)
    if maps:
        if not isinstance(source.config, ModelConfig):
            raise InputError(
                f"{name} is a {source.config.architecture}, which has no maps to learn from: "
                "learn from its features alone, with --no-maps"
            )
        return source, source.config
    skips = source.encoder.skip_layers or quarters(source.encoder.depth)
    return source, dataclasses.replace(source.encoder, skip_layers=skips, num_tissues=0)


def load(name: str | Path, mesh: Mesh, *, maps: bool, dtype: DTypeLike) -> Teacher:
    """The teacher of that name, divided on `mesh` by the rules of networks in training.

    It computes in `dtype`, in which the kernels of its encoder are also held: they would be cast to
    it whenever they are used.
    """
    source, config = find(name, maps=maps)
    model = checkpoint.network(config, dtype=dtype)
    graphdef, abstract = nnx.split(checkpoint.for_inference(model, source.card))
    places = sharding.place(named(abstract), mesh, rules(config))
    weights = {
        name: put(np.asarray(value, held(name, dtype)), places[name])
        for name, value in read(source, nnx.to_pure_dict(abstract), maps=maps).items()
    }
    return Teacher(config, source.card, graphdef, weights)


def read(source: Source, abstract: Any, *, maps: bool) -> Arrays:
    """The weights of the whole network, or of its encoder alone, which are those of `abstract`."""
    if maps:
        return named(nnx.state(checkpoint.load(source.path), checkpoint.WEIGHTS))
    branch = checkpoint.load_branch(
        source.path, source.branch, abstract["encoder"], without=("head",)
    )
    return checkpoint.leaves({"encoder": branch})


def held(name: str, dtype: DTypeLike) -> DTypeLike:
    """The type of a weight of a network that computes in `dtype`."""
    return dtype if in_encoder(name) and name.endswith(".kernel") else precise(dtype)
