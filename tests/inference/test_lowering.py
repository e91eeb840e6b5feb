"""Every network as inference runs it lowers for TPU and CUDA, on a machine that has neither.

Weights stay abstract: nothing is computed, and nothing takes memory.
"""

from functools import partial

import jax
import jax.export
import jax.numpy as jnp
import pytest
from flax import nnx

from cellvit_jax import checkpoint
from cellvit_jax.card import ModelCard, cell_classes
from cellvit_jax.inference.predictor import _predict
from cellvit_jax.models import EncoderConfig, ModelConfig, SamConfig, folded

PLATFORMS = ("tpu", "cuda")
# preset, side of the tiles that it is used at
QUICK = (("cellvit_nano", 256), ("cellvit_tiny", 256), ("cellvit_256", 256), ("cellvit_sam_b", 256))
DEEP = (
    ("cellvit_sam_l", 256),
    ("cellvit_sam_h", 256),
    ("cellvit_sam_h", 1024),
    ("cellvit_uni", 256),
    ("cellvit_virchow", 512),
    ("cellvit_virchow2", 512),
)
CASES = (*QUICK, *(pytest.param(*case, marks=pytest.mark.slow) for case in DEEP))

ALONE = (  # encoders and whole SAMs, which take images and prompts as they are
    EncoderConfig.hipt_256,
    SamConfig.sam_med2d_b,
    *(
        pytest.param(preset, marks=pytest.mark.slow)
        for preset in (
            EncoderConfig.sam_b,
            EncoderConfig.sam_l,
            EncoderConfig.sam_h,
            EncoderConfig.uni,
            EncoderConfig.virchow,
            EncoderConfig.virchow2,
            SamConfig.sam_b,
            SamConfig.sam_l,
            SamConfig.sam_h,
            SamConfig.sam_med2d_l,
            SamConfig.sam_med2d_h,
        )
    ),
)


def lowered(config: ModelConfig, side: int, dtype=jnp.float32) -> jax.export.Exported:
    """The program of `Predictor` for two tiles, for all platforms at once."""
    model = checkpoint.network(config, dtype=dtype)
    model = nnx.view(model, deterministic=True, use_running_average=True)
    graphdef, state = nnx.split(nnx.eval_shape(folded, model))
    card = ModelCard(cell_classes(*"abcdef"[: config.num_classes - 1]))
    predict = jax.jit(partial(_predict, graphdef, card, True, False))
    tiles = jax.ShapeDtypeStruct((2, side, side, 3), jnp.uint8)
    return jax.export.export(predict, platforms=PLATFORMS)(nnx.to_pure_dict(state), tiles)


@pytest.mark.parametrize(("preset", "side"), CASES)
def test_presets_lower(preset: str, side: int) -> None:
    config = getattr(ModelConfig, preset)()
    exported = lowered(config, side)
    assert exported.platforms == PLATFORMS
    maps = jax.tree.unflatten(exported.out_tree, exported.out_avals)
    assert maps["kinds"].shape == (2, side, side)
    assert maps["tokens"].shape[-1] == config.embed_dim


def test_every_preset_is_among_the_cases() -> None:
    presets = {name for name in vars(ModelConfig) if name.startswith("cellvit_")}
    assert presets == {preset for preset, _ in (*QUICK, *DEEP)}


# What the large presets are made of, in two blocks and few channels.
@pytest.mark.parametrize("preset", ["cellvit_uni", "cellvit_virchow2", "cellvit_sam_h"])
def test_the_layers_of_large_presets_lower_in_bfloat16(preset: str) -> None:
    small = {"embed_dim": 64, "depth": 2, "num_heads": 2, "skip_layers": (1, 1, 2, 2)}
    globals_ = {"global_layers": (2,)} if "sam" in preset else {}
    config = getattr(ModelConfig, preset)(**small, **globals_)
    assert lowered(config, 256, jnp.bfloat16).platforms == PLATFORMS


@pytest.mark.parametrize("preset", ALONE, ids=lambda preset: preset.__qualname__)
def test_encoders_and_sams_lower(preset) -> None:
    config = preset()
    model = nnx.view(checkpoint.network(config), deterministic=True, raise_if_not_found=False)
    graphdef, state = nnx.split(model)
    side = getattr(config, "image_size", 224)
    arrays = [jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)]
    if isinstance(config, SamConfig):
        arrays += [jax.ShapeDtypeStruct((1, 3, 2), jnp.float32)]
        arrays += [jax.ShapeDtypeStruct((1, 3), jnp.int32)]
    program = jax.jit(lambda state, *arrays: nnx.merge(graphdef, state)(*arrays))
    exported = jax.export.export(program, platforms=PLATFORMS)(nnx.to_pure_dict(state), *arrays)
    assert exported.platforms == PLATFORMS
