"""Seconds per tile of the networks, and to compile them, without and with the kept programs.

    python benchmarks/network.py [--presets cellvit_256] [--tiles 256 512 1024]

Every preset runs in a fresh process with an empty cache folder, then in a second one that finds the
programs of the first. Weights are random: they do not change the time. The baseline, where there
is one, is what the PyTorch original took on two cores of the same kind, in float32.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time

import tyro

# seconds per tile of the PyTorch original, by preset and tile
ORIGINAL = {"cellvit_256": {256: 1.6, 512: 7.2, 1024: 46.0}}


def main(
    presets: tuple[str, ...] = ("cellvit_256", "cellvit_tiny"),
    tiles: tuple[int, ...] = (256, 512, 1024),
    repeats: int = 5,
) -> None:
    """Print the table, as Markdown."""
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, float32, batch 1\n"
    )
    print(
        "| preset | tile | s per tile, median (min-max) | original | ratio | compile s, cold "
        "| from the cache |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for preset in presets:
        with tempfile.TemporaryDirectory() as cache:
            cold, warm = (measure_in_child(preset, tiles, repeats, cache) for _ in range(2))
        for tile, first, second in zip(tiles, cold, warm, strict=True):
            print(row(preset, tile, first, second), flush=True)


def row(preset: str, tile: int, cold: dict, warm: dict) -> str:
    seconds = cold["seconds"] + warm["seconds"]
    median = statistics.median(seconds)
    original = ORIGINAL.get(preset, {}).get(tile)
    ratio = f"{original:g} | {median / original:.2f}" if original else "– | –"
    spread = f"{median:.3g} ({min(seconds):.3g}-{max(seconds):.3g})"
    compiling = f"{cold['compile']:.1f} | {warm['compile']:.1f}"
    return f"| {preset} | {tile} | {spread} | {ratio} | {compiling} |"


def measure_in_child(preset: str, tiles: tuple[int, ...], repeats: int, cache: str) -> list[dict]:
    """One dictionary a tile size, measured in a process of its own."""
    command = [sys.executable, __file__, "--child", json.dumps([preset, tiles, repeats])]
    environment = os.environ | {"CELLVIT_JAX_CACHE": cache}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(preset: str, tiles: list[int], repeats: int) -> list[dict]:
    """Compile time and seconds per tile, in this process."""
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from cellvit_jax import caches
    from cellvit_jax.models import CellViT, ModelConfig

    caches.keep_compiled_programs()
    model = CellViT(getattr(ModelConfig, preset)(), rngs=nnx.Rngs(0))
    model = nnx.view(model, deterministic=True, use_running_average=True)
    graphdef, state = nnx.split(model)
    predict = jax.jit(lambda state, images: nnx.merge(graphdef, state)(images))
    results = []
    for tile in tiles:
        images = jax.device_put(jnp.zeros((1, tile, tile, 3)))
        start = time.perf_counter()
        compiled = predict.lower(state, images).compile()
        compile_seconds = time.perf_counter() - start
        jax.block_until_ready(compiled(state, images))
        seconds = []
        for _ in range(repeats):
            start = time.perf_counter()
            jax.block_until_ready(compiled(state, images))
            seconds.append(time.perf_counter() - start)
        results.append({"compile": compile_seconds, "seconds": seconds})
    return results


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(measure(*json.loads(sys.argv[2]))))
    else:
        tyro.cli(main)
