"""The strict renaming of a PyTorch state dict: every key on both sides is accounted for.

A family's table is a list of `Rule`s. The first whose pattern matches a whole layer name decides,
its layout says what each parameter of such a layer is called here and how its axes move.
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from cellvit_jax.checkpoint import diff
from cellvit_jax.errors import CheckpointError

Tensors = Mapping[str, np.ndarray]


class Parameter(NamedTuple):
    """Our name of a layer's parameter, and the order that its axes take (None: as they are)."""

    name: str
    axes: tuple[int, ...] | None = None


Layout = Mapping[str, Parameter | None]  # None: known, and of no use here

LINEAR: Layout = {"weight": Parameter("kernel", (1, 0)), "bias": Parameter("bias")}
CONV: Layout = {"weight": Parameter("kernel", (2, 3, 1, 0)), "bias": Parameter("bias")}
UPSAMPLE: Layout = {"weight": Parameter("kernel", (2, 3, 0, 1)), "bias": Parameter("bias")}
LAYER_NORM: Layout = {"weight": Parameter("scale"), "bias": Parameter("bias")}
BATCH_NORM: Layout = {
    **LAYER_NORM,
    "running_mean": Parameter("mean"),
    "running_var": Parameter("var"),
    "num_batches_tracked": None,
}


class Rule(NamedTuple):
    """A pattern for the names of torch layers, the layer they are here, and their layout."""

    pattern: str
    layer: str
    layout: Layout


class Renamed(NamedTuple):
    """Tensors under our names and in our layout (views), and the keys ignored on purpose."""

    tensors: dict[str, np.ndarray]
    ignored: list[str]


def rename(tensors: Tensors, rules: Sequence[Rule], wanted: Mapping[str, tuple]) -> Renamed:
    """The tensors that a model of the `wanted` names and shapes is filled with.

    Raises `CheckpointError` unless both sides fit completely: its text lists keys without a rule
    (`?`), names written twice (`=`), surplus (`+`), missing (`-`) and of another shape (`!`).
    """
    renamed: dict[str, np.ndarray] = {}
    ignored, problems = [], []
    for key, tensor in tensors.items():
        try:
            parameter = find(key, rules)
        except KeyError:
            problems.append(f"? {key}: no rule")
            continue
        if parameter is None:
            ignored.append(key)
        elif parameter.name in renamed:
            problems.append(f"= {parameter.name}: written twice, the second time by {key}")
        else:
            renamed[parameter.name] = _permute(tensor, parameter.axes)
    problems += diff({name: array.shape for name, array in renamed.items()}, dict(wanted))
    if problems:
        raise CheckpointError("the checkpoint does not fit the model:\n" + "\n".join(problems))
    return Renamed(renamed, ignored)


def find(key: str, rules: Sequence[Rule]) -> Parameter | None:
    """What a torch key is called here; None if it is of no use, KeyError if no rule knows it."""
    layer, _, name = key.rpartition(".")
    for rule in rules:
        if (match := re.fullmatch(rule.pattern, layer)) and name in rule.layout:
            parameter = rule.layout[name]
            return parameter and Parameter(
                f"{match.expand(rule.layer)}.{parameter.name}", parameter.axes
            )
    raise KeyError(key)


def _permute(tensor: np.ndarray, axes: tuple[int, ...] | None) -> np.ndarray:
    # A tensor of another rank goes through as it is: its shape is then a line of the diff.
    return tensor.transpose(axes) if axes and len(axes) == tensor.ndim else tensor


def shapes(abstract: nnx.State) -> dict[str, tuple[int, ...]]:
    """The dotted names of a state's variables and their shapes."""
    return {".".join(map(str, path)): v.shape for path, v in nnx.to_flat_state(abstract)}


def fill(abstract: nnx.State, tensors: Tensors, dtype: DTypeLike) -> nnx.State:
    """`abstract` with arrays of `dtype` for its parameters; statistics stay in float32."""

    def value(path: tuple, variable: nnx.Variable) -> nnx.Variable:
        kind = dtype if isinstance(variable, nnx.Param) else np.float32
        return variable.replace(tensors[".".join(map(str, path))].astype(kind, copy=False))

    return nnx.map_state(value, abstract)
