"""CellViT-Virchow and -Virchow2: as UNI, with gated MLPs and perhaps register tokens."""

from cellvit_convert import encoder, uni
from cellvit_convert.content import Content
from cellvit_jax.models import ModelConfig


def recognise(content: Content) -> bool:
    """Whether this is a ViT with LayerScale and gated MLPs under a CellViT decoder."""
    return uni.scaled(content) and encoder.gated(content)


def config(content: Content) -> ModelConfig:
    """The architecture, from shapes; what these cannot tell from the checkpoint's own config."""
    return uni.measured(content, ModelConfig.cellvit_virchow(), ModelConfig.cellvit_virchow2())
