"""Programs compiled ahead of their use, and networks written as programs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax

from cellvit_jax import checkpoint
from cellvit_jax.errors import InputError
from cellvit_jax.files import check_free
from cellvit_jax.inference.artefact import save
from cellvit_jax.inference.predictor import Predictor
from cellvit_jax.inference.segment import predictor_of


class Form(NamedTuple):
    """How a network is run, as the options of `segment` have it."""

    batch_size: int | None = None
    tokens: bool = False
    binary: bool = False
    dtype: str = "float32"
    attention: str = "xla"

    def predictor(self, model: str) -> Predictor:
        """That of a checkpoint."""
        return predictor_of(
            checkpoint.load(model, dtype=self.dtype),
            self.batch_size,
            tokens=self.tokens,
            binary=self.binary,
            attention=self.attention,
        )


def warmup(model: str, form: Form, side: int | None) -> str:
    """Compile what `segment` runs with these options into the cache; says how long it took."""
    predictor = form.predictor(model)
    side = tile_side(predictor, side)
    first = seconds_to_compile(predictor, side)
    jax.clear_caches()
    again = seconds_to_compile(predictor, side)
    cache = jax.config.values["jax_compilation_cache_dir"]
    return (
        f"{predictor.batch_size} tile(s) of {side} pixels a call: compiled in {first:.1f} s, "
        f"again in {again:.1f} s with the programs in {cache}"
    )


def write_program(
    model: str,
    form: Form,
    out: Path,
    side: int | None,
    platforms: Sequence[str],
    *,
    overwrite: bool,
) -> str:
    """Write a network as a program for `platforms`; says what was written."""
    check_free(out, overwrite)
    predictor = form.predictor(model)
    side = tile_side(predictor, side)
    save(predictor, out, side, platforms)
    return f"{out}: {predictor.batch_size} tile(s) of {side} pixels, for {', '.join(platforms)}"


def tile_side(predictor: Predictor, side: int | None) -> int:
    """The wanted side of tiles, or the one that the model's card names."""
    if side is not None and side < 1:
        raise InputError(f"tiles have a side of at least one patch, not {side}")
    return side or predictor.card.tile


def seconds_to_compile(predictor: Predictor, side: int) -> float:
    """From the network to a program that is ready to run."""
    start = time.perf_counter()
    predictor.compiled(side)
    return time.perf_counter() - start
