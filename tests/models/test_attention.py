"""Kernels of the attention: the same numbers and gradients, and lowered where they cannot run."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax._src.cudnn import fused_attention_stablehlo

from cellvit_jax import checkpoint
from cellvit_jax.errors import InputError
from cellvit_jax.models import CellViT, ModelConfig, attention, folded
from cellvit_jax.models.attention import (
    QUERIES,
    cudnn,
    plain,
    set_kernel,
    whole,
    with_kernel,
)
from tests.networks import filled, noise, small_config

SAM: dict[str, Any] = {"encoder": "sam", "window_size": 3, "global_layers": (2,)}
FMHA = "__cudnn$fmhaSoftmax"  # cuDNN's attention, as compiled programs name it


def network(**fields) -> CellViT:
    return filled(small_config(**fields))


def gradients(model: CellViT, images: np.ndarray) -> dict[str, np.ndarray]:
    """Of the squares of what the encoder gives, by weight."""
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)

    def loss(params: nnx.State) -> jax.Array:
        skips = nnx.merge(graphdef, params, rest).encoder(images).skips
        return sum(jnp.square(skip).mean() for skip in skips)

    with jax.default_matmul_precision("highest"):
        return checkpoint.leaves(nnx.to_pure_dict(jax.jit(jax.grad(loss))(params)))


@pytest.mark.parametrize("fields", [{}, SAM], ids=["vit", "sam"])
def test_gradients_are_those_of_the_readable_form(fields: dict[str, Any]) -> None:
    model, images = network(**fields), noise(2, 64, 48, 3)
    expected = gradients(model, images)
    set_kernel(model, "xla")
    found = gradients(model, images)
    assert found.keys() == expected.keys()
    for name, reference in expected.items():
        scale = max(np.abs(reference).max(), 1e-6)
        assert np.abs(found[name] - reference).max() <= 1e-4 * scale, name


@pytest.mark.parametrize("preset", ["cellvit_256", "cellvit_sam_b"])
def test_cudnn_attention_lowers_for_cuda_with_its_gradients(preset, monkeypatch) -> None:
    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91000)
    config = getattr(ModelConfig, preset)(depth=2, skip_layers=(1, 1, 2, 2))
    encoder = checkpoint.network(config, dtype=jnp.bfloat16).encoder
    for block in encoder.blocks:
        block.attn = with_kernel(block.attn, "cudnn")
    graphdef, state = nnx.split(nnx.view(encoder, deterministic=True, raise_if_not_found=False))

    def loss(state: Any, images: jax.Array) -> jax.Array:
        return sum(skip.sum() for skip in nnx.merge(graphdef, state)(images).skips)

    program = for_cuda(jax.grad(loss), nnx.to_pure_dict(state))
    assert program.count(f"@{FMHA}(") == program.count(f"@{FMHA}Backward(") == 2


@pytest.mark.parametrize("preset", ["cellvit_256", "cellvit_sam_b", "cellvit_uni"])
def test_networks_with_cudnn_attention_lower_for_cuda(preset, monkeypatch) -> None:
    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91000)
    monkeypatch.setattr(attention, "check_kernel", lambda *_: None)  # there is no CUDA device
    fields = {"global_layers": (2,)} if "sam" in preset else {}
    config = getattr(ModelConfig, preset)(depth=2, skip_layers=(1, 1, 2, 2), **fields)
    model = checkpoint.network(config, dtype=jnp.bfloat16)
    model = nnx.view(model, deterministic=True, use_running_average=True)
    graphdef, state = nnx.split(nnx.eval_shape(partial(folded, attention="cudnn"), model))
    program = for_cuda(
        lambda state, images: nnx.merge(graphdef, state)(images), nnx.to_pure_dict(state)
    )
    assert program.count(f"@{FMHA}(") == 2


def for_cuda(function: Callable, state: Any) -> str:
    """The program of a function of weights and an image, as CUDA would be given it."""
    exported = jax.export.export(
        jax.jit(function),
        platforms=("cuda",),
        disabled_checks=[
            jax.export.DisabledSafetyCheck.custom_call(name) for name in (FMHA, f"{FMHA}Backward")
        ],
    )
    return exported(state, jax.ShapeDtypeStruct((1, 256, 256, 3), jnp.float32)).mlir_module()


@pytest.mark.parametrize("tokens", [6, 7])
def test_what_cudnn_is_given_means_the_same(tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    portable = jax.nn.dot_product_attention
    monkeypatch.setattr(
        jax.nn,
        "dot_product_attention",
        lambda *inputs, implementation, **options: portable(*inputs, **options),
    )
    q, k, v = (noise(2, 3, tokens, d, seed=d) for d in (5, 5, 4))
    np.testing.assert_allclose(cudnn(q, k, v), plain(q, k, v), atol=1e-6)


def test_blocks_of_queries_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cellvit_jax.models.attention.MANY", 0)
    q, k, v = (noise(2, 2, QUERIES + 9, d, seed=d) for d in (6, 6, 4))
    k, v = k[:, :, :7], v[:, :, :7]
    np.testing.assert_allclose(plain(q, k, v), whole(q, k, v), atol=1e-6)


def test_unknown_kernels_are_refused() -> None:
    for kernel in ("flash", "cudnn"):
        with pytest.raises(InputError, match="xla"):
            folded(network(), attention=kernel)
