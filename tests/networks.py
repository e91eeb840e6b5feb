"""A network small enough to test with: every part of a CellViT, in few channels and two blocks."""

import dataclasses
import math
import zlib
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cellvit_jax import checkpoint
from cellvit_jax.card import ModelCard, cell_classes
from cellvit_jax.models import (
    CellClassifier,
    CellViT,
    DecoderWidths,
    Encoder,
    EncoderConfig,
    HeadConfig,
    ModelConfig,
    Sam,
    SamConfig,
)

CARD = ModelCard(cell_classes("Round", "Long"), tissues=("Colon", "Skin", "Lung"), tile=64)
ENCODER_CARD = ModelCard(
    (), mean=(0.1, 0.2, 0.3), provenance="Of a test.", license="CC0", citation="X"
)

FOUR = {"depth": 4, "skip_layers": (1, 2, 3, 4)}  # blocks, in place of two


def small_config(**fields) -> ModelConfig:
    values = {
        "embed_dim": 16,
        "depth": 2,
        "num_heads": 2,
        "skip_layers": (1, 1, 2, 2),
        "widths": DecoderWidths(4, 4, 6, 8, bottleneck=10, skip1=8, skip2=6),
        "num_classes": 3,
        "num_tissues": 3,
        "position_grid": 4,
    }
    return ModelConfig.cellvit(**(values | fields))


def make(config: ModelConfig, seed: int = 0) -> CellViT:
    return CellViT(config, rngs=nnx.Rngs(seed))


def inference(model: CellViT) -> CellViT:
    return nnx.view(model, deterministic=True, use_running_average=True)


@partial(jax.jit, static_argnames=("tokens", "skips"))
def run(model: CellViT, images: jax.Array, *, tokens: bool = False, skips: bool = False):
    """The maps of `images` in inference mode, compiled once for a shape."""
    return inference(model)(images, tokens=tokens, skips=skips)


def noise(*shape: int, seed: int = 0) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


def save_small(path, card: ModelCard = CARD, **fields) -> CellViT:
    """Write a checkpoint of a small network and return the network."""
    config = small_config(**fields)
    model = make(config)
    checkpoint.save(path, nnx.state(model, checkpoint.WEIGHTS), config, card)
    return model


SAM_CARD = ModelCard(cell_classes(), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), tile=64)


def small_sam_config(**fields) -> SamConfig:
    """A SAM for images of 64 pixels; of what is published, only the encoder is small."""
    values = {
        "architecture": "sam",
        "embed_dim": 32,
        "depth": 2,
        "num_heads": 2,
        "global_layers": (2,),
        "position_grid": 4,
        "window_size": 3,
    }
    return SamConfig(**(values | fields))


@cache
def small_sam(**fields) -> Sam:
    """A network ready for inference, quicker to fill than to initialise."""
    model = nnx.eval_shape(lambda: Sam(small_sam_config(**fields), rngs=nnx.Rngs(0)))
    nnx.update(model, nnx.map_state(fill, nnx.state(model)))
    model.card = SAM_CARD
    return nnx.view(model, deterministic=True)


def fill(path: tuple, variable: nnx.Variable) -> nnx.Variable:
    rng = np.random.default_rng(zlib.crc32(str(path).encode()))
    values = rng.standard_normal(variable.shape, np.float32)
    if path[-1] == "kernel":
        values /= math.sqrt(math.prod(variable.shape[:-1]))
    return variable.replace(jnp.asarray(values + (path[-1] == "scale")))


def filled(config: ModelConfig, dtype=jnp.float32) -> CellViT:
    """A network ready for inference whose weights are all noise, biases and statistics too."""
    model = nnx.eval_shape(lambda: CellViT(config, dtype=dtype, rngs=nnx.Rngs(0)))
    nnx.update(model, nnx.map_state(fill_positive, nnx.state(model)))
    return inference(model)


def fill_positive(path: tuple, variable: nnx.Variable) -> nnx.Variable:
    values = fill(path, variable)
    return values.replace(jnp.abs(values[...]) + 0.1) if path[-1] == "var" else values


def save_small_sam(path, **fields) -> Sam:
    """Write a checkpoint of a small SAM and return the network."""
    model = small_sam(**fields)
    checkpoint.save(path, nnx.state(model, checkpoint.WEIGHTS), model.config, SAM_CARD)
    return model


def save_head(path, token_dim: int, names: tuple[str, ...] = ("Tumour", "Immune", "Stroma")):
    """Write a checkpoint of a small cell classifier head."""
    config = HeadConfig(token_dim, hidden_dim=24, num_classes=len(names))
    weights = nnx.state(CellClassifier(config, rngs=nnx.Rngs(26)), checkpoint.WEIGHTS)
    checkpoint.save(path, weights, config, ModelCard(cell_classes(*names)))


def encoder_config(**fields) -> EncoderConfig:
    """The encoder of `small_config(**fields)`, alone, of four blocks."""
    config = small_config(**({"depth": 4} | fields))
    values = {f.name: getattr(config, f.name) for f in dataclasses.fields(EncoderConfig)}
    alone = {"skip_layers": (), "num_tissues": 0, "architecture": f"{config.encoder}_encoder"}
    return EncoderConfig(**(values | alone))


def save_encoder(path, **fields):
    """Write a checkpoint of a small encoder alone and return its place."""
    config = encoder_config(**fields)
    model = Encoder(config, rngs=nnx.Rngs(7))
    checkpoint.save(path, nnx.state(model, checkpoint.WEIGHTS), config, ENCODER_CARD)
    return path
