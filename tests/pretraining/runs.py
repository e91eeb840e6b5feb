"""Encoders of a few channels that learn from views of noise, on any mesh."""

import dataclasses
from collections.abc import Iterable
from functools import cache
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from cellvit_jax.models import Encoder
from cellvit_jax.pretraining.dino import SelfDistillation
from cellvit_jax.pretraining.labels import Classification
from cellvit_jax.pretraining.simclr import Contrast
from cellvit_jax.sharding import make_mesh, put_batch
from cellvit_jax.training.recipes import Recipe, Schedule
from cellvit_jax.training.state import Layout, TrainState, begin, new_layout
from cellvit_jax.training.step import Step, make_step
from cellvit_jax.training.task import Task
from tests.networks import ENCODER_CARD, encoder_config, fill

CONFIG = encoder_config(depth=2)
RECIPE = Recipe(
    epochs=5,
    steps_per_epoch=1,
    batch_size=8,
    schedule=Schedule(peak=1e-2),
    ema_decay=0.9,
    ema_schedule="cosine",
)
SMALL = {"hidden": 12, "bottleneck": 6, "prototypes": 10, "warmup_steps": 4}
TASKS: dict[str, Any] = {
    "simclr": lambda recipe: Contrast(CONFIG, recipe, hidden=12, dim=6),
    "dino": lambda recipe: SelfDistillation(CONFIG, recipe, **SMALL),
    "supervised": lambda recipe: Classification(CONFIG, recipe, classes=3),
}


def batch(step: int, images: int = 8) -> dict[str, np.ndarray]:
    """All that any task takes, of noise; the parts of tiles are smaller than the encoder's grid."""
    rng = np.random.default_rng(step)

    def views(count: int, side: int) -> np.ndarray:
        return rng.integers(0, 256, (images, count, side, side, 3), np.uint8)

    return {
        "views": views(2, 32),
        "whole": views(2, 64),
        "parts": views(3, 32),
        "label": rng.integers(0, 3, images).astype(np.int32),
    }


def of(name: str, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What of a batch a task takes."""
    if name == "supervised":
        return {"views": values["views"][:, :1], "label": values["label"]}
    names = {"simclr": ("views",), "dino": ("whole", "parts")}[name]
    return {key: values[key] for key in names}


def layout_on(mesh: Mesh, name: str, **fields) -> Layout:
    """A task's layout, for the recipe with some values set."""
    recipe = dataclasses.replace(RECIPE, **fields)
    task: Task = TASKS[name](recipe)
    return new_layout(CONFIG, ENCODER_CARD, recipe, mesh, task)


def filled_encoder(**fields) -> Encoder:
    """An encoder of four blocks that is quicker to fill than to initialise."""
    config = encoder_config(**fields)
    model = nnx.eval_shape(lambda: Encoder(config, rngs=nnx.Rngs(0)))
    nnx.update(model, nnx.map_state(fill, nnx.state(model)))
    model.card = ENCODER_CARD
    return model


class Run(NamedTuple):
    """A task on some devices, ready to go."""

    layout: Layout
    step: Step
    first: TrainState  # on the host

    def begin(self) -> TrainState:
        """The first state, which a step may have."""
        return jax.tree.map(jax.device_put, self.first, self.layout.shardings)

    def losses(self, name: str, numbers: Iterable[int]) -> list[float]:
        """Of steps with the batches of these numbers."""
        state, found = self.begin(), []
        for number in numbers:
            values = put_batch(of(name, batch(number)), self.layout.mesh)
            state, metrics = self.step(state, values)
            found.append(float(metrics["loss"]))
        return found


@cache
def run_on(name: str, count: int = 1, part: int = 1, dtype: str = "float32") -> Run:
    """A task on so many devices, of which `part` divide weights, in two ways."""
    mesh = make_mesh(fsdp=part, tensor=part, devices=jax.devices()[:count])
    layout = layout_on(mesh, name, dtype=dtype)
    lowered = make_step(layout, encoder_rests=False).lower(
        layout.abstract, put_batch(of(name, batch(0)), mesh)
    )
    step = lowered.compile()
    return Run(layout, step, jax.tree.map(np.array, begin(layout)))
