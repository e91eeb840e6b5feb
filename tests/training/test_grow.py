"""scripts/grow.py: the wider network is the narrow one, until it is trained."""

import importlib.util
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import cellvit_jax as cj
from tests.networks import noise

SCRIPT = Path(__file__).parents[2] / "scripts" / "grow.py"


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    spec = importlib.util.spec_from_file_location("grow", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    folder = tmp_path_factory.mktemp("grown") / "model"
    script.main("cellvit-tiny-consep", folder)
    return cj.load(folder)


def test_a_grown_network_computes_what_the_narrow_one_does(grown):
    images = noise(1, 64, 96, 3)
    maps, narrow = grown(images), cj.load("cellvit-tiny-consep")(images)
    for name, value in maps.items():
        bound = 1e-4 * jnp.abs(narrow[name]).max()
        np.testing.assert_allclose(value, narrow[name], atol=bound, rtol=0, err_msg=name)


def test_copies_of_a_channel_are_heard_in_different_ways(grown):
    kernel = grown.encoder.blocks[0].mlp.fc1.kernel[...]
    half = kernel.shape[0] // 2
    assert jnp.abs(kernel[:half] - kernel[half:]).min() > 0


def test_new_channels_of_the_decoder_are_made_and_not_yet_heard(grown):
    trunk = grown.trunks["shared"]
    assert trunk.up2.kernel[...].shape == (2, 2, 96, 48)
    assert jnp.abs(trunk.up2.kernel[..., 64:, :32]).max() == 0
    assert jnp.abs(trunk.up2.kernel[..., 32:]).min() > 0
