"""A task of one's own: another network, another loss, constants, averages, the same loop."""

import dataclasses
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

pytest.importorskip("optax")

from cellvit_jax import checkpoint
from cellvit_jax.models import Encoder
from cellvit_jax.sharding import make_mesh, put_batch
from cellvit_jax.training.loop import Validation, train
from cellvit_jax.training.objective import normalise
from cellvit_jax.training.recipes import Recipe, Schedule
from cellvit_jax.training.state import begin, new_layout
from cellvit_jax.training.step import make_step
from cellvit_jax.training.task import network
from tests.compilation import optimised
from tests.networks import ENCODER_CARD, encoder_config

CONFIG = encoder_config()
RECIPE = Recipe(
    epochs=4,
    steps_per_epoch=1,
    batch_size=8,
    schedule=Schedule(peak=1e-2),
    ema_decay=0.9,
    save_every=2,
)


@dataclasses.dataclass(frozen=True)
class Colours:
    """The mean colour of an image, as an encoder's tokens tell it, near the average's guess."""

    given: dict[str, Any]
    recipe: Recipe = RECIPE

    def network(self, rngs: nnx.Rngs) -> Any:
        model = network(CONFIG, self.recipe, rngs)
        model.colour = nnx.Linear(CONFIG.embed_dim, 3, rngs=rngs)
        model.seen = nnx.BatchStat(jnp.zeros(()))
        return model

    def loss(self, model, batch, average):
        model.seen[...] += len(batch["image"])
        true = batch["image"].mean((1, 2)) / 255 * batch["scale"]["of"]
        guesses = [guess(network, batch["image"]) for network in (model, average())]
        error, unrest = ((guesses[0] - other) ** 2 for other in (true, guesses[1]))
        loss = jnp.mean(error) + 0.1 * jnp.mean(unrest)
        return loss, {"loss": loss, "unrest": jnp.mean(unrest)}


def guess(model: Any, images: jax.Array) -> jax.Array:
    return model.colour(model(normalise(model, images))["tokens"].mean((1, 2)))


def batches(start: int):
    while True:
        rng = np.random.default_rng(start)
        tones = rng.integers(0, 256, (8, 1, 1, 3))
        yield {"image": np.broadcast_to(tones, (8, 32, 32, 3)).astype(np.uint8)}
        start += 1


def task(mesh, recipe: Recipe = RECIPE) -> Colours:
    scale = {"of": jax.device_put(np.float32(0.5), jax.NamedSharding(mesh, jax.P()))}
    return Colours({"scale": scale}, recipe)


def go(run, epochs: int, mesh) -> list[dict[str, float]]:
    recipe = dataclasses.replace(RECIPE, epochs=epochs)
    scores = iter(range(100))
    validation = Validation(lambda model: ({"order": float(next(scores))}, {}), figure="order")
    train(
        run,
        CONFIG,
        ENCODER_CARD,
        recipe,
        batches,
        task=task(mesh, recipe),
        mesh=mesh,
        validation=validation,
    )
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [row for row in rows if "loss" in row]


@pytest.mark.slow
@optimised()  # two equal networks give equal sums
def test_an_encoder_alone_is_trained_saved_and_gone_on_with(tmp_path):
    mesh = make_mesh(devices=jax.devices()[:1])
    whole = go(tmp_path / "whole", 4, mesh)
    go(tmp_path / "halves", 2, mesh)
    halves = go(tmp_path / "halves", 4, mesh)
    assert [row["loss"] for row in halves] == [row["loss"] for row in whole]
    assert whole[0]["unrest"] == 0
    assert whole[1]["unrest"] > 0
    found = [checkpoint.load(tmp_path / run / "last") for run in ("whole", "halves")]
    assert all(type(model) is Encoder for model in found)  # nothing attached
    for one, other in zip(*map(jax.tree.leaves, map(nnx.state, found)), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_a_task_is_the_same_on_many_devices_and_keeps_its_statistics():
    found = []
    for mesh in (make_mesh(devices=jax.devices()[:1]), make_mesh(fsdp=2, tensor=2)):
        layout = new_layout(CONFIG, ENCODER_CARD, RECIPE, mesh, task(mesh))
        step, state, stream = make_step(layout, encoder_rests=False), begin(layout), batches(0)
        losses = []
        for _ in range(3):
            batch = put_batch(next(stream), mesh) | layout.task.given
            state, metrics = step(state, batch)
            losses.append(float(metrics["loss"]))
        assert state.rest["seen"] == 24
        found.append(losses)
    assert found[1] == pytest.approx(found[0], rel=1e-4)
