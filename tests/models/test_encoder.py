"""Encoders alone: what they give, and the images they take."""

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
