"""How small and how large an image held in memory may be."""

from cellvit_jax.errors import InputError

MIN_SIDE = 16
# 22,360 pixels squared: 1.5 GB as an array, about 5 GB while it is decoded
MAX_PIXELS = 500_000_000


def check_size(height: int, width: int, what: str) -> None:
    """Raises InputError, about `what`, for an image outside of the limits."""
    if min(height, width) < MIN_SIDE:
        raise InputError(
            f"{what} is {width} × {height} pixels (width × height); "
            f"at least {MIN_SIDE} × {MIN_SIDE} are needed"
        )
    if height * width > MAX_PIXELS:
        raise InputError(
            f"{what} is {width:,} × {height:,} pixels; a plain image may have {MAX_PIXELS:,} "
            "in all, so cut it into parts"
        )
