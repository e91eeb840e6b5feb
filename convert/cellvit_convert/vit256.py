"""The plain ViT of CellViT-256, of the generic CellViT and of HIPT."""

import math

from cellvit_convert import decoder, encoder
from cellvit_convert.content import Content
from cellvit_convert.rules import CONV, LAYER_NORM, LINEAR, Parameter, Rule, same
from cellvit_jax.models import EncoderConfig, ModelConfig

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
    """Whether the encoder is a plain ViT, by its keys."""
    return encoder.recognise(content) and not content.has(
        r"encoder\..*(gamma|rel_pos_[hw]|reg_token)|encoder\.neck\..*"
    )


def config(content: Content) -> EncoderConfig:
    """The encoder, from shapes; what these cannot tell from the checkpoint's own config."""
    dim = encoder.width(content)
    hidden = content.size(encoder.BLOCK + r"mlp\.fc1\.(weight|bias)", default=4 * dim)
    positions = content.size(r"encoder\.pos_embed", axis=1, default=197)
    return encoder.named(
        [EncoderConfig.hipt_256()],
        encoder="vit",
        embed_dim=dim,
        depth=encoder.depth(content),
        num_heads=content.integers("model.num_heads", (max(dim // 64, 1),))[0],
        patch_size=encoder.patch_size(content, 16),
        position_grid=math.isqrt(positions - 1),
        mlp_ratio=hidden / dim,
    )
