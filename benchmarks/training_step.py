"""Images a second of a training step alone, and what its compiled program reckons with.

    python benchmarks/training_step.py [--preset cellvit_256] [--steps 10]

A batch of noise lies on the device. A step with the encoder at rest and one that trains everything
take turns in one run with the network call alone in training mode, and, where torch is installed,
with a step of the twin in PyTorch (`twin_network.py`, eager) that trains everything: the baselines
of the ratios. The twin's loss is the mean square of its maps, where ours is the whole objective.
On one core (`taskset -c 0`) the processor's time is taken, on several that which passes. Bytes are
those of XLA's cost analysis, and so are FLOPs, but of the program that a GPU would be given, before
optimisation: a loop's body counts once, and CPUs compute kernels' gradients in loops. Memory is
what the program holds at work beside the state.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any, Literal

import jax
import numpy as np
import tyro
from collectives import card
from communication import zeros
from network import CLOCK, CORES, compare
from timing import load, milliseconds, ratio, spread

from cellvit_jax.models import ModelConfig
from cellvit_jax.sharding import make_mesh, put_batch
from cellvit_jax.training.objective import normalise
from cellvit_jax.training.recipes import Recipe
from cellvit_jax.training.state import Layout, TrainState, begin, new_layout
from cellvit_jax.training.step import make_step, streams_at

MIB = 2**20
TWIN = "step of the PyTorch twin, all trained"


def main(
    preset: str = "cellvit_256",
    tile: int = 256,
    batch: int = 2,
    remat: bool = False,
    dtype: Literal["float32", "bfloat16"] = "float32",
    attention: Literal["xla", "cudnn"] = "xla",
    steps: int = 10,
    twin: bool = True,
) -> None:
    """Print the table, as Markdown."""
    config = getattr(ModelConfig, preset)()
    recipe = Recipe(
        epochs=1,
        steps_per_epoch=1,
        batch_size=batch,
        tile=tile,
        remat=remat,
        dtype=dtype,
        attention=attention,
    )
    layout = new_layout(config, card(config), recipe, make_mesh(devices=jax.devices()[:1]))
    images = put_batch(zeros(recipe), layout.mesh)
    images["image"] = jax.random.bits(jax.random.key(0), images["image"].shape, np.uint8)
    forward = jax.jit(partial(maps, layout))
    functions: dict[str, Any] = {
        "network call alone": forward,
        "step, encoder at rest": make_step(layout, encoder_rests=True),
        "step, all trained": make_step(layout, encoder_rests=False),
    }
    traces = {name: call.trace(layout.abstract, images) for name, call in functions.items()}
    programs = {name: trace.lower().compile() for name, trace in traces.items()}
    state = begin(layout)
    theirs = twin_step(layout, state, images) if twin and find_spec("torch") else None
    seconds = in_turns(programs, theirs, state, images, steps)
    print(f"{preset}, {batch} tiles of {tile}², {dtype}, {attention}, remat {remat}, {load()}\n")
    print(
        "| | s, median (quartiles) | of the call | of the twin | images a second | TFLOP "
        "| GB accessed | MiB at work |"
    )
    print("| --- |" + " ---: |" * 7)
    for name, times in seconds.items():
        bases = [seconds["network call alone"], seconds.get(TWIN)]
        counts = counted(traces[name], programs[name]) if name in programs else ["–"] * 3
        print(row(name, times, bases, batch, counts))


def counted(trace: Any, program: jax.stages.Compiled) -> list[str]:
    """TFLOP, GB accessed, MiB at work."""
    flops = trace.lower(lowering_platforms=("cuda",)).cost_analysis()["flops"]
    accessed = program.cost_analysis()["bytes accessed"]
    held = program.memory_analysis().temp_size_in_bytes
    return [f"{flops / 1e12:.3f}", f"{accessed / 1e9:.1f}", f"{held / MIB:.0f}"]


def maps(layout: Layout, state: TrainState, batch: dict[str, jax.Array]) -> Any:
    """What the losses see."""
    model = layout.merge(state.params, state.rest, streams_at(layout, state.step))
    return model(normalise(model, batch["image"]))


def twin_step(
    layout: Layout, state: TrainState, batch: dict[str, jax.Array]
) -> Callable[[], object]:
    """A step of the twin with the state's weights; its maps are those of our network."""
    import torch
    from twin_network import network, weights

    torch.set_num_threads(CORES)
    model = layout.merge(state.params, state.rest, streams_at(layout, state.step))
    memory = torch.contiguous_format
    w = weights(model, "cpu", memory)
    run = network(w, layout.config, layout.recipe.tile, memory)
    images = torch.from_numpy(np.array(normalise(model, batch["image"]))).permute(0, 3, 1, 2)
    compare(TWIN, detached(run(images)), jax.jit(partial(maps, layout))(state, batch), 1e-3)
    fixed = (".mean", ".var", "pos_embed", "counter")
    leaves = [value.requires_grad_() for name, value in w.items() if not name.endswith(fixed)]
    adam = torch.optim.AdamW(leaves)

    def step() -> None:
        adam.zero_grad()
        sum(values.square().mean() for values in run(images).values()).backward()
        adam.step()

    return step


def detached(maps: dict) -> dict:
    return {name: values.detach() for name, values in maps.items()}


def in_turns(
    programs: dict[str, Callable],
    twin: Callable[[], object] | None,
    state: TrainState,
    batch: dict[str, jax.Array],
    rounds: int,
) -> dict[str, list[float]]:
    """Seconds of each program, one after the other; the first round does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    if twin:
        seconds[TWIN] = []
    for _ in range(rounds + 1):
        if twin:
            seconds[TWIN].append(milliseconds(twin, CLOCK) / 1e3)
        for name, program in programs.items():
            began = CLOCK()
            result = jax.block_until_ready(program(state, batch))
            seconds[name].append(CLOCK() - began)
            if name.startswith("step"):
                state, _ = result  # the old one is given away
    return {name: values[1:] for name, values in seconds.items()}


def row(
    name: str, seconds: list[float], bases: list[list[float] | None], batch: int, counts: list[str]
) -> str:
    """A line of the table."""
    cells = [name, spread(seconds, 2), *(ratio(seconds, base) if base else "–" for base in bases)]
    cells += [f"{batch / statistics.median(seconds):.3f}", *counts]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    tyro.cli(main)
