"""SAM and SAM-Med2D whole: the image encoder as under a CellViT, prompt encoder, mask decoder."""

import dataclasses
from collections import OrderedDict
from typing import Any

import numpy as np

from cellvit_convert import sam
from cellvit_convert.card import provenance
from cellvit_convert.content import Content
from cellvit_convert.rules import (
    CONV,
    EMBEDDING,
    LAYER_NORM,
    LINEAR,
    UPSAMPLE,
    Layout,
    Parameter,
    Rule,
    same,
)
from cellvit_jax.card import ModelCard, cell_classes
from cellvit_jax.errors import CheckpointError
from cellvit_jax.models import SamConfig

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # of RGB 0..255
CITATION = "Kirillov et al., Segment Anything, ICCV 2023, arXiv:2304.02643"
CITATION_MED2D = "Cheng et al., SAM-Med2D, 2023, arXiv:2308.16184"
PRESETS = (  # what the original code builds
    SamConfig.sam_b(),
    SamConfig.sam_l(),
    SamConfig.sam_h(),
    SamConfig.sam_med2d_b(),
    SamConfig.sam_med2d_l(),
    SamConfig.sam_med2d_h(),
)
SIZES = ("embed_dim", "depth", "num_heads", "global_layers")  # that the presets are told by
PREFIX = "image_encoder."
FREQUENCIES: Layout = {"positional_encoding_gaussian_matrix": Parameter("frequencies")}
DOWNSCALING = {0: CONV, 1: LAYER_NORM, 3: CONV, 4: LAYER_NORM, 6: CONV}
UPSCALING = {0: UPSAMPLE, 1: LAYER_NORM, 3: UPSAMPLE}
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "out_proj")
TRANSFORMER = "mask_decoder.transformer"
LAYER = f"{TRANSFORMER}.layers.*"


def attention(layer: str) -> tuple[Rule, ...]:
    """The four projections of an attention layer."""
    return tuple(same(f"{layer}.{name}", LINEAR) for name in PROJECTIONS)


def sequence(name: str, layouts: dict[int, Layout]) -> tuple[Rule, ...]:
    """The layers of a sequence, by their places in it."""
    return tuple(Rule(f"{name}.{i}", f"{name}.layers.{i}", to) for i, to in layouts.items())


IMAGE_ENCODER = tuple(
    Rule(f"image_{theirs}", f"image_{ours}", layout) for theirs, ours, layout in sam.ENCODER
)
PROMPT_ENCODER = (
    Rule("prompt_encoder.pe_layer", "prompt_encoder", FREQUENCIES),
    same("prompt_encoder.point_embeddings.*", EMBEDDING),
    same("prompt_encoder.not_a_point_embed", EMBEDDING),
    *sequence("prompt_encoder.mask_downscaling", DOWNSCALING),
    same("prompt_encoder.no_mask_embed", EMBEDDING),
)
MASK_DECODER = (
    *attention(f"{LAYER}.self_attn"),
    same(f"{LAYER}.norm1", LAYER_NORM),
    *attention(f"{LAYER}.cross_attn_token_to_image"),
    same(f"{LAYER}.norm2", LAYER_NORM),
    Rule(f"{LAYER}.mlp.lin1", f"{LAYER}.mlp.layers.0", LINEAR),
    Rule(f"{LAYER}.mlp.lin2", f"{LAYER}.mlp.layers.1", LINEAR),
    same(f"{LAYER}.norm3", LAYER_NORM),
    same(f"{LAYER}.norm4", LAYER_NORM),
    *attention(f"{LAYER}.cross_attn_image_to_token"),
    *attention(f"{TRANSFORMER}.final_attn_token_to_image"),
    same(f"{TRANSFORMER}.norm_final_attn", LAYER_NORM),
    same("mask_decoder.iou_token", EMBEDDING),
    same("mask_decoder.mask_tokens", EMBEDDING),
    *sequence("mask_decoder.output_upscaling", UPSCALING),
    same("mask_decoder.output_hypernetworks_mlps.*.layers.*", LINEAR),
    same("mask_decoder.iou_prediction_head.layers.*", LINEAR),
)


def rules(config: SamConfig, prefix: str = "") -> tuple[Rule, ...]:
    """The table of a network's names."""
    return IMAGE_ENCODER + PROMPT_ENCODER + MASK_DECODER


def recognise(content: Content) -> bool:
    """Whether this is a whole SAM, by its keys."""
    return content.has(r"mask_decoder\.iou_token\.weight") and sam.recognise(content.inside(PREFIX))


def config(content: Content) -> SamConfig:
    """The architecture, from shapes.

    A network of 1024 pixels without adapters is a SAM, any other a SAM-Med2D.
    """
    inside = sam.config(content.inside(PREFIX))
    kind = "sam" if inside.position_grid == 64 and not inside.adapters else "sam_med2d"
    sizes = {name: getattr(inside, name) for name in SIZES}
    presets = [p for p in PRESETS if p.architecture.rpartition("_")[0] == kind]
    values: Any = {f.name: getattr(inside, f.name) for f in dataclasses.fields(SamConfig)}
    values["architecture"] = next((p.architecture for p in presets if _has(p, sizes)), kind)
    return SamConfig(**values)


def _has(preset: SamConfig, sizes: dict[str, Any]) -> bool:
    return all(getattr(preset, name) == size for name, size in sizes.items())


def card(content: Content, config: SamConfig) -> ModelCard:
    """SAM's normalisation; there are no classes."""
    return ModelCard(
        cell_classes(),
        mean=_parts(MEAN),
        std=_parts(STD),
        tile=config.image_size,
        provenance=provenance(content),
        citation=CITATION_MED2D if config.stretches else CITATION,
    )


def _parts(values: tuple[float, ...]) -> tuple[float, float, float]:
    red, green, blue = (value / 255 for value in values)
    return red, green, blue


def arch(config: SamConfig) -> str:
    """What the original code calls the network that it builds.

    Raises `CheckpointError`, with what is different, where there is none.
    """
    original = next((p for p in PRESETS if p.architecture == config.architecture), None)
    if original is None:
        raise CheckpointError(
            f"the original code has no {config.architecture} of this size: it builds "
            f"{', '.join(preset.architecture for preset in PRESETS)}"
        )
    chosen = ("position_grid", "adapters") if config.stretches else ()
    different = [
        f"{field.name} is {getattr(original, field.name)}, not {getattr(config, field.name)}"
        for field in dataclasses.fields(config)
        if field.name not in chosen and getattr(original, field.name) != getattr(config, field.name)
    ]
    if different:
        raise CheckpointError(
            f"the original code cannot build this {config.architecture}: {'; '.join(different)}"
        )
    return f"vit_{config.architecture[-1]}"


def value(
    state: OrderedDict[str, np.ndarray],
    config: SamConfig,
    card: ModelCard,
    origin: dict[str, Any],
) -> dict[str, Any]:
    """What the original code loads: the bare state dict, of SAM-Med2D under `model`."""
    return {"model": state} if config.stretches else state
