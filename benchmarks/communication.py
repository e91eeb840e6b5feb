"""What devices tell each other in a step of training, from the compiled program.

    python benchmarks/communication.py [--preset cellvit_256] [--encoder-rests]

Devices are simulated and nothing runs: a program is compiled for each mesh, and what its collective
operations return is added up, for one device and one step. The baseline is the size of the
gradients, which copies of a network have to bring together whatever they do. XLA on CPU has no
reduce-scatter: it is counted as the all-reduce that stands in its place.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter

import jax
import numpy as np
import tyro
from collectives import COLLECTIVE, bytes_of, card

from cellvit_jax.models import ModelConfig
from cellvit_jax.sharding import make_mesh, put_batch
from cellvit_jax.training.recipes import Recipe
from cellvit_jax.training.state import Layout, new_layout
from cellvit_jax.training.step import make_step

KINDS = ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter")
MIB = 2**20


def main(preset: str = "cellvit_256", encoder_rests: bool = False, tile: int = 256) -> None:
    """Print the table, as Markdown."""
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 8)
    recipe = Recipe(epochs=1, steps_per_epoch=1, batch_size=8, tile=tile)
    if encoder_rests:
        recipe = dataclasses.replace(recipe, unfreeze_epoch=None)
    print(f"{preset}, {recipe.batch_size} tiles of {tile}², MiB a step and device\n")
    print(
        "| devices | data × fsdp × tensor |",
        " | ".join(KINDS),
        "| all | of the gradients |",
        end="",
    )
    print(" state and batch |\n|" + " ---: |" * (len(KINDS) + 5))
    for count in (1, 2, 4, 8):
        for fsdp, tensor in dict.fromkeys([(1, 1), (count, 1), (1, count), (2, count // 2)]):
            if 0 < fsdp * tensor <= count:
                print(row(preset, recipe, count, fsdp, tensor), flush=True)


def row(preset: str, recipe: Recipe, count: int, fsdp: int, tensor: int) -> str:
    """One mesh's line of the table."""
    mesh = make_mesh(fsdp=fsdp, tensor=tensor, devices=jax.devices()[:count])
    config = getattr(ModelConfig, preset)()
    layout = new_layout(config, card(config), recipe, mesh)
    compiled = lowered(layout).compile(compiler_options={"xla_backend_optimization_level": "0"})
    sizes = volumes(compiled.as_text())
    gradients = sum(4 * math.prod(leaf.shape) for leaf in layout.abstract.params.values())
    total = sum(sizes.values())
    cells = [count, " × ".join(str(n) for n in mesh.shape.values())]
    cells += [f"{sizes[kind] / MIB:.1f}" for kind in KINDS]
    cells += [f"{total / MIB:.1f}", f"{total / gradients:.2f}"]
    cells += [f"{compiled.memory_analysis().argument_size_in_bytes / MIB:.0f}"]
    return "| " + " | ".join(map(str, cells)) + " |"


def lowered(layout: Layout) -> jax.stages.Lowered:
    """The step of a layout."""
    batch = put_batch(zeros(layout.recipe), layout.mesh)
    step = make_step(layout, encoder_rests=layout.recipe.encoder_rests(0))
    return step.lower(layout.abstract, batch)  # type: ignore[attr-defined]


def zeros(recipe: Recipe) -> dict[str, np.ndarray]:
    """A batch of nothing."""
    shape = (recipe.batch_size, recipe.tile, recipe.tile)
    return {
        "image": np.zeros((*shape, 3), np.uint8),
        "nuclei": np.zeros(shape, bool),
        "hv": np.zeros((*shape, 2), np.float32),
        "types": np.zeros(shape, np.uint8),
        "typed": np.ones(shape[0], np.float32),
        "tissue": np.zeros(shape[0], np.int32),
    }


def volumes(text: str) -> Counter[str]:
    """Bytes that the collective operations of a program return, by their kind."""
    sizes: Counter[str] = Counter()
    for shapes, kind in COLLECTIVE.findall(text):
        sizes[kind] += bytes_of(shapes)
    return sizes


if __name__ == "__main__":
    tyro.cli(main)
