"""CellViT over an encoder of any family: what is measured, and the table of its names."""

import dataclasses
from collections.abc import Callable

from cellvit_convert import backbones, decoder, sam, uni, vit256
from cellvit_convert.content import Content
from cellvit_convert.rules import Rule
from cellvit_jax.models import ModelConfig
from cellvit_jax.models.config import quarters

RULES: dict[str, Callable[[ModelConfig], tuple[Rule, ...]]] = {  # by the config's encoder
    "vit": vit256.rules,
    "sam": sam.rules,
    "dinov2": uni.rules,
}


def rules(config: ModelConfig, prefix: str = "encoder.") -> tuple[Rule, ...]:
    """The table of a network's names, whose encoder is always called that."""
    return RULES[config.encoder](config)


def recognise(content: Content) -> bool:
    """Whether this is a known encoder under a CellViT decoder, by its keys."""
    return decoder.recognise(content) and backbones.recognise(content)


def config(content: Content) -> ModelConfig:
    """The architecture, from shapes; what these cannot tell from the checkpoint's own config."""
    encoder = backbones.config(content)
    published = quarters(encoder.depth) if encoder.depth % 4 == 0 else ()
    skips = content.integers("model.extract_layers", published)
    if skips != published:
        encoder = dataclasses.replace(encoder, architecture=f"{encoder.encoder}_encoder")
    drops_paths = encoder.encoder == "vit"
    return ModelConfig.over(
        encoder,
        **decoder.config(content),
        num_tissues=content.size(r"(encoder\.|classifier_)head\.(weight|bias)", default=0),
        skip_layers=skips,
        gate=encoder.gate and "gelu",  # the foundation models gate with SiLU
        drop_rate=content.rate("training.drop_rate"),
        attention_drop_rate=content.rate("training.attn_drop_rate"),
        drop_path_rate=content.rate("training.drop_path_rate") if drops_paths else 0.0,
    )
