"""Virchow and Virchow2: as UNI, with gated MLPs and perhaps register tokens."""

from cellvit_convert import encoder, uni
from cellvit_convert.content import Content
from cellvit_jax.models import EncoderConfig


def recognise(content: Content) -> bool:
    """Whether the encoder is a ViT with LayerScale and gated MLPs."""
    return uni.scaled(content) and encoder.gated(content)


def config(content: Content) -> EncoderConfig:
    """The encoder, from shapes; what these cannot tell from the checkpoint's own config."""
    return uni.measured(content, EncoderConfig.virchow(), EncoderConfig.virchow2())
