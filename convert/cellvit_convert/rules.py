"""The strict renaming between PyTorch's state dicts and ours, both ways from one table.

A family's table is a list of `Rule`s. The first whose layer matches decides, its layout says what
each parameter of such a layer is called on the other side and how its axes move. Every key on both
sides is accounted for. The rules stand in the order of the originals' state dicts.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
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


Layout = Mapping[str, Parameter | None]  # None: a counter, of no use here

LINEAR: Layout = {"weight": Parameter("kernel", (1, 0)), "bias": Parameter("bias")}
CONV: Layout = {"weight": Parameter("kernel", (2, 3, 1, 0)), "bias": Parameter("bias")}
UPSAMPLE: Layout = {"weight": Parameter("kernel", (2, 3, 0, 1)), "bias": Parameter("bias")}
DOUBLING: Layout = {"weight": Parameter("kernel", (0, 2, 3, 1))}
EMBEDDING: Layout = {"weight": Parameter("embedding")}
LAYER_NORM: Layout = {"weight": Parameter("scale"), "bias": Parameter("bias")}
BATCH_NORM: Layout = {
    **LAYER_NORM,
    "running_mean": Parameter("mean"),
    "running_var": Parameter("var"),
    "num_batches_tracked": None,
}


class Rule(NamedTuple):
    """A layer's name in PyTorch and here, and its layout; each `*` stands for a number."""

    theirs: str
    ours: str
    layout: Layout


def same(layer: str, layout: Layout) -> Rule:
    """The rule of a layer that has one name on both sides."""
    return Rule(layer, layer, layout)


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
        ours = _translate(layer, rule.theirs, rule.ours)
        if ours is not None and name in rule.layout:
            parameter = rule.layout[name]
            return parameter and Parameter(f"{ours}.{parameter.name}", parameter.axes)
    raise KeyError(key)


def restore(
    tensors: Tensors, rules: Sequence[Rule], counters: Mapping[str, int]
) -> dict[str, np.ndarray]:
    """The inverse of `rename`: a state dict with the originals' keys, in their order (views).

    Counters that are not given are 0. Raises KeyError for a name that no rule knows.
    """
    restored: dict[str, np.ndarray] = {}
    for name, tensor in tensors.items():
        layer, layout, theirs = _find_theirs(name, rules)
        axes = layout[theirs].axes  # type: ignore[union-attr]
        restored[_join(layer, theirs)] = _permute(tensor, axes and tuple(np.argsort(axes)))
        for key in (_join(layer, counter) for counter, to in layout.items() if to is None):
            restored[key] = np.array(counters.get(key, 0), np.int64)
    return dict(sorted(restored.items(), key=_position(rules)))


def _join(layer: str, name: str) -> str:
    """A parameter's whole name; those of the network itself have no layer."""
    return f"{layer}.{name}" if layer else name


def _find_theirs(name: str, rules: Sequence[Rule]) -> tuple[str, Layout, str]:
    """The torch layer that one of our names belongs to, its layout, and its parameter's name."""
    layer, _, last = name.rpartition(".")
    for rule in rules:
        theirs = _translate(layer, rule.ours, rule.theirs)
        for parameter, ours in rule.layout.items():
            if theirs is not None and ours is not None and ours.name == last:
                return theirs, rule.layout, parameter
    raise KeyError(name)


def _translate(layer: str, pattern: str, other: str) -> str | None:
    """The layer's name on the other side, None if it is not of that pattern."""
    if not (match := _expression(pattern).fullmatch(layer)):
        return None
    numbers = iter(match.groups())
    return re.sub(r"\*", lambda _: next(numbers), other)


@cache
def _expression(pattern: str) -> re.Pattern[str]:
    return re.compile(re.escape(pattern).replace(r"\*", r"(\d+)"))


def _position(rules: Sequence[Rule]) -> Callable[[tuple[str, np.ndarray]], tuple[int, ...]]:
    """The sort key of a state dict's items.

    Layers of a list go by their numbers; other names stand in their parent as they first do in
    the rules.
    """
    ranks: dict[tuple[str, ...], int] = {}
    for rule in rules:
        for parameter in rule.layout:
            for path in _paths(_join(rule.theirs, parameter)):
                ranks.setdefault(path, len(ranks))

    def position(item: tuple[str, np.ndarray]) -> tuple[int, ...]:
        parts = item[0].split(".")
        paths = _paths(item[0])
        return tuple(
            int(part) if part.isdigit() else ranks[path]
            for part, path in zip(parts, paths, strict=True)
        )

    return position


def _paths(key: str) -> list[tuple[str, ...]]:
    """A key's ancestors from the top and itself, with stars for the numbers."""
    parts = ["*" if part.isdigit() else part for part in key.split(".")]
    return [tuple(parts[: i + 1]) for i in range(len(parts))]


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
