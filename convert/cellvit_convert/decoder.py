"""The decoder's names, which are the same under every encoder: three branches or one trunk."""

from typing import Any

from cellvit_convert.content import Content
from cellvit_convert.rules import BATCH_NORM, CONV, UPSAMPLE, Rule

BRANCH = r"(?P<branch>nuclei_binary_map|hv_map|nuclei_type_map)s?_decoder"


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


BRANCHES = (
    *_skip_paths("", ""),
    *_trunk(BRANCH, r"\g<branch>"),
    Rule(rf"{BRANCH}\.decoder0_header\.2", r"heads.\g<branch>", CONV),
)

SHARED = (
    *_skip_paths(r"decoder\.", "_skip"),
    *_trunk("decoder", "shared"),
    Rule(BRANCH, r"heads.\g<branch>", CONV),
)

RULES = (*BRANCHES, *SHARED)


def recognise(content: Content) -> bool:
    """Whether there is a CellViT decoder, by its keys."""
    return content.has(r"(decoder\.)?decoder0(_skip)?\.\d+\.block\.\d+\.weight")


def config(content: Content) -> dict[str, Any]:
    """The fields of a `ModelConfig` that the decoder's tensors tell."""
    return {
        "num_classes": _outputs(content, "nuclei_type_maps"),
        "regression_loss": _outputs(content, "nuclei_binary_map") == 4,
        "shared_trunk": content.has(r"decoder\..*"),
    }


def _outputs(content: Content, branch: str) -> int:
    return content.size(rf"{branch}_decoder\.(decoder0_header\.2\.)?(weight|bias)")
