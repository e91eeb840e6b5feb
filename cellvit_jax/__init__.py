"""The CellViT family in JAX/Flax NNX: every nucleus of an H&E image, outlined and typed.

>>> import cellvit_jax as cj
>>> model = cj.load("cellvit-tiny-consep")
>>> cells = cj.segment("image.png", model)
>>> cj.exports.write(cells, "cells.geojson")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from cellvit_jax import exports, metrics
    from cellvit_jax.cells import Cells, extract_cells
    from cellvit_jax.checkpoint import load
    from cellvit_jax.exports import read_cells
    from cellvit_jax.inference import segment
    from cellvit_jax.initialise import new_model
    from cellvit_jax.models import ModelConfig

# public name -> module it lives in; imported on first use, so that `import cellvit_jax` is instant
_HOMES = {
    "Cells": "cells",
    "ModelConfig": "models",
    "exports": "",
    "extract_cells": "cells",
    "load": "checkpoint",
    "metrics": "",
    "new_model": "initialise",
    "read_cells": "exports",
    "segment": "inference",
}

__all__ = [
    "Cells",
    "ModelConfig",
    "exports",
    "extract_cells",
    "load",
    "metrics",
    "new_model",
    "read_cells",
    "segment",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOMES[name]
    value = (
        getattr(importlib.import_module(f"{__name__}.{home}"), name)
        if home
        else importlib.import_module(f"{__name__}.{name}")
    )
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
