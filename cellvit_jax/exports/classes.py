"""The name and the colour of every class that a table of cells speaks of."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cellvit_jax.card import COLORS
from cellvit_jax.cells.table import Cells, Classes


def all_classes(cells: Cells) -> Classes:
    """The classes of `cells`, completed by those that occur without a name, in order of ids."""
    occurring = {int(c) for c in np.unique(cells.column("type"))}
    unnamed = {c: (f"class {c}", COLORS[c % len(COLORS)]) for c in occurring}
    return dict(sorted((unnamed | cells.classes).items()))


def names_of(types: pa.Array, classes: Classes) -> pa.Array:
    """The class name of each type id, as strings."""
    ids = pa.array(list(classes), pa.int32())
    names = pa.array([name for name, _ in classes.values()], pa.string())
    return names.take(pc.index_in(types.cast(pa.int32()), ids))
