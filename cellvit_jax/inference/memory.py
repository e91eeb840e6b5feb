"""What to do when a device has no room for a batch."""

from __future__ import annotations

import jax

from cellvit_jax.errors import CellViTError

SIGNS = ("RESOURCE_EXHAUSTED", "out of memory")


class DeviceMemoryError(CellViTError):
    """Not even one tile fits into the memory of a device."""


def is_exhausted(error: jax.errors.JaxRuntimeError) -> bool:
    """Whether the runtime says that memory was what it lacked."""
    return any(sign.lower() in str(error).lower() for sign in SIGNS)


def halved(size: int, error: jax.errors.JaxRuntimeError) -> int:
    """Half of `size` tiles a device, if it is memory that the error speaks of; else raises it."""
    if not is_exhausted(error):
        raise error
    if size == 1:
        raise DeviceMemoryError(
            "the device has not enough memory for a single tile: take a smaller model, or a device "
            "with more memory"
        ) from error
    return size // 2
