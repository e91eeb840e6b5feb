"""CellViT-SAM-B, -L and -H: the image encoder of Segment Anything."""

from collections import Counter

from cellvit_convert import decoder, encoder
from cellvit_convert.content import Content
from cellvit_convert.rules import CONV, LAYER_NORM, LINEAR, Parameter, Rule
from cellvit_jax.models import ModelConfig

POSITIONS = {"pos_embed": Parameter("pos_embed")}
DISTANCES = {"rel_pos_h": Parameter("rel_pos_h"), "rel_pos_w": Parameter("rel_pos_w")}
PRESETS = (
    ModelConfig.cellvit_sam_b(),
    ModelConfig.cellvit_sam_l(),
    ModelConfig.cellvit_sam_h(),
)

ENCODER = (
    Rule(r"encoder", "encoder", POSITIONS),
    Rule(r"encoder\.patch_embed\.proj", "encoder.patch_embed", CONV),
    Rule(r"encoder\.blocks\.(\d+)\.(norm\d)", r"encoder.blocks.\1.\2", LAYER_NORM),
    Rule(r"encoder\.blocks\.(\d+)\.attn", r"encoder.blocks.\1.attn", DISTANCES),
    Rule(r"encoder\.blocks\.(\d+)\.attn\.(qkv|proj)", r"encoder.blocks.\1.attn.\2", LINEAR),
    Rule(r"encoder\.blocks\.(\d+)\.mlp\.lin(\d)", r"encoder.blocks.\1.mlp.fc\2", LINEAR),
    Rule(r"encoder\.neck\.([02])", r"encoder.neck.layers.\1", CONV),
    Rule(r"encoder\.neck\.([13])", r"encoder.neck.layers.\1", LAYER_NORM),
    Rule(r"classifier_head", "encoder.head", LINEAR),
)

RULES = (*ENCODER, *decoder.RULES)


def recognise(content: Content) -> bool:
    """Whether this is SAM's image encoder under a CellViT decoder, by its keys."""
    return (
        encoder.recognise(content)
        and decoder.recognise(content)
        and content.has(encoder.BLOCK + r"attn\.rel_pos_[hw]")
    )


def config(content: Content) -> ModelConfig:
    """The architecture, from shapes."""
    dim = encoder.width(content)
    hidden = content.size(encoder.BLOCK + r"mlp\.lin1\.(weight|bias)", default=4 * dim)
    side = content.size(r"encoder\.pos_embed", axis=1, default=64)
    window, global_layers = _windows(content, 2 * side - 1)
    head = content.size(encoder.BLOCK + r"attn\.rel_pos_[hw]", axis=1)
    fields = encoder.sizes(content) | {
        "encoder": "sam",
        "num_heads": max(dim // head, 1),
        "global_layers": global_layers,
    }
    return ModelConfig.cellvit(
        **fields,
        **decoder.config(content),
        **encoder.rates(content),
        architecture=encoder.name(fields, PRESETS, "cellvit_sam"),
        num_tissues=content.size(r"classifier_head\.(weight|bias)", default=0),
        position_grid=side,
        window_size=window,
        mlp_ratio=hidden / dim,
    )


def _windows(content: Content, whole: int) -> tuple[int, tuple[int, ...]]:
    """The windows' side, and the blocks (from 1) that have as many distances as the whole grid."""
    tables = {
        int(match[1]): tensor.shape[0]
        for match, tensor in content.matches(encoder.BLOCK + r"attn\.rel_pos_[hw]")
        if tensor.ndim
    }
    sides = Counter((length + 1) // 2 for length in tables.values() if length != whole)
    window = sides.most_common(1)[0][0] if sides else ModelConfig.window_size
    return window, tuple(sorted(i + 1 for i, length in tables.items() if length == whole))
