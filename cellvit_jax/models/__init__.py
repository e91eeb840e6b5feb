"""Flax NNX networks: arrays in, named arrays out."""

from cellvit_jax.models.cellvit import CellViT
from cellvit_jax.models.config import DecoderWidths, ModelConfig

__all__ = ["CellViT", "DecoderWidths", "ModelConfig"]
