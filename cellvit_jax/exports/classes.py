"""The name and the colour of every class that a table of cells speaks of."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..cells.table import Cells, Classes

# CellViT's own colours, by class id
COLOURS = (
    (92, 20, 186),
    (255, 0, 0),
    (34, 221, 77),
    (35, 92, 236),
    (254, 255, 0),
    (255, 159, 68),
    (80, 56, 112),
    (87, 112, 56),
    (110, 0, 0),
    (255, 196, 196),
    (214, 255, 196),
)


def all_classes(cells: Cells) -> Classes:
    """The classes of `cells`, completed by those that occur without a name, in order of ids."""
    occurring = {int(c) for c in np.unique(cells.column("type"))}
    unnamed = {c: (f"class {c}", COLOURS[c % len(COLOURS)]) for c in occurring}
    return dict(sorted((unnamed | cells.classes).items()))


def names_of(types: pa.Array, classes: Classes) -> pa.Array:
    """The class name of each type id, as strings."""
    ids = pa.array(list(classes), pa.int32())
    names = pa.array([name for name, _ in classes.values()], pa.string())
    return names.take(pc.index_in(types.cast(pa.int32()), ids))
