"""What vision transformers under a CellViT decoder have in common, whatever their family."""

from collections.abc import Sequence
from typing import Any

from cellvit_convert.content import Content
from cellvit_jax.models import ModelConfig

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


def sizes(content: Content) -> dict[str, Any]:
    """Width, depth and the blocks that the decoder looks at."""
    depth = content.count(BLOCK + ".*")
    return {
        "embed_dim": width(content),
        "depth": depth,
        "skip_layers": content.integers("model.extract_layers", _quarters(depth)),
    }


def rates(content: Content) -> dict[str, Any]:
    """The dropout rates of the training that made the checkpoint."""
    return {
        "drop_rate": content.rate("training.drop_rate"),
        "attention_drop_rate": content.rate("training.attn_drop_rate"),
    }


def name(fields: dict[str, Any], presets: Sequence[ModelConfig], generic: str) -> str:
    """The architecture's name: that of the preset which has all these fields, else `generic`."""
    for preset in presets:
        if all(getattr(preset, field) == value for field, value in fields.items()):
            return preset.architecture
    return generic


def _quarters(depth: int) -> tuple[int, ...]:
    """The blocks whose outputs the published models look at; unknown for other depths."""
    return tuple(depth * i // 4 for i in range(1, 5)) if depth % 4 == 0 else ()
