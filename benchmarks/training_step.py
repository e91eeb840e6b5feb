"""Images a second of a training step alone, and what its compiled program reckons with.

    python benchmarks/training_step.py [--preset cellvit_256] [--steps 10]

A batch of noise lies on the device. A step with the encoder at rest and one that trains everything
take turns in one run with the network call alone in training mode, and, where torch is installed,
with a step of the twin in PyTorch (`twin_network.py`, eager) that trains everything: the baselines
of the ratios. The twin's loss is the mean square of its maps, where ours is the whole objective; it
runs on the kind of device that JAX runs on, for bfloat16 under autocast. On one core (`taskset -c
0`) the processor's time is taken, on several that which passes. Bytes are those of XLA's cost
analysis, and so are FLOPs, but of the program that a GPU would be given, before optimisation: a
loop's body counts once, and CPUs compute kernels' gradients in loops. With cuDNN's attention, whose
kernels count as nothing, they are those of the readable form. Memory is what the program holds at
work beside the state.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import numpy as np
import tyro
from collectives import card
from communication import zeros
from network import CLOCK, CORES, compare
from timing import beside_torch, load, milliseconds, ratio, spread

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
    twin = beside_torch(twin)
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
    mesh = make_mesh(devices=jax.devices()[:1])
    layout = new_layout(config, card(config), recipe, mesh)
    images = put_batch(zeros(recipe), layout.mesh)
    images["image"] = jax.random.bits(jax.random.key(0), images["image"].shape, np.uint8)
    programs = {name: trace.lower().compile() for name, trace in traces(layout, images).items()}
    plain = new_layout(config, card(config), dataclasses.replace(recipe, attention="xla"), mesh)
    counts = {name: counted(trace, programs[name]) for name, trace in traces(plain, images).items()}
    state = begin(layout)
    theirs = twin_step(layout, state, images) if twin else None
    seconds = in_turns(programs, theirs, state, images, steps)
    print(f"{preset}, {batch} tiles of {tile}², {dtype}, {attention}, remat {remat}, {load()}\n")
    print(
        "| | s, median (quartiles) | of the call | of the twin | images a second | TFLOP "
        "| GB accessed | MiB at work |"
    )
    print("| --- |" + " ---: |" * 7)
    for name, times in seconds.items():
        bases = [seconds["network call alone"], seconds.get(TWIN)]
        print(row(name, times, bases, batch, counts.get(name, ["–"] * 3)))


def traces(layout: Layout, batch: dict[str, jax.Array]) -> dict[str, Any]:
    """What is timed, traced."""
    functions: dict[str, Any] = {
        "network call alone": jax.jit(partial(maps, layout)),
        "step, encoder at rest": make_step(layout, encoder_rests=True),
        "step, all trained": make_step(layout, encoder_rests=False),
    }
    return {name: call.trace(layout.abstract, batch) for name, call in functions.items()}


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
    from twin_network import device, network, trainable, weights

    torch.set_num_threads(CORES)
    half = layout.recipe.dtype == "bfloat16"
    model = layout.merge(state.params, state.rest, streams_at(layout, state.step))
    memory = torch.contiguous_format
    w = weights(model, memory)
    run = network(w, layout.config, layout.recipe.tile, memory)
    images = torch.from_numpy(np.array(normalise(model, batch["image"]))).permute(0, 3, 1, 2)
    images = images.to(device())

    def seen() -> dict[str, torch.Tensor]:
        with torch.autocast(device(), torch.bfloat16, half):
            return run(images)

    expected = jax.jit(partial(maps, layout))(state, batch)
    compare(TWIN, detached(seen()), expected, 0.1 if half else 1e-3)
    adam = torch.optim.AdamW(trainable(w))

    def step() -> None:
        adam.zero_grad()
        sum(values.float().square().mean() for values in seen().values()).backward()
        adam.step()
        if device() == "cuda":
            torch.cuda.synchronize()

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
