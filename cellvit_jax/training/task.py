"""What is trained, and what for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from flax import nnx

from cellvit_jax import checkpoint
from cellvit_jax.models import EncoderConfig
from cellvit_jax.models.attention import set_kernel
from cellvit_jax.training.objective import Metrics
from cellvit_jax.training.recipes import Recipe


class Task(Protocol):
    """What a state holds, and what a step makes smaller.

    `given` are placed arrays, such as a teacher's weights, that every step finds in its batch;
    they do not change and are not saved.
    """

    @property
    def given(self) -> Mapping[str, Any]:
        """Entries of every batch, beside those of the data."""

    def network(self, rngs: nnx.Rngs) -> Any:
        """A new network of the layout's config; what only training needs is attached to it.

        Attachments are modules under names of their own: they are trained and saved in the state,
        and left out of the checkpoints that the run writes. What a loss changes of `nnx.BatchStat`
        stays changed.
        """

    def loss(
        self, model: Any, batch: Mapping[str, Any], average: Callable[[], Any]
    ) -> tuple[jax.Array, Metrics]:
        """The loss, and it as `loss` among all that is worth a line in the log.

        `average()` is the network with averaged weights, without a gradient; without `ema_decay`
        it is the network before the step.
        """


@dataclasses.dataclass(frozen=True)
class Supervised:
    """The maps of a CellViT shall be those that were annotated."""

    config: EncoderConfig
    recipe: Recipe

    @property
    def given(self) -> Mapping[str, Any]:
        """Nothing."""
        return {}

    def network(self, rngs: nnx.Rngs) -> Any:
        """The CellViT alone."""
        return network(self.config, self.recipe, rngs)

    def loss(
        self, model: Any, batch: Mapping[str, Any], average: Callable[[], Any]
    ) -> tuple[jax.Array, Metrics]:
        """The recipe's objective."""
        return self.recipe.objective(model, batch)


def network(config: EncoderConfig, recipe: Recipe, rngs: nnx.Rngs) -> Any:
    """A new network, a CellViT or an encoder alone, as the recipe trains it."""
    config = dataclasses.replace(
        config,
        drop_path_rate=recipe.drop_path_rate,
        attention_drop_rate=recipe.attention_drop_rate,
    )
    model = checkpoint.kind(config).network(config, dtype=jnp.dtype(recipe.dtype), rngs=rngs)
    model.encoder.remat = recipe.remat
    if recipe.attention != "xla":
        set_kernel(model, recipe.attention)
    return model
