"""Narrow foundation encoders, converted from files of the published layouts, against PyTorch."""

from functools import partial
from typing import NamedTuple

import jax
import numpy as np
import pytest
from flax import nnx

from cellvit_convert.content import Content
from cellvit_convert.pytorch_to_orbax import translate
from cellvit_jax import checkpoint
from cellvit_jax.models import Encoder
from cellvit_jax.models.dinov2 import resize_positions as resize_antialiased
from cellvit_jax.models.sam_vit import relative
from cellvit_jax.models.vit import resize_positions as resize_dino
from tests.convert.foundations import HEADS, state
from tests.networks import noise

torch = pytest.importorskip("torch")
twins = pytest.importorskip("tests.parity.torch_encoders")
silu = torch.nn.functional.silu


class Case(NamedTuple):
    """A family, what stands before its keys, its twin, how many prefix tokens, an image's size."""

    name: str
    prefix: str
    twin: partial
    tokens: int
    image: tuple[int, int]


CASES = (
    Case("hipt", "backbone.", partial(twins.vit), 1, (256, 144)),
    Case("uni", "", partial(twins.dinov2_blocks, patch=16), 1, (96, 256)),
    Case("virchow", "", partial(twins.dinov2_blocks, patch=14, gate=silu), 1, (224, 224)),
    Case("virchow2", "", partial(twins.dinov2_blocks, patch=14, gate=silu), 5, (256, 100)),
    Case("sam", "image_encoder.", partial(twins.sam_blocks, window=14), 0, (320, 112)),
)


def converted(case: Case) -> Encoder:
    content = Content(state(case.name, case.prefix), config={"model.num_heads": HEADS})
    result = translate(content)
    model = checkpoint.network(result.config)
    nnx.update(model, result.weights)
    return nnx.view(model, deterministic=True, raise_if_not_found=False)


def double(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(array)).double()


def difference(found: jax.Array, expected: torch.Tensor) -> float:
    """The largest one, as a part of the largest value."""
    reference = expected.numpy()
    assert found.shape == reference.shape
    return np.abs(np.asarray(found) - reference).max() / np.abs(reference).max()


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.name}-{case.image[0]}")
def test_a_foundation_encoder_equals_its_twin(case: Case) -> None:
    weights = {key: double(value) for key, value in state(case.name, "encoder.").items()}
    image = np.array(noise(*case.image, 3))
    first, *outputs = case.twin(weights, double(image).permute(2, 0, 1), heads=HEADS)
    with jax.default_matmul_precision("highest"):
        model = converted(case)
        found = jax.jit(lambda m, x: m(x))(model, image[None])
        for block, x, y in zip(model.encoder.blocks, [first, *outputs], outputs, strict=False):
            before = x.numpy().astype(np.float32)[None]
            assert difference(jax.jit(lambda b, x: b(x))(block, before)[0], y) <= 1e-6
    expected = {"tokens": outputs[-1]}
    if case.name == "sam":
        expected["neck"] = twins.sam_neck(weights, outputs[-1]).permute(1, 2, 0)
    else:
        normed = twins.norm(weights, "encoder.norm", outputs[-1])
        grid = tuple(n // model.config.patch_size for n in case.image)
        expected = {"tokens": normed[case.tokens :].reshape(*grid, -1), "cls": normed[0]}
    assert found.keys() == expected.keys()
    for name, reference in expected.items():
        assert difference(found[name][0], reference) <= 5e-6, name


@pytest.mark.parametrize("gate", ["gelu", "silu"])
def test_either_gate_is_the_twins(gate: str) -> None:
    ours = converted(CASES[2]).encoder.blocks[0]
    ours.mlp.gate = gate
    weights = {key: double(value) for key, value in state("virchow", "encoder.").items()}
    block, x = twins.blocks(weights)[0], np.array(noise(1, 9, 160))
    function = getattr(torch.nn.functional, gate)
    first, second = twins.linear(block, "mlp.fc1", double(x)).chunk(2, -1)
    expected = twins.linear(block, "mlp.fc2", function(first) * second)
    with jax.default_matmul_precision("highest"):
        assert difference(ours.mlp(x), expected) <= 1e-6


# ----- positions of every grid -----------------------------------------------------------------

GRIDS = ((1, 1), (3, 40), (14, 14), (16, 16), (17, 64))


@pytest.mark.parametrize("grid", GRIDS)
def test_positions_are_resized_as_torch_does_without_antialiasing(grid: tuple[int, int]) -> None:
    table = np.array(noise(1, 1 + 14 * 14, 5))
    found = resize_dino(jax.numpy.asarray(table), grid)[0]
    assert difference(found, twins.dino_positions(double(table[0]), grid)) <= 1e-6


@pytest.mark.parametrize("grid", GRIDS)
def test_positions_are_resized_as_torch_does_with_antialiasing(grid: tuple[int, int]) -> None:
    table = np.array(noise(1, 5 + 16 * 16, 5))
    found = resize_antialiased(jax.numpy.asarray(table), 16, grid)[0]
    assert difference(found, twins.positions(double(table[0]), 5, grid)) <= 2e-6


@pytest.mark.parametrize("side", [1, 5, 14, 15, 64])
def test_distances_are_resized_as_torch_does(side: int) -> None:
    table = np.array(noise(2 * 14 - 1, 5))
    found = relative(jax.numpy.asarray(table), side)
    assert difference(found, twins.distances(double(table), side)) <= 1e-6
