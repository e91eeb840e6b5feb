import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cellvit_jax.training import losses
from tests.shared import DATA

INPUTS = np.load(DATA / "losses" / "inputs.npz")
EXPECTED = json.loads((DATA / "losses" / "expected.json").read_text())
NUCLEI = jnp.asarray(INPUTS["true_instances"] > 0, jnp.float32)
BINARY = jnp.stack([1 - NUCLEI, NUCLEI], -1)
TYPES = jax.nn.one_hot(INPUTS["true_types"], 3)
softmax = jax.nn.softmax

# recorded name: (loss of the raw input, which input)
RECORDED = {
    "xentropy_loss(softmax(binary_logits))": (
        lambda x: losses.cross_entropy(softmax(x), BINARY),
        "binary_logits",
    ),
    "dice_loss(softmax(binary_logits))": (
        lambda x: losses.dice(softmax(x), BINARY),
        "binary_logits",
    ),
    "xentropy_loss(softmax(type_logits))": (
        lambda x: losses.cross_entropy(softmax(x), TYPES),
        "type_logits",
    ),
    "dice_loss(softmax(type_logits))": (lambda x: losses.dice(softmax(x), TYPES), "type_logits"),
    "FocalTverskyLoss(binary_logits)": (
        lambda x: losses.focal_tversky(softmax(x), BINARY),
        "binary_logits",
    ),
    "MCFocalTverskyLoss(type_logits,num_classes=3)": (
        lambda x: losses.focal_tversky_per_class(softmax(x), TYPES),
        "type_logits",
    ),
    "MCFocalTverskyLoss(type_logits,num_classes=3,class_weights=[1,2,3])": (
        lambda x: losses.focal_tversky_per_class(softmax(x), TYPES, jnp.array([1.0, 2.0, 3.0])),
        "type_logits",
    ),
    "CEWeighted(type_logits,num_classes=3)": (
        lambda x: losses.cross_entropy(softmax(x), TYPES),
        "type_logits",
    ),
    "MSEWeighted(hv,num_classes=2)": (lambda x: losses.mse(x, INPUTS["true_hv"]), "hv"),
    "mse_loss_maps(hv)": (lambda x: losses.mse(x, INPUTS["true_hv"]), "hv"),
    "msge_loss_maps(hv,focus=binary_onehot)": (
        lambda x: losses.msge(x, jnp.asarray(INPUTS["true_hv"]), NUCLEI),
        "hv",
    ),
}

# and why nothing is compared with the others
LEFT_OUT = {
    "BCEWeighted(binary_logits[...,:1])": "not in the published recipe",
    "MAEWeighted(hv,num_classes=2)": "not in the published recipe",
    "CrossEntropyLoss(tissue_logits)": "its logits were not recorded; see below",
}


def test_every_recorded_loss_is_compared_or_left_out_on_purpose():
    assert EXPECTED.keys() == RECORDED.keys() | LEFT_OUT.keys()
    assert "tissue_logits" not in INPUTS


@pytest.mark.parametrize("name", RECORDED)
def test_values_and_gradients_equal_the_recorded_ones(name):
    loss, of = RECORDED[name]
    value, gradient = jax.jit(jax.value_and_grad(loss))(jnp.asarray(INPUTS[of]))
    recorded, gradient = EXPECTED[name], np.asarray(gradient).reshape(-1)
    assert value == pytest.approx(recorded["value"], rel=1e-6)
    assert np.linalg.norm(gradient) == pytest.approx(recorded["grad_l2"], rel=1e-5)
    probe = gradient[:: gradient.size // 16][:16]
    np.testing.assert_allclose(probe, recorded["grad_probe"], rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("loss", [losses.cross_entropy, losses.dice])
def test_masked_pixels_do_not_count(loss):
    p, t = softmax(jnp.asarray(INPUTS["type_logits"])), TYPES
    valid = jnp.zeros((2, 128, 128, 1)).at[:, :64].set(1.0)
    assert loss(p, t, valid) == pytest.approx(float(loss(p[:, :64], t[:, :64])), rel=1e-5)
    changed = p.at[:, 64:].set(1 / 3)
    assert loss(changed, t, valid) == pytest.approx(float(loss(p, t, valid)), rel=1e-6)


def test_a_perfect_prediction_has_finite_gradients():
    gradient = jax.grad(lambda p: losses.focal_tversky_per_class(p, TYPES))(TYPES)
    assert jnp.isfinite(gradient).all()


# the record's value has no logits beside it; those of the recorded training are in tests/parity
def test_tissue_cross_entropy_is_the_mean_of_the_labels_negative_log():
    p = jnp.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8], [0.3, 0.3, 0.4]])
    loss = jax.value_and_grad(losses.tissue_cross_entropy)
    value, gradient = loss(jnp.log(p) + 5, jnp.array([1, 2, -1]))
    assert value == pytest.approx(-(np.log(0.25) + np.log(0.8)) / 2)
    expected = np.array([[0.5, 0.25 - 1, 0.25], [0.1, 0.1, 0.8 - 1], [0, 0, 0]]) / 2
    np.testing.assert_allclose(gradient, expected, atol=1e-6)
