"""Which losses count, and how much."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from cellvit_jax.training import losses
from cellvit_jax.training.objective import Objective
from tests.networks import noise
from tests.training.runs import batch

BATCH = {name: jnp.asarray(values) for name, values in batch(0, images=4).items()}
MAPS = {
    "nuclei_binary_map": noise(4, 32, 32, 2),
    "hv_map": noise(4, 32, 32, 2, seed=1),
    "nuclei_type_map": noise(4, 32, 32, 3, seed=2),
}
EXTRA = {"regression_map": noise(4, 32, 32, 2, seed=3), "tissue_types": noise(4, 3, seed=4)}


class Network:
    """Maps that a network would give, for `Objective.__call__`."""

    dtype = jnp.float32

    def __init__(self, maps):
        self.maps = maps
        self.card = type("Card", (), {"mean": (0.5,) * 3, "std": (0.5,) * 3})

    def __call__(self, images: jax.Array) -> dict[str, jax.Array]:
        assert images.min() >= -1
        assert images.max() <= 1
        return self.maps


def test_the_total_is_the_weighted_sum_of_the_terms():
    objective = Objective(hv_mse=3.0, tissue_cross_entropy=7.0)
    labelled = BATCH | {"regression": jnp.zeros((4, 32, 32, 2))}
    total, metrics = objective(Network(MAPS | EXTRA), labelled)
    weighted = [getattr(objective, name) * metrics[name] for name in metrics if name != "loss"]
    assert len(weighted) == 9
    assert total == pytest.approx(float(sum(weighted)), rel=1e-6)


def test_maps_that_are_not_there_have_no_terms():
    assert (
        Objective().terms(MAPS, BATCH).keys().isdisjoint({"regression_mse", "tissue_cross_entropy"})
    )


def test_types_that_nobody_annotated_do_not_count():
    untyped = BATCH["typed"] == 0
    assert untyped.any()
    other = jnp.where(untyped[:, None, None], 2 - BATCH["types"], BATCH["types"])
    found, same = (Objective().terms(MAPS, BATCH | {"types": t}) for t in (BATCH["types"], other))
    for name in found:
        assert found[name] == pytest.approx(float(same[name]))


def test_tissues_that_are_not_known_do_not_count():
    logits = EXTRA["tissue_types"]
    assert BATCH["tissue"][0] == -1
    known = losses.tissue_cross_entropy(logits[1:], BATCH["tissue"][1:])
    assert losses.tissue_cross_entropy(logits, BATCH["tissue"]) == pytest.approx(float(known))
    assert losses.tissue_cross_entropy(logits, jnp.full(4, -1)) == 0


def test_the_second_softmax_is_for_the_tversky_losses_alone():
    once, twice = (Objective(double_softmax=d).terms(MAPS, BATCH) for d in (False, True))
    differ = {name for name in once if abs(once[name] - twice[name]) > 1e-6}
    assert differ == {"binary_focal_tversky", "type_focal_tversky"}


def test_class_weights_weigh_classes():
    weights = (1.0, 2.0, 4.0)
    whole = Objective(class_weights=weights).terms(MAPS, BATCH)["type_focal_tversky"]
    parts = [
        Objective(class_weights=tuple(float(i == j) for j in range(3))).terms(MAPS, BATCH)
        for i in range(3)
    ]
    expected = sum(w * p["type_focal_tversky"] for w, p in zip(weights, parts, strict=True))
    assert whole == pytest.approx(float(expected), rel=1e-5)
    assert dataclasses.replace(Objective(), class_weights=(1.0,) * 3).terms(MAPS, BATCH)[
        "type_focal_tversky"
    ] == pytest.approx(float(Objective().terms(MAPS, BATCH)["type_focal_tversky"]))
