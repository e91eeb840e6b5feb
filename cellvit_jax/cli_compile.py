"""The commands that compile networks ahead of their use: `cellvit-jax warmup` and `program`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, get_args

from tyro.conf import Positional, arg

from cellvit_jax import zoo

Platform = Literal["cpu", "cuda", "tpu"]
DType = Literal["float32", "bfloat16"]
Kernel = Literal["xla", "cudnn"]
PLATFORMS: tuple[Platform, ...] = get_args(Platform)


def warmup(
    model: str = zoo.DEFAULT,
    batch_size: int | None = None,
    tile: int | None = None,
    tokens: bool = False,
    binary: bool = False,
    dtype: DType = "float32",
    attention: Kernel = "xla",
) -> None:
    """Compile a network ahead of its use, into the folder that keeps compiled programs.

    A later `segment` with the same options on the same kind of machine starts with that program.

    Args:
        model: a model folder (see cellvit-convert) or the name of a bundled model.
        batch_size: tiles per call of the network; by default what `segment` takes here.
        tile: side of the tiles in pixels; by default what the model's card says.
        tokens: as `segment` will be run, with --tokens or --head.
        binary: as `segment` will be run.
        dtype: as `segment` will be run.
        attention: as `segment` will be run.
    """
    from cellvit_jax import caches
    from cellvit_jax.inference import warmup as task

    caches.keep_compiled_programs()
    form = task.Form(batch_size, tokens, binary, dtype, attention)
    print(task.warmup(model, form, tile))


def program(
    out: Annotated[Positional[Path], arg(metavar="DST")],
    /,
    model: str = zoo.DEFAULT,
    batch_size: int = 1,
    tile: int | None = None,
    platforms: tuple[Platform, ...] = PLATFORMS,
    dtype: DType = "float32",
    overwrite: bool = False,
) -> None:
    """Write a network as a StableHLO program with its weights, to be run without this package.

    Args:
        out: the folder to write.
        model: a model folder (see cellvit-convert) or the name of a bundled model.
        batch_size: tiles per call; the program takes no other number.
        tile: side of the tiles in pixels; by default what the model's card says.
        platforms: where the program is to run.
        dtype: type of the network's products.
        overwrite: replace a program that is there already.
    """
    from cellvit_jax.inference.warmup import Form, write_program

    form = Form(batch_size, dtype=dtype)
    print(write_program(model, form, out, tile, platforms, overwrite=overwrite))
