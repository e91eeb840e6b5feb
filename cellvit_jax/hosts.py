"""What the processes of one run tell each other; a process alone hears but itself."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np

from cellvit_jax.errors import CellViTError

T = TypeVar("T")


def is_first() -> bool:
    """Whether this is the process that prints, logs and writes models."""
    return jax.process_index() == 0


def told(value: T) -> list[T]:
    """The values of all processes, in order; they wait for each other. Values can be pickled."""
    if jax.process_count() == 1:
        return [value]
    text = np.frombuffer(pickle.dumps(value), np.uint8)
    sizes = _gathered(np.int32(len(text)))
    padded = np.zeros(sizes.max(), np.uint8)
    padded[: len(text)] = text
    rows = zip(_gathered(padded), sizes, strict=True)
    return [pickle.loads(row[:size].tobytes()) for row, size in rows]


def together(call: Callable[[], T]) -> T:
    """What `call` gives this process, when all have made it; the error of one is raised by all.

    Without this the others would wait for the one that gave up.
    """
    error: CellViTError | None = None
    try:
        value = call()
    except CellViTError as caught:
        error = caught
    texts = [text for text in told(error and str(error)) if text is not None]
    if texts:
        raise error or CellViTError(texts[0])
    return value


def by_first(call: Callable[[], T]) -> T:
    """What the call gives process 0, which alone makes it; its error is raised by all."""
    value: Any = together(lambda: call() if is_first() else None)
    return told(value)[0]


def on_host(tree: T) -> T:
    """The tree of arrays, of all devices, as whole ones that one process alone can work with."""
    return tree if jax.process_count() == 1 else _gathered(tree, tiled=True)


def _gathered(tree: Any, *, tiled: bool = False) -> Any:
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(tree, tiled=tiled)
