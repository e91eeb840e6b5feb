"""A run's first step, compiled and made once: what it is, what it takes."""

from __future__ import annotations

import math
import time
from typing import Any

import jax

from cellvit_jax import sharding
from cellvit_jax.training.loop import Stream
from cellvit_jax.training.run import Job
from cellvit_jax.training.state import Arrays, begin, new_layout
from cellvit_jax.training.step import make_step

MIB = 2**20


def describe(job: Job) -> str:
    """Shapes, parameters, memory per device from the compiled program, and one step's loss."""
    mesh = job.mesh
    layout = new_layout(job.network.config, job.network.card, job.recipe, mesh)
    stream = Stream(job.batches, 0)
    batch = next(stream)
    stream.close()
    on_device = sharding.put_batch(batch, mesh)
    step = make_step(layout, encoder_rests=job.recipe.encoder_rests(0))
    began = time.monotonic()
    compiled = step.lower(layout.abstract, on_device).compile()  # type: ignore[attr-defined]
    compilation = time.monotonic() - began
    state = begin(layout, job.network.weights)
    began = time.monotonic()
    _, metrics = compiled(state, on_device)
    loss = float(metrics["loss"])
    lines = {
        "batch": ", ".join(f"{name} {'×'.join(map(str, v.shape))}" for name, v in batch.items()),
        "parameters": f"{count(layout.abstract.params):,} to train, "
        f"{count(layout.abstract.rest):,} that stay",
        "devices": " × ".join(f"{size} {axis}" for axis, size in mesh.shape.items()),
        "memory": memory(compiled.memory_analysis()),
        "one step": f"{time.monotonic() - began:.1f} s, loss {loss:.4f} (after {compilation:.0f} s "
        "of compilation)",
    }
    return "\n".join(f"{name:<12} {text}" for name, text in lines.items())


def count(arrays: Arrays) -> int:
    """Numbers in arrays."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(arrays))


def memory(analysis: Any) -> str:
    """What a compiled step needs on each device, in words."""
    if analysis is None:
        return "not told by this kind of device"
    held = analysis.argument_size_in_bytes + analysis.output_size_in_bytes
    held -= analysis.alias_size_in_bytes
    total = held + analysis.temp_size_in_bytes
    return (
        f"{total / MIB:,.0f} MiB on each device: {held / MIB:,.0f} for state and batch, "
        f"{analysis.temp_size_in_bytes / MIB:,.0f} at work"
    )
