"""UNI, alone or under CellViT-UNI: a ViT trained with DINOv2, whose residuals are scaled."""

import math

from cellvit_convert import decoder, encoder
from cellvit_convert.content import Content
from cellvit_convert.rules import CONV, LAYER_NORM, LINEAR, Parameter, Rule, same
from cellvit_jax.models import EncoderConfig, ModelConfig

TOKENS = {name: Parameter(name) for name in ("cls_token", "reg_token", "pos_embed")}
SCALE = {"gamma": Parameter("gamma")}

ENCODER = (
    same("encoder", TOKENS),
    Rule("encoder.patch_embed.proj", "encoder.patch_embed", CONV),
    same("encoder.blocks.*.norm1", LAYER_NORM),
    same("encoder.blocks.*.attn.qkv", LINEAR),
    same("encoder.blocks.*.attn.proj", LINEAR),
    same("encoder.blocks.*.ls1", SCALE),
    same("encoder.blocks.*.norm2", LAYER_NORM),
    same("encoder.blocks.*.mlp.fc1", LINEAR),
    same("encoder.blocks.*.mlp.fc2", LINEAR),
    same("encoder.blocks.*.ls2", SCALE),
    same("encoder.norm", LAYER_NORM),
    same("encoder.head", LINEAR),
)


def rules(config: ModelConfig) -> tuple[Rule, ...]:
    """The table of a network's names; register tokens are Virchow2's."""
    return (*ENCODER, *decoder.rules(config))


def recognise(content: Content) -> bool:
    """Whether the encoder is a ViT with LayerScale and plain MLPs."""
    return scaled(content) and not encoder.gated(content)


def scaled(content: Content) -> bool:
    """Whether the encoder is a ViT with LayerScale, by its keys."""
    return encoder.recognise(content) and content.has(encoder.BLOCK + r"ls\d\.gamma")


def config(content: Content) -> EncoderConfig:
    """The encoder, from shapes; what these cannot tell from the checkpoint's own config."""
    return measured(content, EncoderConfig.uni())


def measured(content: Content, *presets: EncoderConfig) -> EncoderConfig:
    """What the presets have in common, with the checkpoint's sizes, and the name that fits these.

    The number of heads leaves no trace in the tensors: for a width other than the published one
    the checkpoint's config has to say it.
    """
    common, dim = presets[0], encoder.width(content)
    registers = content.size(r"encoder\.reg_token", axis=1, default=0)
    positions = content.size(r"encoder\.pos_embed", axis=1, default=1 + registers)
    hidden = content.size(encoder.BLOCK + r"mlp\.fc1\.(weight|bias)", default=dim)
    heads = (common.num_heads,) if dim == common.embed_dim else ()
    return encoder.named(
        presets,
        encoder=common.encoder,
        embed_dim=dim,
        depth=encoder.depth(content),
        num_heads=content.integers("model.num_heads", heads)[0],
        patch_size=encoder.patch_size(content, common.patch_size),
        position_grid=math.isqrt(max(positions - 1 - registers, 0)),
        mlp_ratio=hidden / dim,
        gate=common.gate,
        num_registers=registers,
        any_size=common.any_size,
    )
