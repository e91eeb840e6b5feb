"""Cell classifier heads of CellViT++: from the token of a cell to its class."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, Self

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from cellvit_jax.card import ModelCard
from cellvit_jax.models.vit import dropout


class PlainConfig:
    """What a dataclass of plain values needs to be stored beside weights."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)  # type: ignore[call-overload]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of `to_dict`."""
        return cls(**values)


@dataclasses.dataclass(frozen=True)
class HeadConfig(PlainConfig):
    """The sizes of a `CellClassifier`; `num_classes` counts the logits, without a background.

    `drop_rate` acts in training only, between the two layers.
    """

    token_dim: int
    hidden_dim: int
    num_classes: int
    drop_rate: float = 0.0
    architecture: Literal["cell_classifier"] = "cell_classifier"


class CellClassifier(nnx.Module):
    """Two linear layers around a ReLU.

    Logit i belongs to class i + 1 of the card: class 0, the background, is never predicted.
    """

    def __init__(self, config: HeadConfig, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        self.config = config
        self.card: ModelCard | None = None  # what a checkpoint says of its weights
        self.fc1 = nnx.Linear(config.token_dim, config.hidden_dim, dtype=dtype, rngs=rngs)
        self.fc2 = nnx.Linear(config.hidden_dim, config.num_classes, dtype=dtype, rngs=rngs)
        self.dropout = dropout(config.drop_rate, rngs=rngs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Float32 logits (..., classes) of tokens (..., D)."""
        hidden = jax.nn.relu(self.fc1(jnp.asarray(tokens, jnp.float32)))
        return self.fc2(self.dropout(hidden)).astype(jnp.float32)
