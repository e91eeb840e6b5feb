"""The name and the colour of every class that cells speak of."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from cellvit_jax.card import COLORS
from cellvit_jax.cells.table import Classes


def completed(classes: Classes, occurring: Iterable[int]) -> Classes:
    """`classes`, and those of the `occurring` ids that have no name there, in order of ids."""
    unnamed = {int(c): (f"class {c}", COLORS[c % len(COLORS)]) for c in occurring}
    return dict(sorted((unnamed | classes).items()))


def names_of(types: pa.Array, classes: Classes) -> pa.Array:
    """The class name of each type id, as strings."""
    classes = completed(classes, types.unique().to_pylist())
    ids = pa.array(list(classes), pa.int32())
    names = pa.array([name for name, _ in classes.values()], pa.string())
    return names.take(pc.index_in(types.cast(pa.int32()), ids))
