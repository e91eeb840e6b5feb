"""A checkpoint directory becomes a `.pth` file that the original code loads with strict=True."""

from collections import OrderedDict
from pathlib import Path

import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from cellvit_convert import families
from cellvit_convert.conversion import Conversion
from cellvit_convert.rules import restore
from cellvit_jax import checkpoint
from cellvit_jax.files import atomic_open, check_free
from cellvit_jax.torch_save import write_torch


def convert(
    source: str | Path,
    target: str | Path,
    *,
    dtype: DTypeLike = np.float32,
    overwrite: bool = False,
) -> Conversion:
    """Read a checkpoint directory and write the `.pth` file `target`.

    `dtype` is the type of the parameters in the file; all else is in float32. Raises
    `CheckpointError` for a directory that is damaged, or holds a network that the original code
    cannot build, and `OutputError` where `target` exists and `overwrite` is not set, or cannot be
    written. Nothing is left behind.
    """
    target = Path(target)
    check_free(target, overwrite and target.is_file())
    config, card = checkpoint.read_config(source)
    origin = checkpoint.read_origin(source)
    family = families.of(config)
    arch = family.arch(config)
    weights = nnx.state(checkpoint.load(source), checkpoint.WEIGHTS)
    rules = family.rules(config, origin.get("prefix", ""))
    state = restore(_arrays(weights, dtype), rules, origin.get("counters", {}))
    with atomic_open(target) as file:
        write_torch(file, family.value(OrderedDict(state), config, card, origin))
    return Conversion(arch, origin.get("epoch"), config, card, weights)


def _arrays(weights: nnx.State, dtype: DTypeLike) -> dict[str, np.ndarray]:
    """Our dotted names and arrays: parameters of `dtype`, all else of float32."""
    return {
        ".".join(map(str, path)): np.asarray(
            variable[...], dtype if isinstance(variable, nnx.Param) else np.float32
        )
        for path, variable in nnx.to_flat_state(weights)
    }
