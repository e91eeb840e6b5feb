"""CellViT-256 and the generic CellViT: a plain ViT, with three branches or one shared trunk."""

import math
from typing import Any

from cellvit_convert.content import Content
from cellvit_convert.rules import (
    BATCH_NORM,
    CONV,
    LAYER_NORM,
    LINEAR,
    UPSAMPLE,
    Parameter,
    Rule,
)
from cellvit_jax.models import ModelConfig

BRANCH = r"(?P<branch>nuclei_binary_map|hv_map|nuclei_type_map)s?_decoder"
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


def _skip_paths(prefix: str, suffix: str) -> tuple[Rule, ...]:
    level0, level = (rf"{prefix}decoder{n}{suffix}\.(\d)\.block" for n in ("0", r"(\d)"))
    return (
        Rule(rf"{level0}\.0", r"skip_paths.level0.layers.\1.conv", CONV),
        Rule(rf"{level0}\.1", r"skip_paths.level0.layers.\1.norm", BATCH_NORM),
        Rule(rf"{level}\.0", r"skip_paths.level\1.layers.\2.up", UPSAMPLE),
        Rule(rf"{level}\.1", r"skip_paths.level\1.layers.\2.block.conv", CONV),
        Rule(rf"{level}\.2", r"skip_paths.level\1.layers.\2.block.norm", BATCH_NORM),
    )


def _trunk(prefix: str, name: str) -> tuple[Rule, ...]:
    block = rf"{prefix}\.decoder(?P<n>\d)_(upsampler|header)\.(?P<i>\d)\.block"
    return (
        Rule(rf"{prefix}\.bottleneck_upsampler", rf"trunks.{name}.up4", UPSAMPLE),
        Rule(rf"{prefix}\.decoder3_upsampler\.3", rf"trunks.{name}.up3", UPSAMPLE),
        Rule(rf"{prefix}\.decoder(?P<n>[12])_upsampler\.2", rf"trunks.{name}.up\g<n>", UPSAMPLE),
        Rule(rf"{block}\.0", rf"trunks.{name}.level\g<n>.layers.\g<i>.conv", CONV),
        Rule(rf"{block}\.1", rf"trunks.{name}.level\g<n>.layers.\g<i>.norm", BATCH_NORM),
    )


DECODER = (
    *_skip_paths("", ""),
    *_trunk(BRANCH, r"\g<branch>"),
    Rule(rf"{BRANCH}\.decoder0_header\.2", r"heads.\g<branch>", CONV),
)

SHARED_DECODER = (
    *_skip_paths(r"decoder\.", "_skip"),
    *_trunk("decoder", "shared"),
    Rule(BRANCH, r"heads.\g<branch>", CONV),
)

RULES = (*ENCODER, *DECODER, *SHARED_DECODER)


def recognise(content: Content) -> bool:
    """Whether this is a plain ViT under a CellViT decoder, by its keys."""
    return (
        content.has(r"encoder\.blocks\.\d+\.attn\.qkv\.weight")
        and content.has(r"(decoder\.)?decoder0(_skip)?\.\d+\.block\.\d+\.weight")
        and not content.has(r"encoder\..*(gamma|rel_pos_[hw]|reg_token)|encoder\.neck\..*")
    )


def config(content: Content) -> ModelConfig:
    """The architecture, from shapes; what these cannot tell from the checkpoint's own config."""
    dim = content.size(r"encoder\.blocks\.\d+\.norm\d\.(weight|bias)")
    hidden = content.size(r"encoder\.blocks\.\d+\.mlp\.fc1\.(weight|bias)", default=4 * dim)
    positions = content.size(r"encoder\.pos_embed", axis=1, default=197)
    depth = content.count(r"encoder\.blocks\.(\d+)\..*")
    encoder: dict[str, Any] = {
        "embed_dim": dim,
        "depth": depth,
        "num_heads": content.integers("model.num_heads", (max(dim // 64, 1),))[0],
        "skip_layers": content.integers("model.extract_layers", _quarters(depth)),
    }
    preset = ModelConfig.cellvit_256()
    published = all(getattr(preset, name) == value for name, value in encoder.items())
    return ModelConfig.cellvit(
        **encoder,
        architecture=preset.architecture if published else "cellvit",
        num_classes=_outputs(content, "nuclei_type_maps"),
        num_tissues=content.size(r"encoder\.head\.(weight|bias)", default=0),
        position_grid=math.isqrt(positions - 1),
        mlp_ratio=hidden / dim,
        regression_loss=_outputs(content, "nuclei_binary_map") == 4,
        shared_trunk=content.has(r"decoder\..*"),
        drop_rate=content.rate("training.drop_rate"),
        attention_drop_rate=content.rate("training.attn_drop_rate"),
        drop_path_rate=content.rate("training.drop_path_rate"),
    )


def _outputs(content: Content, branch: str) -> int:
    return content.size(rf"{branch}_decoder\.(decoder0_header\.2\.)?(weight|bias)")


def _quarters(depth: int) -> tuple[int, ...]:
    """The blocks whose outputs the published models look at; unknown for other depths."""
    return tuple(depth * i // 4 for i in range(1, 5)) if depth % 4 == 0 else ()
