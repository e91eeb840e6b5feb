"""CellViT-256 and the generic CellViT: a plain ViT, with three branches or one shared trunk."""

import math

from cellvit_convert import decoder, encoder
from cellvit_convert.content import Content
from cellvit_convert.rules import CONV, LAYER_NORM, LINEAR, Parameter, Rule
from cellvit_jax.models import ModelConfig

TOKENS = {"cls_token": Parameter("cls_token"), "pos_embed": Parameter("pos_embed")}

ENCODER = (
    Rule(r"encoder", "encoder", TOKENS),
    Rule(r"encoder\.patch_embed\.proj", "encoder.patch_embed", CONV),
    Rule(r"encoder\.blocks\.(\d+)\.(norm\d)", r"encoder.blocks.\1.\2", LAYER_NORM),
    Rule(r"encoder\.blocks\.(\d+)\.attn\.(qkv|proj)", r"encoder.blocks.\1.attn.\2", LINEAR),
    Rule(r"encoder\.blocks\.(\d+)\.mlp\.(fc\d)", r"encoder.blocks.\1.mlp.\2", LINEAR),
    Rule(r"encoder\.norm", "encoder.norm", LAYER_NORM),
    Rule(r"encoder\.head", "encoder.head", LINEAR),
)

RULES = (*ENCODER, *decoder.RULES)


def recognise(content: Content) -> bool:
    """Whether this is a plain ViT under a CellViT decoder, by its keys."""
    return (
        encoder.recognise(content)
        and decoder.recognise(content)
        and not content.has(r"encoder\..*(gamma|rel_pos_[hw]|reg_token)|encoder\.neck\..*")
    )


def config(content: Content) -> ModelConfig:
    """The architecture, from shapes; what these cannot tell from the checkpoint's own config."""
    dim = encoder.width(content)
    hidden = content.size(r"encoder\.blocks\.\d+\.mlp\.fc1\.(weight|bias)", default=4 * dim)
    positions = content.size(r"encoder\.pos_embed", axis=1, default=197)
    heads = content.integers("model.num_heads", (max(dim // 64, 1),))[0]
    fields = encoder.sizes(content) | {"num_heads": heads}
    return ModelConfig.cellvit(
        **fields,
        **decoder.config(content),
        **encoder.rates(content),
        architecture=encoder.name(fields, [ModelConfig.cellvit_256()], "cellvit"),
        num_tissues=content.size(r"encoder\.head\.(weight|bias)", default=0),
        position_grid=math.isqrt(positions - 1),
        mlp_ratio=hidden / dim,
        drop_path_rate=content.rate("training.drop_path_rate"),
    )
