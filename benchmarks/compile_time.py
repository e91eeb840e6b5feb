"""Seconds until a network's program is ready, with an empty cache of programs and with a full one.

    python benchmarks/compile_time.py [--presets cellvit_sam_h] [--tiles 1024]

The program is that of `segment`, uint8 tiles in and what the host needs out. Shapes alone: no
weights are drawn, so that networks of any size can be asked. Counted is all from the network's
config on, tracing too; the ratio is round by round. On one core (`taskset -c 0`) the processor's
time is taken, on several that which passes.
"""

from __future__ import annotations

import tempfile
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import tyro
from flax import nnx
from jax.experimental.compilation_cache import compilation_cache
from network import CLOCK
from timing import load, spread

from cellvit_jax import checkpoint
from cellvit_jax.card import ModelCard, cell_classes
from cellvit_jax.inference.predictor import _predict
from cellvit_jax.models import ModelConfig, folded


def main(
    presets: tuple[str, ...] = ("cellvit_256", "cellvit_sam_b", "cellvit_sam_h"),
    tiles: tuple[int, ...] = (256, 1024),
    dtype: str = "float32",
    rounds: int = 3,
) -> None:
    """Print the table, as Markdown."""
    print(f"{jax.devices()[0].device_kind}, {load()}, jax {jax.__version__}, {dtype}\n")
    print("| network | tile | cold, s | from the cache, s | ratio |\n| --- |" + " ---: |" * 4)
    for preset in presets:
        for side in tiles:
            cold, warm = zip(*(both(preset, side, dtype) for _ in range(rounds)), strict=True)
            ratios = [w / c for w, c in zip(warm, cold, strict=True)]
            cells = preset, f"{side}²", spread(cold), spread(warm), spread(ratios, 2)
            print(f"| {' | '.join(cells)} |", flush=True)


def both(preset: str, side: int, dtype: str) -> tuple[float, float]:
    """Seconds with an empty cache, and with what that left in it."""
    with tempfile.TemporaryDirectory() as cache:
        jax.config.update("jax_compilation_cache_dir", cache)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        return seconds(preset, side, dtype), seconds(preset, side, dtype)


def seconds(preset: str, side: int, dtype: str) -> float:
    """From the network's config to its program, as in a process that has just begun."""
    jax.clear_caches()
    compilation_cache.reset_cache()
    began = CLOCK()
    program(preset, side, dtype)
    return CLOCK() - began


def program(preset: str, side: int, dtype: str) -> Any:
    """The compiled network call of one tile."""
    config = getattr(ModelConfig, preset)()
    model = checkpoint.network(config, dtype=jnp.dtype(dtype))
    model = nnx.view(model, deterministic=True, use_running_average=True)
    graphdef, state = nnx.split(nnx.eval_shape(folded, model))
    card = ModelCard(cell_classes(*"abcde"[: config.num_classes - 1]))
    predict = jax.jit(partial(_predict, graphdef, card, False, False))
    image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.uint8)
    return predict.lower(nnx.to_pure_dict(state), image).compile()


if __name__ == "__main__":
    tyro.cli(main)
