"""Encoders alone: what they give, and the images they take."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cellvit_jax.errors import InputError
from cellvit_jax.models import CellViT, Encoder, EncoderConfig, ModelConfig
from tests.networks import noise, small_config

SMALL = {"depth": 2, "embed_dim": 16, "num_heads": 2, "position_grid": 4}
CONFIGS = {
    "vit": EncoderConfig(architecture="vit_encoder", **SMALL),
    "sam": EncoderConfig(
        architecture="sam_encoder", encoder="sam", window_size=3, global_layers=(2,), **SMALL
    ),
    "dinov2": EncoderConfig(
        architecture="dinov2_encoder",
        encoder="dinov2",
        patch_size=14,
        gate="silu",
        num_registers=2,
        any_size=True,
        **SMALL,
    ),
}


@jax.jit
def features(model: Encoder, images: jax.Array) -> dict[str, jax.Array]:
    return model(images)


def make(kind: str, **kwargs) -> Encoder:
    return Encoder(CONFIGS[kind], **kwargs, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    ("kind", "size", "grid"),
    [("vit", (32, 80), (2, 5)), ("sam", (64, 16), (4, 1)), ("dinov2", (31, 64), (2, 4))],
)
def test_features_have_a_token_for_every_patch(kind, size, grid):
    shapes = {name: x.shape for name, x in features(make(kind), noise(2, *size, 3)).items()}
    whole = {"neck": (2, *grid, 256)} if kind == "sam" else {"cls": (2, 16)}
    assert shapes == {"tokens": (2, *grid, 16)} | whole


@pytest.mark.parametrize("kind", CONFIGS)
def test_bfloat16_computes_near_float32_and_answers_in_float32(kind):
    images = noise(1, 64, 64, 3)
    half = features(make(kind, dtype=jnp.bfloat16), images)
    for name, value in features(make(kind), images).items():
        assert half[name].dtype == jnp.float32
        assert jnp.linalg.norm(half[name] - value) < 0.05 * jnp.linalg.norm(value)


def last_block(kind: str, **rates: float) -> nnx.Module:
    config = dataclasses.replace(CONFIGS[kind], **rates)
    return Encoder(config, rngs=nnx.Rngs(0)).encoder.blocks[-1]


def tokens(kind: str) -> jax.Array:
    """What a block takes."""
    return noise(8, *((4, 4) if kind == "sam" else (5,)), 16)


def chancy(block: nnx.Module, x: jax.Array) -> set[str]:
    """The parts of a block that answer differently when asked twice."""
    parts = {name: getattr(block, name) for name in ("attn", "mlp", "drop_path")}
    return {name for name, part in parts.items() if not np.array_equal(part(x), part(x))}


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize(
    ("rate", "part"),
    [("attention_drop_rate", "attn"), ("drop_rate", "mlp"), ("drop_path_rate", "drop_path")],
)
def test_every_rate_acts_in_its_own_part_and_in_training_only(kind, rate, part):
    block = last_block(kind, **{rate: 0.5})
    assert chancy(block, tokens(kind)) == {part}
    assert not chancy(nnx.view(block, deterministic=True), tokens(kind))


@pytest.mark.parametrize("kind", CONFIGS)
def test_stochastic_depth_drops_both_whole_residuals_of_a_sample(kind):
    x = tokens(kind)
    factors = np.asarray(last_block(kind, drop_path_rate=0.5).drop_path(jnp.ones_like(x)))
    assert {tuple(np.unique(factor)) for factor in factors} == {(0.0,), (2.0,)}
    np.testing.assert_array_equal(last_block(kind, drop_path_rate=1.0)(x), x)


@pytest.mark.parametrize("kind", CONFIGS)
def test_stochastic_depth_rises_linearly_from_0_over_the_blocks(kind):
    config = dataclasses.replace(CONFIGS[kind], depth=5, drop_path_rate=0.4)
    model = nnx.eval_shape(lambda: Encoder(config, rngs=nnx.Rngs(0)))
    rates = [block.drop_path.rate for block in model.encoder.blocks]
    np.testing.assert_allclose(rates, [0, 0.1, 0.2, 0.3, 0.4])


@pytest.mark.parametrize("kind", CONFIGS)
def test_registers_and_cls_are_no_tokens(kind):
    """A change of one patch is felt most in its own token."""
    model, images = make(kind), noise(1, 56, 56, 3)
    if kind != "dinov2":
        images = noise(1, 64, 64, 3)
    side = CONFIGS[kind].patch_size
    changed = images.at[:, side : 2 * side, :side].add(1.0)
    moved = features(model, changed)["tokens"] - features(model, images)["tokens"]
    assert np.unravel_index(np.abs(moved[0]).sum(-1).argmax(), (4, 4)) == (1, 0)


@pytest.mark.parametrize(
    ("kind", "shape", "sentence"),
    [
        ("vit", (1, 30, 32, 3), "multiples of the patch size 16, not 30×32"),
        ("sam", (1, 80, 16, 3), "positions for 4×4 patches, the image has 5×1"),
        ("dinov2", (1, 13, 64, 3), "14 or more, not 13×64"),
        ("vit", (32, 32, 3), r"\(B, H, W, 3\)"),
    ],
)
def test_images_that_it_cannot_take_are_refused(kind, shape, sentence):
    with pytest.raises(InputError, match=sentence):
        make(kind)(np.zeros(shape, np.float32))


def test_a_cellvit_holds_the_same_encoder():
    names = {}
    for network, config in ((Encoder, CONFIGS["sam"]), (CellViT, over(CONFIGS["sam"]))):
        model = nnx.eval_shape(lambda n=network, c=config: n(c, rngs=nnx.Rngs(0)))
        flat = nnx.to_flat_state(nnx.state(model.encoder))
        names[network] = {path: variable.shape for path, variable in flat if path[0] != "head"}
    assert names[Encoder] == names[CellViT]


def over(encoder: EncoderConfig) -> ModelConfig:
    return ModelConfig.over(encoder, skip_layers=(1, 1, 2, 2), widths=small_config().widths)


@pytest.mark.parametrize(
    ("encoder", "architecture"),
    [
        (EncoderConfig.hipt_256(), "cellvit_256"),
        (EncoderConfig.sam_l(), "cellvit_sam_l"),
        (EncoderConfig.uni(), "cellvit_uni"),
        (EncoderConfig.virchow2(), "cellvit_virchow2"),
    ],
)
def test_over_a_published_encoder_stands_the_published_network(encoder, architecture):
    published = getattr(ModelConfig, architecture)
    # but for Virchow's gate, which the published networks changed
    assert ModelConfig.over(encoder) == published(gate=encoder.gate)
    assert ModelConfig.over(encoder, 3, 0).num_classes == 3


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_config_survives_json(kind):
    assert EncoderConfig.from_dict(CONFIGS[kind].to_dict()) == CONFIGS[kind]
    with pytest.raises(InputError, match="colour"):
        EncoderConfig.from_dict(CONFIGS[kind].to_dict() | {"colour": 1})
