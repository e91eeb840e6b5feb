"""Flax NNX networks: arrays in, named arrays out."""

from cellvit_jax.models.cellvit import CellViT
from cellvit_jax.models.config import DecoderWidths, EncoderConfig, ModelConfig
from cellvit_jax.models.encoder import Encoder
from cellvit_jax.models.folding import folded
from cellvit_jax.models.heads import CellClassifier, HeadConfig
from cellvit_jax.models.probes import Abmil, AbmilConfig, LinearProbe, LinearProbeConfig
from cellvit_jax.models.sam import Sam
from cellvit_jax.models.sam_config import SamConfig

__all__ = [
    "Abmil",
    "AbmilConfig",
    "CellClassifier",
    "CellViT",
    "DecoderWidths",
    "Encoder",
    "EncoderConfig",
    "HeadConfig",
    "LinearProbe",
    "LinearProbeConfig",
    "ModelConfig",
    "Sam",
    "SamConfig",
    "folded",
]
