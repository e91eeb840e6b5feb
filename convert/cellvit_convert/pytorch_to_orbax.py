"""A PyTorch checkpoint becomes a checkpoint directory, completely or not at all."""

from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from cellvit_convert.card import model_card
from cellvit_convert.content import Content
from cellvit_convert.families import identify
from cellvit_convert.rules import fill, rename, shapes
from cellvit_jax import checkpoint
from cellvit_jax.card import ModelCard
from cellvit_jax.errors import OutputError
from cellvit_jax.models import CellViT, ModelConfig


@dataclass(frozen=True)
class Conversion:
    """What a checkpoint was found to be, and what became of it."""

    arch: str
    config: ModelConfig
    card: ModelCard
    weights: nnx.State
    ignored: list[str]

    @property
    def parameters(self) -> int:
        """The number of trainable values."""
        return sum(x.size for x in jax.tree.leaves(nnx.filter_state(self.weights, nnx.Param)))


def convert(
    source: str | Path,
    target: str | Path,
    *,
    dtype: DTypeLike = np.float32,
    overwrite: bool = False,
) -> Conversion:
    """Read a `.pth` file and write the checkpoint directory `target`.

    `dtype` is the type that parameters are stored in; batch statistics stay in float32. Raises
    `CheckpointError` for a file that is damaged, of an unknown architecture or incomplete (its
    text is then a diff), `UnsafeFileError` for one that asks to run something, and `OutputError`
    where `target` exists and `overwrite` is not set, or cannot be written. Nothing is left behind.
    """
    target = Path(target)
    if target.exists() and not (overwrite and target.is_dir()):
        raise OutputError(f"{target} exists: choose another name or say --overwrite")
    result = translate(Content.read(source), dtype)
    checkpoint.save(target, result.weights, result.config, result.card)
    return result


def translate(content: Content, dtype: DTypeLike = np.float32) -> Conversion:
    """The weights of a state dict in our names and layout, with config and card."""
    family = identify(content)
    config = family.config(content)
    model = nnx.eval_shape(lambda: CellViT(config, rngs=nnx.Rngs(0)))
    abstract = nnx.state(model, checkpoint.WEIGHTS)
    renamed = rename(content.tensors, family.rules(config), shapes(abstract))
    weights = fill(abstract, renamed.tensors, dtype)
    return Conversion(content.arch, config, model_card(content, config), weights, renamed.ignored)
