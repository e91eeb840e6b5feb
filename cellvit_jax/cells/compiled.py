"""How the loops of this room are compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` as machine code that runs without the GIL.

    Kept beside the source, or in the user's cache folder where that is read-only, so that only the
    first process ever compiles; where neither can be written, every process does.
    """
    try:
        return numba.njit(function, cache=True, nogil=True)
    except RuntimeError:  # numba's "no locator available"
        return numba.njit(function, nogil=True)
