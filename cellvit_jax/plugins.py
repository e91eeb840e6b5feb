"""What other packages offer to this one, which knows none of them, through entry points.

`cellvit_jax.inspectors`: a function from the path of a file of weights to an `inspection.Summary`.
`cellvit_jax.converters`: one that makes a checkpoint directory of such a file.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from cellvit_jax.errors import InputError

INSPECTORS = "cellvit_jax.inspectors"
CONVERTERS = "cellvit_jax.converters"


def declared(group: str) -> Any:
    """What an installed package declares. Raises `InputError` where none does."""
    for each in entry_points(group=group):
        return each.load()
    raise InputError("no installed package reads files of weights: install cellvit_convert")
