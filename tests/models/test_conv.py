"""3×3 convolution: its gradients against XLA's own, on one device and on several."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P

from cellvit_jax.models.conv import BLOCK, Conv3x3, at_once, block_rows, by_blocks
from cellvit_jax.sharding import make_mesh

SHAPES = [(2, 48, 40, 3, 5), (1, 17, 96, 4, 2), (3, 5, 600, 2, 3), (2, 1, 1, 2, 2)]


def drawn(images: int, height: int, width: int, inputs: int, outputs: int, dtype=jnp.float32):
    x, slope = (
        jax.random.normal(jax.random.key(seed), (images, height, width, channels), dtype)
        for seed, channels in enumerate((inputs, outputs))
    )
    return x, slope


@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_are_those_of_flax(shape: tuple[int, ...]) -> None:
    x, slope = drawn(*shape)
    ours = Conv3x3(shape[3], shape[4], dtype=jnp.float32, rngs=nnx.Rngs(0))
    theirs = nnx.Conv(shape[3], shape[4], (3, 3), rngs=nnx.Rngs(0))
    found, expected = (
        jax.vjp(lambda state, x, d=d: nnx.merge(d, state)(x), nnx.state(model), x)
        for model in (ours, theirs)
        for d in [nnx.graphdef(model)]
    )
    np.testing.assert_allclose(found[0], expected[0], atol=1e-5)
    for one, other in zip(
        jax.tree.leaves(found[1](slope)), jax.tree.leaves(expected[1](slope)), strict=True
    ):
        np.testing.assert_allclose(one, other, atol=2e-6 * np.abs(other).max() + 1e-6)


def test_sums_in_bfloat16_are_of_float32() -> None:
    x, slope = drawn(2, 64, 64, 4, 4, jnp.bfloat16)
    exact = at_once(x.astype(jnp.float32), slope.astype(jnp.float32))
    found = by_blocks(x, slope)
    assert found.dtype == jnp.bfloat16
    assert np.abs(found.astype(jnp.float32) - exact).max() <= 2**-8 * np.abs(exact).max()


def test_blocks_divide_the_height_and_fit() -> None:
    for height, width in [(256, 256), (17, 96), (1, 1), (1024, 1024), (14, 14)]:
        rows = block_rows(height, width)
        assert height % rows == 0
        assert rows == 1 or rows * width <= BLOCK


def test_cpu_programs_have_blocks_and_those_of_gpus_have_none() -> None:
    x, slope = drawn(1, 16, 64, 2, 2)

    @jax.jit
    def gradient(x, slope):
        conv = Conv3x3(2, 2, dtype=jnp.float32, rngs=nnx.Rngs(0))
        graphdef, state = nnx.split(conv)
        return jax.vjp(lambda state: nnx.merge(graphdef, state)(x), state)[1](slope)

    texts = {
        platform: gradient.trace(x, slope).lower(lowering_platforms=(platform,)).as_text()
        for platform in ("cpu", "cuda", "tpu")
    }
    assert {name: "while" in text for name, text in texts.items()} == {
        "cpu": True,
        "cuda": False,
        "tpu": False,
    }


def test_devices_that_share_a_batch_exchange_one_kernel() -> None:
    mesh = make_mesh(devices=jax.devices()[:4])
    batch = jax.NamedSharding(mesh, P(mesh.axis_names))
    x, slope = (jax.device_put(a, batch) for a in drawn(8, 16, 64, 3, 5))
    compiled = jax.jit(by_blocks, out_shardings=jax.NamedSharding(mesh, P())).lower(x, slope)
    text = compiled.compile().as_text()
    assert text.count(" all-reduce(") == 1
    assert "all-gather" not in text
    assert "collective-permute" not in text
    expected = at_once(*drawn(8, 16, 64, 3, 5))
    np.testing.assert_allclose(compiled.compile()(x, slope), expected, rtol=1e-5, atol=1e-4)
