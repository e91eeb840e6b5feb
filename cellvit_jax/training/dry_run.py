"""A run's first step, compiled and made once: what it is, what it takes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import chain
from typing import Any

import jax

from cellvit_jax import hosts, sharding
from cellvit_jax.training.conduct import Ready, amount
from cellvit_jax.training.loop import Stream
from cellvit_jax.training.recipes import Recipe
from cellvit_jax.training.state import Arrays, begin, new_layout
from cellvit_jax.training.step import make_step

MIB = 2**20


def show(prepare: Callable[[], Ready]) -> None:
    """Print what a run that `prepare` makes ready would be; nothing is written."""
    job = hosts.together(prepare)
    for text in chain(job.news, lines(job)):
        if hosts.is_first():
            print(text, flush=True)  # what comes next may end the process for want of memory


def lines(job: Ready) -> Iterator[str]:
    """Shapes, parameters, memory per device from the compiled programs, and one step's loss.

    Each is told as soon as it is known: the memory before there is a state that may not fit.
    """
    layout = new_layout(job.network.config, job.network.card, job.recipe, job.mesh, job.task)
    with closing(Stream(job.batches, 0)) as stream:
        batch = next(stream)
    on_device = {**sharding.put_batch(batch, job.mesh), **layout.task.given}
    shapes = (f"{name} {'×'.join(map(str, v.shape))}" for name, v in batch.items())
    yield line("batch", ", ".join(shapes))
    learnt, kept = count(layout.abstract.params), count(layout.abstract.rest)
    yield line("parameters", f"{learnt:,} to train, {kept:,} that stay")
    yield line("devices", " × ".join(f"{size} {axis}" for axis, size in job.mesh.shape.items()))
    programs, began = [], time.monotonic()
    for rests in phases(job.recipe):
        step: Any = make_step(layout, encoder_rests=rests)
        programs.append(step.lower(layout.abstract, on_device).compile())
        encoder = "encoder at rest" if rests else "encoder learning"
        yield line("memory", f"{memory(programs[-1].memory_analysis())}, {encoder}")
    compiled = time.monotonic()
    state = begin(layout, job.network.weights)
    ready = time.monotonic()
    loss = float(programs[0](state, on_device)[1]["loss"])
    seconds = time.monotonic() - ready
    took = f"{seconds:.1f} s, loss {loss:.4f}"
    yield line("one step", f"{took} (after {compiled - began:.0f} s of compilation)")
    whole = f"about {duration(job.recipe.steps * seconds)} at this pace, without validation"
    yield line("all steps", f"{amount(job.recipe)}, {whole}")


def duration(seconds: float) -> str:
    """As people say it: minutes, hours from two on, days likewise."""
    minutes = seconds / 60
    if minutes < 120:
        return f"{max(1, round(minutes))} min"
    return f"{minutes / 60:.1f} h" if minutes < 48 * 60 else f"{minutes / 60 / 24:.1f} days"


def line(name: str, text: str) -> str:
    """A name and what there is to say of it, aligned with the others."""
    return f"{name:<12} {text}"


def phases(recipe: Recipe) -> list[bool]:
    """Whether the encoder rests, in each phase of a run: there is a program for each."""
    return list(dict.fromkeys(map(recipe.encoder_rests, (0, recipe.steps - 1))))


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
