"""A whole SAM and a SAM-Med2D with narrow encoders, block by block, against PyTorch."""

from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from flax import nnx

from cellvit_convert.content import Content
from cellvit_convert.pytorch_to_orbax import translate
from cellvit_jax import checkpoint
from cellvit_jax.models import Sam
from tests.networks import noise
from tests.parity.synthetic import draw, manifest

torch = pytest.importorskip("torch")
encoders = pytest.importorskip("tests.parity.torch_encoders")
twin = pytest.importorskip("tests.parity.torch_sam")

GRID, SIDE = 16, 256
NARROW = {768: 128, 2304: 384, 3072: 512, 192: 32, 64: GRID, 127: 2 * GRID - 1}
POINTS = np.array([[60, 90], [200.5, 40], [30, 50], [120, 140]])
LABELS = [1, 0, 2, 3]


class Both(NamedTuple):
    """A network here, and its state dict in torch."""

    model: Sam
    state: dict[str, Any]


def narrow(key: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The sizes of an encoder of 128 channels and two heads, for images of 256 pixels."""
    if not key.startswith("image_encoder.") or "rel_pos" not in key:
        inner = key.startswith("image_encoder.")
        return tuple(NARROW.get(n, n) if inner else n for n in shape)
    return NARROW.get(shape[0], shape[0]), shape[1]


@pytest.fixture(scope="module", params=["sam-vit-b", "sam-med2d-vit-b"])
def both(request: pytest.FixtureRequest) -> Both:
    state = {
        key: draw(key, narrow(key, shape), dtype)
        for key, (shape, dtype) in manifest(request.param).items()
        if not any(f"blocks.{i}." in key for i in range(3, 12))
    }
    result = translate(Content(state))
    assert (result.config.position_grid, result.config.depth, result.ignored) == (GRID, 3, [])
    model = checkpoint.network(result.config)
    nnx.update(model, result.weights)
    tensors = {key: torch.from_numpy(value).double() for key, value in state.items()}
    return Both(model, tensors)


def close(found: jax.Array, expected: Any, tolerance: float = 1e-6) -> None:
    """Within a part of the largest value."""
    reference = expected.numpy()
    assert found.shape == reference.shape
    assert np.abs(np.asarray(found) - reference).max() <= tolerance * np.abs(reference).max()


def f32(tensor: Any) -> np.ndarray:
    """The values of a batch of one."""
    return tensor.numpy().astype(np.float32)[None]


def computing_in(dtype: str, model: Sam) -> Sam:
    """The same network in another type."""
    other = checkpoint.network(model.config, dtype=dtype)
    nnx.update(other, nnx.state(model))
    return other


@pytest.fixture(autouse=True)
def precise() -> Any:
    with jax.default_matmul_precision("highest"):
        yield


def test_blocks_of_the_image_encoder(both: Both) -> None:
    image = torch.from_numpy(np.array(noise(3, SIDE, SIDE))).double()
    state = {key.removeprefix("image_"): tensor for key, tensor in both.state.items()}
    outputs = encoders.sam_blocks(state, image, heads=2, window=14)
    expected = encoders.sam_neck(state, outputs[-1]).permute(1, 2, 0)
    run = jax.jit(lambda part, x: part(x))
    # products over 512 channels round by 1.2e-6 of their largest value where vectors are short
    # (AVX2), by half of that with AVX-512: what the parts compute shows in float64
    for dtype, tolerance in (("float64", 1e-9), ("float32", 2e-6)):
        with jax.enable_x64(dtype == "float64"):
            encoder = computing_in(dtype, both.model).image_encoder
            for block, before, after in zip(encoder.blocks, outputs, outputs[1:], strict=False):
                close(run(block, before.numpy().astype(dtype)[None])[0], after, tolerance)
            neck = run(encoder.neck, outputs[-1].numpy().astype(dtype)[None])[0]
            close(neck, expected, tolerance)
    found = jax.jit(Sam.embed)(both.model, f32(image.permute(1, 2, 0)))
    close(found[0], expected, 1e-5)


def test_prompts(both: Both) -> None:
    prompt, encoder = twin.inside(both.state, "prompt_encoder."), both.model.prompt_encoder
    points = torch.from_numpy(np.append(POINTS, [[7, 7]], 0))
    labels = [*LABELS, -1]
    found = encoder.points((f32(points) + 0.5) / SIDE, np.array([labels]))
    close(found[0], twin.sparse(prompt, points, labels, SIDE))
    close(encoder.grid(GRID, GRID).reshape(GRID**2, -1), twin.grid(prompt, GRID))
    mask = torch.from_numpy(np.array(noise(4 * GRID, 4 * GRID))).double()
    close(encoder.masks(f32(mask))[0], twin.dense(prompt, mask).permute(1, 2, 0))


def test_blocks_of_the_mask_decoder(both: Both) -> None:
    state, decoder = twin.inside(both.state, "mask_decoder."), both.model.mask_decoder
    transformer = twin.inside(state, "transformer.")
    tokens, image, grid = (
        torch.from_numpy(np.array(0.2 * noise(n, 256, seed=seed))).double()
        for seed, n in enumerate((9, GRID**2, GRID**2))
    )
    places = tokens
    for i, block in enumerate(decoder.transformer.layers):
        seen = (*map(f32, (tokens, image, places, grid)),)
        inner = twin.inside(transformer, f"layers.{i}.")
        tokens, image = twin.block(inner, i == 0, tokens, image, places, grid)
        for found, expected in zip(
            jax.jit(type(block).__call__)(block, *seen), (tokens, image), strict=True
        ):
            close(found[0], expected)
    logits, iou = twin.masks(state, tokens, image, GRID)
    assert logits.shape == (4, 4 * GRID, 4 * GRID)
    assert iou.shape == (4,)


def test_the_whole(both: Both) -> None:
    image = torch.from_numpy(np.array(noise(3, SIDE, SIDE))).double()
    mask = torch.from_numpy(np.array(noise(4 * GRID, 4 * GRID))).double()
    logits, iou = whole(both.state, image, mask)
    found = jax.jit(Sam.__call__)(
        both.model,
        f32(image.permute(1, 2, 0)),
        POINTS[None].astype(np.float32),
        np.array([LABELS]),
        f32(mask),
    )
    close(found.logits[0], logits.permute(1, 2, 0), 1e-5)
    close(found.iou[0], iou, 1e-5)


def whole(state: dict[str, Any], image: Any, mask: Any) -> tuple[Any, Any]:
    """Logits and scores of one prompt."""
    inner = {key.removeprefix("image_"): tensor for key, tensor in state.items()}
    prompt, decoder = (
        twin.inside(state, f"{name}.") for name in ("prompt_encoder", "mask_decoder")
    )
    embedded = encoders.sam_neck(inner, encoders.sam_blocks(inner, image, 2, 14)[-1])
    grid = twin.grid(prompt, GRID)
    x = (embedded + twin.dense(prompt, mask)).flatten(1).T
    sparse = twin.sparse(prompt, torch.from_numpy(POINTS), LABELS, SIDE)
    places = torch.cat([decoder["iou_token.weight"], decoder["mask_tokens.weight"], sparse])
    transformer, tokens = twin.inside(decoder, "transformer."), places
    for i in range(2):
        layer = twin.inside(transformer, f"layers.{i}.")
        tokens, x = twin.block(layer, i == 0, tokens, x, places, grid)
    last = twin.inside(transformer, "final_attn_token_to_image.")
    attended = twin.attention(last, tokens + places, x + grid, x)
    tokens = twin.norm(transformer, "norm_final_attn", tokens + attended)
    return twin.masks(decoder, tokens, x, GRID)
