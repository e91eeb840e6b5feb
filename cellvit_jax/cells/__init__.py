"""From network maps to instances, from instances to columns, from tiles to one seamless image."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cellvit_jax.cells.energy import edges
    from cellvit_jax.cells.extract import extract_cells
    from cellvit_jax.cells.graph import neighbours
    from cellvit_jax.cells.pieces import Piece, Tokens
    from cellvit_jax.cells.planes import Planes
    from cellvit_jax.cells.shape import shapes
    from cellvit_jax.cells.staining import stain
    from cellvit_jax.cells.stitching import (
        Band,
        Remains,
        advance,
        filled,
        joined,
        painted,
        stitch,
    )
    from cellvit_jax.cells.table import Cells, Classes
    from cellvit_jax.cells.watershed import instances

__all__ = [
    "Band",
    "Cells",
    "Classes",
    "Piece",
    "Planes",
    "Remains",
    "Tokens",
    "advance",
    "edges",
    "extract_cells",
    "filled",
    "instances",
    "joined",
    "neighbours",
    "painted",
    "shapes",
    "stain",
    "stitch",
]

# Whoever reads or writes a table needs no compiler: numba comes with the functions that use it.
_HOMES = {
    "Band": "stitching",
    "Cells": "table",
    "Classes": "table",
    "Piece": "pieces",
    "Planes": "planes",
    "Remains": "stitching",
    "Tokens": "pieces",
    "advance": "stitching",
    "edges": "energy",
    "extract_cells": "extract",
    "filled": "stitching",
    "instances": "watershed",
    "joined": "stitching",
    "neighbours": "graph",
    "painted": "stitching",
    "shapes": "shape",
    "stain": "staining",
    "stitch": "stitching",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
