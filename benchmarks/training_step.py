"""Images a second of a training step alone, and what its compiled program reckons with.

    python benchmarks/training_step.py [--preset cellvit_256] [--steps 10]

A batch of noise lies on the device. A step with the encoder at rest and one that trains everything
take turns in one run with the network call alone in training mode, the baseline of the ratios.
FLOPs and bytes are those of XLA's cost analysis; memory is what the program holds at work beside
the state.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
import tyro
from collectives import card
from communication import zeros

from cellvit_jax.models import ModelConfig
from cellvit_jax.sharding import make_mesh, put_batch
from cellvit_jax.training.objective import normalise
from cellvit_jax.training.recipes import Recipe
from cellvit_jax.training.state import Layout, TrainState, begin, new_layout
from cellvit_jax.training.step import make_step, streams_at

MIB = 2**20


def main(
    preset: str = "cellvit_256",
    tile: int = 256,
    batch: int = 2,
    remat: bool = False,
    steps: int = 10,
) -> None:
    """Print the table, as Markdown."""
    config = getattr(ModelConfig, preset)()
    recipe = Recipe(epochs=1, steps_per_epoch=1, batch_size=batch, tile=tile, remat=remat)
    layout = new_layout(config, card(config), recipe, make_mesh(devices=jax.devices()[:1]))
    images = put_batch(zeros(recipe), layout.mesh)
    images["image"] = jax.random.bits(jax.random.key(0), images["image"].shape, np.uint8)
    forward = jax.jit(partial(maps, layout))
    programs = {
        "network call alone": forward.lower(layout.abstract, images).compile(),
        "step, encoder at rest": step(layout, images, encoder_rests=True),
        "step, all trained": step(layout, images, encoder_rests=False),
    }
    seconds = in_turns(programs, begin(layout), images, steps)
    base = statistics.median(seconds["network call alone"])
    print(f"{preset}, {batch} tiles of {tile}², float32, remat {remat}\n")
    print(
        "| | s, median (quartiles) | ratio | images a second | TFLOP | GB accessed | MiB at work |"
    )
    print("| --- |" + " ---: |" * 6)
    for name, program in programs.items():
        print(row(name, program, seconds[name], base, batch))


def step(layout: Layout, batch: dict[str, jax.Array], *, encoder_rests: bool) -> Any:
    """The compiled step."""
    jitted: Any = make_step(layout, encoder_rests=encoder_rests)
    return jitted.lower(layout.abstract, batch).compile()


def maps(layout: Layout, state: TrainState, batch: dict[str, jax.Array]) -> Any:
    """What the losses see."""
    model = layout.merge(state.params, state.rest, streams_at(layout, state.step))
    return model(normalise(model, batch["image"]))


def in_turns(
    programs: dict[str, Callable], state: TrainState, batch: dict[str, jax.Array], rounds: int
) -> dict[str, list[float]]:
    """Seconds of each program, one after the other; the first round does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(rounds + 1):
        for name, program in programs.items():
            began = time.perf_counter()
            result = jax.block_until_ready(program(state, batch))
            seconds[name].append(time.perf_counter() - began)
            if name.startswith("step"):
                state, _ = result  # the old one is given away
    return {name: values[1:] for name, values in seconds.items()}


def row(name: str, program: Any, seconds: list[float], base: float, batch: int) -> str:
    """A line of the table."""
    lower, median, upper = statistics.quantiles(seconds, n=4)
    costs = program.cost_analysis()
    cells = [
        name,
        f"{median:.2f} ({lower:.2f}-{upper:.2f})",
        f"{median / base:.2f}",
        f"{batch / median:.3f}",
        f"{costs['flops'] / 1e12:.3f}",
        f"{costs['bytes accessed'] / 1e9:.1f}",
        f"{program.memory_analysis().temp_size_in_bytes / MIB:.0f}",
    ]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    tyro.cli(main)
