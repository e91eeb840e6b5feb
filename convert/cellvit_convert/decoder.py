"""The decoder's names, which are the same under every encoder: three branches or one trunk."""

from collections.abc import Iterator
from typing import Any

from cellvit_convert.content import Content
from cellvit_convert.rules import BATCH_NORM, CONV, UPSAMPLE, Rule
from cellvit_jax.models import ModelConfig

BRANCHES = {  # their names and ours
    "nuclei_binary_map_decoder": "nuclei_binary_map",
    "hv_map_decoder": "hv_map",
    "nuclei_type_maps_decoder": "nuclei_type_map",
}


def rules(config: ModelConfig) -> tuple[Rule, ...]:
    """The table of a network's decoder."""
    if config.shared_trunk:
        heads = (Rule(theirs, f"heads.{ours}", CONV) for theirs, ours in BRANCHES.items())
        return (*_skip_paths("decoder.", "_skip"), *_trunk("decoder", "shared"), *heads)
    return (*_skip_paths("", ""), *(rule for branch in BRANCHES for rule in _branch(branch)))


def _skip_paths(prefix: str, suffix: str) -> Iterator[Rule]:
    level0, ours0 = f"{prefix}decoder0{suffix}.*.block", "skip_paths.level0.layers.*"
    yield Rule(f"{level0}.0", f"{ours0}.conv", CONV)
    yield Rule(f"{level0}.1", f"{ours0}.norm", BATCH_NORM)
    for n in (1, 2, 3):
        block, ours = f"{prefix}decoder{n}{suffix}.*.block", f"skip_paths.level{n}.layers.*"
        yield Rule(f"{block}.0", f"{ours}.up", UPSAMPLE)
        yield Rule(f"{block}.1", f"{ours}.block.conv", CONV)
        yield Rule(f"{block}.2", f"{ours}.block.norm", BATCH_NORM)


def _branch(theirs: str) -> Iterator[Rule]:
    yield from _trunk(theirs, BRANCHES[theirs])
    yield Rule(f"{theirs}.decoder0_header.2", f"heads.{BRANCHES[theirs]}", CONV)


def _trunk(theirs: str, name: str) -> Iterator[Rule]:
    ours = f"trunks.{name}"
    yield Rule(f"{theirs}.bottleneck_upsampler", f"{ours}.up4", UPSAMPLE)
    for n, last in ((3, 3), (2, 2), (1, 2)):
        yield from _blocks(f"{theirs}.decoder{n}_upsampler", f"{ours}.level{n}")
        yield Rule(f"{theirs}.decoder{n}_upsampler.{last}", f"{ours}.up{n}", UPSAMPLE)
    yield from _blocks(f"{theirs}.decoder0_header", f"{ours}.level0")


def _blocks(theirs: str, ours: str) -> Iterator[Rule]:
    yield Rule(f"{theirs}.*.block.0", f"{ours}.layers.*.conv", CONV)
    yield Rule(f"{theirs}.*.block.1", f"{ours}.layers.*.norm", BATCH_NORM)


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
