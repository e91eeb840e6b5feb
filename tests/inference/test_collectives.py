"""Devices that share a batch have nothing to say to each other."""

import re

import pytest

from cellvit_jax.inference import Predictor
from tests.networks import CARD, filled, small_config

COLLECTIVE = re.compile(r"all-reduce|all-gather|all-to-all|reduce-scatter|collective-")
FAMILIES = {
    "vit": {},
    "sam": {"encoder": "sam", "window_size": 3, "global_layers": (2,)},
    "uni": {"encoder": "dinov2"},
    "virchow": {"encoder": "dinov2", "patch_size": 14, "gate": "gelu", "any_size": True},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_eight_devices_exchange_nothing(family: str) -> None:
    config = small_config(**FAMILIES[family])
    predictor = Predictor(filled(config), CARD, batch_size=8, tokens=True)
    program = predictor.compiled(32).as_text()
    assert "num_partitions=8" in program
    assert not COLLECTIVE.findall(program)
