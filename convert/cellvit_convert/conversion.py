"""What both directions of a conversion have in common."""

from dataclasses import dataclass, field
from typing import Any

import jax
from flax import nnx

from cellvit_jax.card import ModelCard
from cellvit_jax.checkpoint import Config
from cellvit_jax.inspection import Summary


@dataclass(frozen=True)
class Conversion:
    """What a checkpoint was found to be, and what became of it.

    `arch` and `epoch` are the original code's class and the training epoch, as the file says;
    `ignored` are the PyTorch keys that a network here has no use for, `counters` the values of
    those that count: they are kept for the way back, as are the `part` of a DINO training that was
    taken and the `prefix` of an encoder's keys.
    """

    arch: str
    epoch: int | None
    config: Config
    card: ModelCard
    weights: nnx.State
    ignored: list[str] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)
    part: str = ""
    prefix: str = ""

    @property
    def origin(self) -> dict[str, Any]:
        """What is noted for the way back, in plain values."""
        names = ("arch", "epoch", "counters", "part", "prefix")
        return {name: getattr(self, name) for name in names}

    def summary(self, *dtypes: str) -> Summary:
        """The lines that a person reads; `dtypes` are those of the parameters where they lie."""
        parameters = jax.tree.leaves(nnx.filter_state(self.weights, nnx.Param))
        return Summary(
            self.config,
            self.card,
            sum(parameter.size for parameter in parameters),
            dtypes,
            self.arch,
            self.epoch,
            self.ignored,
        )
