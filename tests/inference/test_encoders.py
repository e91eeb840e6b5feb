"""Segmenting with encoders whose patches do not divide the tile."""

import dataclasses

import numpy as np
import pytest

from cellvit_jax.inference.predictor import Predictor
from cellvit_jax.inference.segment import segment
from tests.networks import CARD, inference, make, small_config

ENCODERS = {
    "virchow": {"encoder": "dinov2", "patch_size": 14, "any_size": True, "gate": "gelu"},
    "sam": {"encoder": "sam", "window_size": 3, "global_layers": (2,)},
}


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_whole_image_is_segmented(encoder):
    model = inference(make(small_config(shared_trunk=True, **ENCODERS[encoder])))
    model.card = dataclasses.replace(CARD, tile=64)
    image = np.random.default_rng(0).integers(0, 255, (70, 101, 3), np.uint8)
    cells = segment(image, model, mpp=0.25, batch_size=2)
    assert {name for name, _ in cells.classes.values()} == {"Round", "Long"}


def test_tokens_of_virchow_cover_the_whole_tile():
    model = inference(make(small_config(shared_trunk=True, **ENCODERS["virchow"])))
    predictor = Predictor(model, CARD, tokens=True, batch_size=2)
    (maps,) = predictor([np.zeros((64, 64, 3), np.uint8)])
    assert maps["tokens"].shape == (4, 4, 16)
    assert maps["binary"].shape == maps["types"].shape == (64, 64)
