"""Every method of pretraining is the same on one device and on many, and learns."""

import jax
import numpy as np
import pytest

pytest.importorskip("grain")

from cellvit_jax.pretraining.pooling import vectors
from cellvit_jax.training.state import trained
from tests.pretraining.runs import CONFIG, TASKS, batch, filled_encoder, run_on
from tests.training.runs import float64

EIGHT = (8, 2)  # devices, and how many divide the weights in either way
slow = pytest.mark.slow


@pytest.mark.parametrize("name", ["simclr", pytest.param("dino", marks=slow)])
def test_the_first_loss_on_eight_devices_is_that_of_one(name):
    """For SimCLR this is to say: those of all devices are negatives to each other."""
    alone, eight = (run_on(name, count).losses(name, range(1)) for count in (1, 8))
    assert eight == pytest.approx(alone, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "mesh"),
    [
        ("dino", EIGHT),
        *(pytest.param(name, mesh, marks=slow) for name in TASKS for mesh in (EIGHT, (8, 1))),
    ],
)
def test_losses_of_some_steps_are_those_of_one_device(name, mesh):
    with float64():
        alone = run_on(name, dtype="float64").losses(name, range(4))
        found = run_on(name, *mesh, dtype="float64").losses(name, range(4))
    assert found == pytest.approx(alone, rel=1e-9)


@pytest.mark.parametrize("name", ["simclr", "supervised"])
def test_a_batch_can_be_learnt(name):
    found = run_on(name).losses(name, [0] * 12)
    assert min(found[-3:]) < 0.9 * found[0]


def test_what_is_attached_is_no_part_of_the_encoder():
    run = run_on("dino")
    state = run.begin()
    model = trained(run.layout, state)
    assert model.config == CONFIG
    assert not hasattr(model, "projector")
    kernel = state.ema["encoder.blocks.0.mlp.fc1.kernel"]
    np.testing.assert_array_equal(model.encoder.blocks[0].mlp.fc1.kernel[...], kernel)


@pytest.mark.parametrize("pool", ["mean", "cls"])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"encoder": "sam", "window_size": 3, "global_layers": (2,)},
        {"encoder": "dinov2", "gate": "silu", "num_registers": 4},
    ],
    ids=["vit", "sam", "dinov2"],
)
def test_every_view_has_its_vector(pool, fields):
    model = filled_encoder(depth=2, **fields)
    views = batch(0, 2)["views"]
    found = jax.jit(vectors, static_argnames="pool")(model, views, pool=pool)
    mean, std = (np.array(values) for values in (model.card.mean, model.card.std))
    images = np.float32((views[1] / 255 - mean) / std)
    features = jax.jit(lambda model, images: model(images))(model, images)
    tokens = np.asarray(features["tokens"])
    alone = sum(tokens[:, row, col] for row in (0, 1) for col in (0, 1)) / 4
    if pool == "cls" and "cls" in features:
        alone = features["cls"]
    np.testing.assert_allclose(found[1], alone, atol=1e-5)
