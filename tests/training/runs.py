"""A run small enough to be made again and again, on any mesh."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from functools import cache

import jax
import numpy as np
from jax.sharding import Mesh

from cellvit_jax.sharding import make_mesh, put_batch
from cellvit_jax.training.recipes import Recipe, Schedule
from cellvit_jax.training.state import Layout, TrainState, begin, new_layout
from cellvit_jax.training.step import Step, make_step
from tests.networks import CARD, small_config

CONFIG = small_config(shared_trunk=True, regression_loss=True)
RECIPE = Recipe(
    epochs=5,
    steps_per_epoch=1,
    batch_size=8,
    schedule=Schedule(peak=1e-3),
    drop_path_rate=0.1,
    attention_drop_rate=0.1,
)


def batch(step: int, images: int = 8) -> dict[str, np.ndarray]:
    """The batch of a step, of noise."""
    rng = np.random.default_rng(step)
    shape = (images, 32, 32)
    return {
        "image": rng.integers(0, 256, (*shape, 3), np.uint8),
        "nuclei": rng.random(shape) > 0.5,
        "hv": rng.standard_normal((*shape, 2), np.float32),
        "regression": rng.standard_normal((*shape, 2), np.float32),
        "types": rng.integers(0, 3, shape, np.uint8),
        "typed": (np.arange(images) % 4 > 0).astype(np.float32),
        "tissue": np.arange(images, dtype=np.int32) % 4 - 1,
    }


@contextlib.contextmanager
def float64() -> Iterator[None]:
    """All threads compute in float64, those too in which Orbax reads."""
    jax.config.update("jax_enable_x64", True)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", False)


def layout_on(mesh: Mesh, **fields) -> Layout:
    return new_layout(CONFIG, CARD, dataclasses.replace(RECIPE, **fields), mesh)


def compiled(layout: Layout, *, encoder_rests: bool = False) -> Step:
    """The step as a program."""
    step = make_step(layout, encoder_rests=encoder_rests)
    images = RECIPE.batch_size // jax.process_count()
    lowered = step.lower(layout.abstract, put_batch(batch(0, images), layout.mesh))
    return lowered.compile()


def losses(
    layout: Layout, step: Step, state: TrainState, steps: range, part: slice = slice(None)
) -> tuple[TrainState, list[float]]:
    """The state after some steps, and their losses; of a batch this process has `part`."""
    found = []
    for index in steps:
        values: Mapping = {name: array[part] for name, array in batch(index).items()}
        state, metrics = step(state, put_batch(values, layout.mesh))
        found.append(float(metrics["loss"]))
    return state, found


@cache
def begun(dtype: str) -> TrainState:
    """The state at step 0 on the host, drawn on one device."""
    return jax.device_get(begin(layout_on(make_mesh(devices=jax.devices()[:1]), dtype=dtype)))


@cache
def run_on(count: int, fsdp: int, tensor: int, dtype: str) -> tuple[Layout, Step]:
    """Layout and step on so many devices."""
    layout = layout_over(count, fsdp, tensor, dtype)
    return layout, compiled(layout)


def layout_over(count: int, fsdp: int, tensor: int, dtype: str) -> Layout:
    """The layout on so many devices."""
    return layout_on(mesh_over(count, fsdp, tensor), dtype=dtype)


def mesh_over(count: int, fsdp: int, tensor: int) -> Mesh:
    """A mesh of so many devices."""
    return make_mesh(fsdp=fsdp, tensor=tensor, devices=jax.devices()[:count])


def first_loss(layout: Layout) -> float:
    """The loss of the first step; the rest of the step is not compiled, nor done."""
    step, first = make_step(layout, encoder_rests=False), put_batch(batch(0), layout.mesh)
    loss = jax.jit(lambda state, values: step(state, values)[1]["loss"])
    return float(loss(jax.device_put(begun(layout.recipe.dtype), layout.shardings), first))
