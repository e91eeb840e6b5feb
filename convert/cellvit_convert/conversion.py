"""What both directions of a conversion have in common."""

from dataclasses import dataclass, field
from pathlib import Path

import jax
from flax import nnx

from cellvit_jax.card import ModelCard
from cellvit_jax.checkpoint import Config
from cellvit_jax.errors import OutputError
from cellvit_jax.inspection import Summary


@dataclass(frozen=True)
class Conversion:
    """What a checkpoint was found to be, and what became of it.

    `arch` and `epoch` are the original code's class and the training epoch, as the file says;
    `ignored` are the PyTorch keys that a network here has no use for, `counters` the values of
    those that count: they are kept for the way back.
    """

    arch: str
    epoch: int | None
    config: Config
    card: ModelCard
    weights: nnx.State
    ignored: list[str] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)

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


def check_target(target: Path, replaceable: bool) -> None:
    """Raises `OutputError` for a target that is there and must not be replaced."""
    if target.exists() and not replaceable:
        raise OutputError(f"{target} exists: choose another name or say --overwrite")
