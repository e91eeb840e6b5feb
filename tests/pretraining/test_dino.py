"""Self-distillation against its definition: loss, centre, temperature, average, views."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("grain")

from flax import nnx

from cellvit_jax.models.vit import cubic_kernel
from cellvit_jax.pretraining.dino import Prototypes, SelfDistillation, cross_entropy, moved
from cellvit_jax.pretraining.pooling import vectors
from cellvit_jax.sharding import put_batch
from cellvit_jax.training.state import nested
from cellvit_jax.training.step import streams_at
from tests.compilation import optimised
from tests.pretraining.runs import CONFIG, RECIPE, SMALL, batch, of, run_on

TASK = SelfDistillation(CONFIG, RECIPE, **SMALL)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_the_loss_is_what_the_paper_defines():
    rng = np.random.default_rng(0)
    student, teacher = rng.standard_normal((3, 5, 7)), softmax(rng.standard_normal((3, 2, 7)))
    terms = [
        -(teacher[b, g] * np.log(softmax(student[b, v]))).sum()
        for b in range(3)
        for g in range(2)
        for v in range(5)
        if v != g
    ]
    found = cross_entropy(jnp.asarray(student), jnp.asarray(teacher))
    assert float(found) == pytest.approx(np.mean(terms), rel=1e-5)


def test_the_teacher_gets_no_gradient():
    student, teacher = jnp.ones((2, 3, 4)).at[0, 0, 0].set(2), jnp.full((2, 2, 4), 0.25)
    slopes = jax.grad(cross_entropy, argnums=(0, 1))(student, teacher)
    assert np.abs(slopes[0]).max() > 0
    assert not slopes[1].any()


def model_of(layout, params, rest):
    model = layout.merge(params, rest, streams_at(layout, jnp.asarray(0)))
    return nnx.view(model, deterministic=True)


@optimised()  # sums that are as exact as users'
def test_the_student_learns_nothing_through_its_average():
    run, values = run_on("dino"), of("dino", batch(0))
    layout, state = run.layout, run.begin()

    def loss(params, average):
        model = model_of(layout, params, state.rest)
        return TASK.loss(model, values, lambda: model_of(layout, average, state.rest))[0]

    through = jax.jit(jax.grad(lambda params: loss(params, params)))(state.params)
    around = jax.jit(jax.grad(loss))(state.params, state.params)
    for name, slope in around.items():
        np.testing.assert_allclose(through[name], slope, atol=1e-6, err_msg=name)


def test_centre_and_average_move_as_they_should():
    layout, step, _ = run = run_on("dino")
    state = run.begin()
    first = {name: np.array(value) for name, value in state.ema.items()}
    teacher = model_of(layout, state.ema, state.rest)
    raw = np.array(jax.jit(TASK.logits)(teacher, batch(0)["whole"]))
    after, row = step(state, put_batch(of("dino", batch(0)), layout.mesh))
    centre = 0.1 * raw.reshape(-1, raw.shape[-1]).mean(0)
    np.testing.assert_allclose(after.rest["centre"], centre, atol=1e-6)
    assert after.rest["steps"] == 1
    said = softmax(raw / 0.04)
    assert float(row["teacher"]) == pytest.approx(-np.mean((said * np.log(said)).sum(-1)), rel=1e-4)
    for name, value in after.ema.items():  # the first share of a cosine is all of 1 - decay
        expected = 0.9 * first[name] + 0.1 * np.array(after.params[name])
        np.testing.assert_allclose(value, expected, atol=1e-6, err_msg=name)


def test_the_centre_is_the_mean_of_all_images_and_views():
    logits = np.random.default_rng(0).standard_normal((4, 2, 3))
    found = moved(jnp.ones(3), jnp.asarray(logits), 0.75)
    np.testing.assert_allclose(found, 0.75 + 0.25 * logits.reshape(8, 3).mean(0), rtol=1e-5)


def test_the_temperature_rises_and_stays():
    found = [float(TASK.sharpness(jnp.asarray(float(step)))) for step in (0, 2, 4, 100)]
    assert found == pytest.approx([0.04, 0.055, 0.07, 0.07])
    still = dataclasses.replace(TASK, warmup_steps=0)
    assert float(still.sharpness(jnp.asarray(1.0))) == pytest.approx(0.07)


def test_prototypes_are_directions_that_may_rest():
    layer = Prototypes(4, 3, rngs=nnx.Rngs(0))
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 4)), jnp.float32)
    w = np.array(layer.directions[...])
    cosines = x / np.linalg.norm(x, axis=1, keepdims=True) @ (w / np.linalg.norm(w, axis=0))
    np.testing.assert_allclose(layer(x, rest=jnp.asarray(True)), cosines, atol=1e-5)
    graphdef, state = nnx.split(layer)

    def total(state, rest):
        return nnx.merge(graphdef, state)(x, rest=rest)[0, 0]

    for rest in (True, False):
        (slope,) = jax.tree.leaves(jax.grad(total)(state, jnp.asarray(rest)))
        assert bool(np.any(slope)) is not rest


def test_parts_see_the_positions_of_the_whole_at_another_size():
    run = run_on("dino")
    layout, state = run.layout, run.begin()
    parts = batch(0, 2)["parts"]
    pooled = jax.jit(vectors, static_argnames="pool")
    found = pooled(model_of(layout, state.params, state.rest), parts, pool="mean")
    table = np.array(state.params["encoder.pos_embed"])
    smaller = dataclasses.replace(CONFIG, position_grid=2)
    own = dataclasses.replace(TASK, config=smaller).network(nnx.Rngs(0))
    own.card = layout.card
    resized = np.concatenate([table[:, :1], shrunk(table[0, 1:].reshape(4, 4, -1), 2)], axis=1)
    params = {**state.params, "encoder.pos_embed": jnp.asarray(resized)}
    nnx.update(own, nested(params))
    np.testing.assert_allclose(pooled(own, parts, pool="mean"), found, atol=1e-5)


def shrunk(table: np.ndarray, side: int) -> np.ndarray:
    """A table of positions (n,n,D) on a grid of `side`, tap by tap, as (1,side²,D)."""
    n = len(table)
    out = np.zeros((side, side, table.shape[-1]))
    for i in range(side):
        for j in range(side):
            y, x = ((k + 0.5) * n / (side + 0.1) - 0.5 for k in (i, j))
            for r in range(int(np.floor(y)) - 1, int(np.floor(y)) + 3):
                for c in range(int(np.floor(x)) - 1, int(np.floor(x)) + 3):
                    weight = cubic_kernel(np.array(y - r)) * cubic_kernel(np.array(x - c))
                    out[i, j] += weight * table[np.clip(r, 0, n - 1), np.clip(c, 0, n - 1)]
    return out.reshape(1, side * side, -1).astype(np.float32)
