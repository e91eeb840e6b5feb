"""A network small enough to test with: every part of a CellViT, in few channels."""

from functools import partial

import jax
from flax import nnx

from cellvit_jax import checkpoint
from cellvit_jax.card import ModelCard, cell_classes
from cellvit_jax.models import CellViT, DecoderWidths, ModelConfig

CARD = ModelCard(cell_classes("Round", "Long"), tissues=("Colon", "Skin", "Lung"), tile=64)


def small_config(**fields) -> ModelConfig:
    values = {
        "embed_dim": 16,
        "depth": 4,
        "num_heads": 2,
        "skip_layers": (1, 2, 3, 4),
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
