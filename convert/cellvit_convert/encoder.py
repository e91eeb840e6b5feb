"""What vision transformers have in common, whatever their family and whatever is above them."""

from collections.abc import Sequence
from typing import Any

from cellvit_convert.content import Content
from cellvit_jax.models import EncoderConfig

BLOCK = r"encoder\.blocks\.(\d+)\."


def recognise(content: Content) -> bool:
    """Whether there is a vision transformer named `encoder`, by its keys."""
    return content.has(BLOCK + r"attn\.qkv\.weight")


def gated(content: Content) -> bool:
    """Whether the MLPs multiply two halves of their first layer's outputs."""
    return 2 * content.size(BLOCK + r"mlp\.fc2\.weight", axis=1, default=0) == content.size(
        BLOCK + r"mlp\.fc1\.weight", default=-1
    )


def width(content: Content) -> int:
    """The encoder's width."""
    return content.size(BLOCK + r"norm\d\.(weight|bias)")


def depth(content: Content) -> int:
    """The number of its blocks."""
    return content.count(BLOCK + ".*")


def patch_size(content: Content, default: int) -> int:
    """The side of its patches."""
    return content.size(r"encoder\.patch_embed\.proj\.weight", axis=2, default=default)


def named(presets: Sequence[EncoderConfig], **fields: Any) -> EncoderConfig:
    """The encoder of these fields, under the name of the preset that has them all, if one has."""
    names = [preset.architecture for preset in presets if _has(preset, fields)]
    return EncoderConfig(architecture=(*names, f"{fields['encoder']}_encoder")[0], **fields)


def _has(preset: EncoderConfig, fields: dict[str, Any]) -> bool:
    return all(getattr(preset, name) == value for name, value in fields.items())
