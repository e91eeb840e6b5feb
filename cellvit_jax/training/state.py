"""The state of a network in training: what it is made of, where it lies, how it begins."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from flax.traverse_util import unflatten_dict
from jax.sharding import Mesh

from cellvit_jax import checkpoint, sharding, zoo
from cellvit_jax.card import ModelCard
from cellvit_jax.errors import CheckpointError
from cellvit_jax.initialise import quick_compilation
from cellvit_jax.models import EncoderConfig, ModelConfig
from cellvit_jax.models.vit import precise
from cellvit_jax.training.optimizer import in_encoder, optimizer
from cellvit_jax.training.recipes import Recipe
from cellvit_jax.training.task import Supervised, Task

Arrays = dict[str, jax.Array]  # by the dotted names of the network's variables


class TrainState(NamedTuple):
    """All that a step changes. Random numbers follow from the recipe's seed and `step`."""

    step: jax.Array  # () int32: steps made
    params: Arrays  # what the recipe ever trains
    rest: Arrays  # what it never does, and batch statistics
    optimizer: optax.OptState
    ema: Arrays | None  # moving average of `params`


@dataclasses.dataclass(frozen=True)
class Layout:
    """A network made ready for a task, a recipe and a mesh, without values.

    `abstract` is a `TrainState` of shapes, types and shardings, which a checkpoint of the state is
    loaded into, whatever the mesh that it was written on.
    """

    config: EncoderConfig
    card: ModelCard
    recipe: Recipe
    mesh: Mesh
    task: Task
    graphdef: nnx.GraphDef
    streams: Arrays  # abstract: the random streams' keys and counters
    abstract: TrainState

    @property
    def shardings(self) -> TrainState:
        """The sharding of every array of the state."""
        return jax.tree.map(lambda leaf: leaf.sharding, self.abstract)

    def merge(self, *values: Arrays) -> Any:
        """The network with the given arrays, which must be all of them."""
        arrays = {name: array for part in values for name, array in part.items()}
        return nnx.merge(self.graphdef, nested(arrays))


def new_layout(
    config: EncoderConfig,
    card: ModelCard,
    recipe: Recipe,
    mesh: Mesh | None = None,
    task: Task | None = None,
) -> Layout:
    """The layout of a network's training on `mesh`, by default all devices with copied weights.

    The network, a CellViT or an encoder alone, learns `task`, by default from annotated maps.
    """
    mesh = sharding.make_mesh() if mesh is None else mesh
    task = Supervised(config, recipe) if task is None else task
    model = nnx.eval_shape(lambda: task.network(checkpoint.abstract_rngs()))
    model.card = card
    graphdef, streams, params, rest = split(model, recipe)
    abstract = jax.eval_shape(partial(assembled, recipe), params, rest)
    abstract = sharding.place(abstract, mesh, rules(config))
    return Layout(config, card, recipe, mesh, task, graphdef, streams, abstract)


def rules(config: EncoderConfig) -> sharding.Rules:
    """How the weights of a network of that config are divided."""
    return sharding.rules(config.encoder, decoder=isinstance(config, ModelConfig))


def begin(layout: Layout, weights: Mapping[str, Any] | None = None) -> TrainState:
    """The state at step 0, made where it belongs: the given weights, all else from the seed.

    `weights` are arrays by the dotted names of the network's variables, of which it may lack some.
    Raises `CheckpointError` with a diff for names and shapes that the network does not have.
    """
    places = layout.abstract.params | layout.abstract.rest
    weights = {} if weights is None else weights
    check(weights, places)
    given = {name: put(value, places[name]) for name, value in weights.items()}
    draw = jax.jit(
        lambda seed, given: drawn(layout, seed, given),
        out_shardings=layout.shardings,
        compiler_options=quick_compilation(),
    )
    return draw(np.uint32(layout.recipe.seed), given)


def read_weights(layout: Layout, path: str | Path) -> Arrays:
    """The weights of the checkpoint at `path`, each where the layout wants it.

    Raises `CheckpointError` where they are not those of the layout's network.
    """
    places = layout.abstract.params | layout.abstract.rest
    return checkpoint.leaves(checkpoint.load_weights(zoo.find(path) / "weights", nested(places)))


def trained(layout: Layout, state: TrainState) -> Any:
    """The network as it stands, for inference: with averaged weights where the recipe has them."""
    values = (state.params if state.ema is None else state.ema) | state.rest
    model = checkpoint.network(layout.config, dtype=layout.recipe.dtype)
    own = named(nnx.state(model, checkpoint.WEIGHTS))
    nnx.update(model, nested({name: values[name] for name in own}))
    return checkpoint.for_inference(model, layout.card)


def drawn(layout: Layout, seed: Any, given: Arrays) -> TrainState:
    """A state with the given values, and all others drawn."""
    model = layout.task.network(nnx.Rngs(jax.random.key(seed)))
    _, _, *parts = split(model, layout.recipe)
    params, rest = ({name: given.get(name, part[name]) for name in part} for part in parts)
    return assembled(layout.recipe, params, rest)


def split(model: nnx.Module, recipe: Recipe) -> tuple[nnx.GraphDef, Arrays, Arrays, Arrays]:
    """Structure, random streams, what the recipe ever trains, and what it never does."""

    def is_trained(path: tuple, variable: Any) -> bool:
        rests = recipe.unfreeze_epoch is None and in_encoder(".".join(map(str, path)))
        return isinstance(variable, nnx.Param) and not rests

    graphdef, *parts = nnx.split(model, nnx.RngState, is_trained, ...)
    streams, params, rest = (named(part) for part in parts)
    return graphdef, streams, params, rest


def assembled(recipe: Recipe, params: Arrays, rest: Arrays) -> TrainState:
    """The state at step 0 with these values."""
    params, rest = jax.tree.map(lambda leaf: leaf.astype(precise(recipe.dtype)), (params, rest))
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        rest=rest,
        optimizer=optimizer(recipe, encoder_rests=False).init(params),
        ema=None if recipe.ema_decay is None else jax.tree.map(jnp.copy, params),
    )


def check(weights: Mapping[str, Any], places: Mapping[str, Any]) -> None:
    """Raises `CheckpointError` for weights that the network has no place for."""
    found, wanted = (
        {name: tuple(leaf.shape) for name, leaf in leaves.items()} for leaves in (weights, places)
    )
    differences = [line for line in checkpoint.diff(found, wanted) if line[0] != "-"]
    if differences:
        raise CheckpointError("the weights are of another network:\n" + "\n".join(differences))


def put(value: Any, place: Any) -> jax.Array:
    """The array, known to all processes, where it belongs."""
    if isinstance(value, jax.Array) and value.sharding == place.sharding:
        return value
    value = np.asarray(value)
    return jax.make_array_from_callback(place.shape, place.sharding, lambda part: value[part])


def named(state: nnx.State) -> Arrays:
    """The arrays of a network's state (`nnx.state(model, checkpoint.WEIGHTS)`) by dotted names."""
    return checkpoint.leaves(nnx.to_pure_dict(state))


def nested(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """The tree that `named` arrays come from."""
    return unflatten_dict(
        {
            tuple(int(part) if part.isdigit() else part for part in name.split(".")): array
            for name, array in arrays.items()
        }
    )
