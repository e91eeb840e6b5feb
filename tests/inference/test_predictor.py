import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx

from cellvit_jax import checkpoint
from cellvit_jax.cells import edges
from cellvit_jax.inference import Predictor
from tests.networks import CARD, save_small


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("predictor") / "model"
    save_small(path)
    return checkpoint.load(path)


@pytest.fixture(scope="module")
def tiles() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)


def test_a_padded_batch_equals_the_tiles_alone(model, tiles):
    together = list(Predictor(model, CARD, batch_size=4)(tiles))
    alone = list(Predictor(model, CARD, batch_size=1)(tiles))
    assert len(together) == len(alone) == 5
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(one["edge"], other["edge"], atol=1e-5)
        np.testing.assert_array_equal(one["types"], other["types"])


def test_all_batches_of_networks_of_one_structure_share_one_compiled_program(model, tiles):
    other = nnx.clone(model)
    nnx.update(other, jax.tree.map(lambda leaf: leaf / 2, nnx.state(model, nnx.Param)))
    card = dataclasses.replace(CARD, provenance="Of this test alone.")
    predictors = [Predictor(network, card, batch_size=2) for network in (model, other)]
    one, halved = (next(iter(predictor(tiles))) for predictor in predictors)
    assert not np.array_equal(one["probabilities"], halved["probabilities"])
    assert predictors[1]._predict._cache_size() == 1


def test_maps_are_reduced_to_what_cells_are_made_of(model, tiles):
    maps = next(Predictor(model, CARD, tokens=True)(tiles))
    kinds = {name: (value.shape, value.dtype.name) for name, value in maps.items()}
    assert kinds == {
        "binary": ((32, 32), "uint8"),
        "edge": ((32, 32), "float32"),
        "types": ((32, 32), "uint8"),
        "probabilities": ((32, 32, 3), "uint8"),
        "tokens": ((2, 2, 16), "float32"),
    }
    np.testing.assert_allclose(maps["probabilities"].sum(-1, dtype=int), 255, atol=2)


def test_pixels_are_normalised_as_the_card_says(model, tiles):
    (maps,) = Predictor(model, CARD)(tiles[:1])
    hv = model((tiles[:1] / 255 - 0.5) / 0.5)["hv_map"][0]
    np.testing.assert_allclose(maps["edge"], edges(np.asarray(hv), "fixed"), atol=1e-5)


def test_no_tiles_are_no_maps(model):
    assert list(Predictor(model, CARD)([])) == []
