"""What the sizes of a pyramid's levels say about their scale."""

from __future__ import annotations

from collections.abc import Sequence


def exact_downsamples(sizes: Sequence[tuple[int, int]]) -> tuple[float, ...]:
    """Level-0 pixels per pixel of levels of these (height, width), the largest first.

    Levels shrink by whole numbers; what is not divisible by them is dropped or filled up, so that
    the quotient of two sizes is off by up to a pixel at the far edge. The whole number is taken
    where it explains the sizes.
    """
    return tuple(_downsample(sizes[0], size) for size in sizes)


def _downsample(full: tuple[int, int], size: tuple[int, int]) -> float:
    quotient = sum(n / m for n, m in zip(full, size, strict=True)) / 2
    whole = round(quotient)
    explained = all(abs(m * whole - n) < 2 * whole for n, m in zip(full, size, strict=True))
    return float(whole) if explained else quotient
