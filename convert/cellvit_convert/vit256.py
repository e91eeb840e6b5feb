"""CellViT-256 and the generic CellViT: a plain ViT, with three branches or one shared trunk."""

import math

from cellvit_convert import decoder, encoder
from cellvit_convert.content import Content
from cellvit_convert.rules import CONV, LAYER_NORM, LINEAR, Parameter, Rule, same
from cellvit_jax.models import ModelConfig

TOKENS = {"cls_token": Parameter("cls_token"), "pos_embed": Parameter("pos_embed")}

ENCODER = (
    same("encoder", TOKENS),
    Rule("encoder.patch_embed.proj", "encoder.patch_embed", CONV),
    same("encoder.blocks.*.norm1", LAYER_NORM),
    same("encoder.blocks.*.attn.qkv", LINEAR),
    same("encoder.blocks.*.attn.proj", LINEAR),
    same("encoder.blocks.*.norm2", LAYER_NORM),
    same("encoder.blocks.*.mlp.fc1", LINEAR),
    same("encoder.blocks.*.mlp.fc2", LINEAR),
    same("encoder.norm", LAYER_NORM),
    same("encoder.head", LINEAR),
)


def rules(config: ModelConfig) -> tuple[Rule, ...]:
    """The table of a network's names."""
    return (*ENCODER, *decoder.rules(config))


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
