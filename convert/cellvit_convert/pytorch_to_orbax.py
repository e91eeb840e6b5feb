"""A PyTorch checkpoint becomes a checkpoint directory, completely or not at all."""

from pathlib import Path

import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from cellvit_convert.content import Content
from cellvit_convert.conversion import Conversion
from cellvit_convert.families import identify, rules
from cellvit_convert.rules import Tensors, fill, rename, shapes
from cellvit_jax import checkpoint
from cellvit_jax.files import check_free


def convert(
    source: str | Path,
    target: str | Path,
    *,
    dtype: DTypeLike = np.float32,
    overwrite: bool = False,
    part: str | None = None,
) -> Conversion:
    """Read a `.pth` file and write the checkpoint directory `target`.

    `dtype` is the type that parameters are stored in; batch statistics stay in float32; `part` is
    that of a DINO training, "teacher" (taken where nothing is chosen) or "student". Raises
    `CheckpointError` for a file that is damaged, of an unknown architecture or incomplete (its
    text is then a diff), `UnsafeFileError` for one that asks to run something, and `OutputError`
    where `target` exists and `overwrite` is not set, or cannot be written. Nothing is left behind.
    """
    target = Path(target)
    check_free(target, overwrite and target.is_dir())
    result = translate(Content.read(source, part), dtype)
    checkpoint.save(target, result.weights, result.config, result.card, origin=result.origin)
    return result


def translate(content: Content, dtype: DTypeLike = np.float32) -> Conversion:
    """The weights of a state dict in our names and layout, with config and card."""
    family = identify(content)
    config = family.config(content)
    abstract = nnx.state(checkpoint.network(config), checkpoint.WEIGHTS)
    renamed = rename(content.tensors, rules(config, content.prefix), shapes(abstract))
    return Conversion(
        content.arch,
        content.epoch,
        config,
        family.card(content, config),
        fill(abstract, renamed.tensors, dtype),
        [*renamed.ignored, *content.other_parts],
        _counters({key: content.tensors[key] for key in renamed.ignored}),
        content.part,
        content.prefix,
    )


def _counters(tensors: Tensors) -> dict[str, int]:
    whole = {key: t for key, t in tensors.items() if t.ndim == 0 and t.dtype.kind == "i"}
    return {key: int(tensor) for key, tensor in whole.items()}
