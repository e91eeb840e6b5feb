"""Foundation models as they were published: HIPT, UNI, Virchow, an image encoder of SAM."""

from collections import OrderedDict
from typing import Any

import numpy as np

from cellvit_convert import backbones, decoder
from cellvit_convert.card import provenance
from cellvit_convert.content import Content
from cellvit_convert.rules import Layout, Rule
from cellvit_jax.card import ModelCard
from cellvit_jax.errors import CheckpointError
from cellvit_jax.models import EncoderConfig

# what their files have before the names: nothing (timm), DINO's wrappers, Segment Anything's
PREFIXES = ("", "backbone.", "module.backbone.", "image_encoder.")

UNUSED: Layout = dict.fromkeys(("weight", "bias", "weight_g", "weight_v"))

HALF = (0.5, 0.5, 0.5)
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NORMALISATION = {"vit": (HALF, HALF), "sam": IMAGENET, "dinov2": IMAGENET}  # mean and std
TRAINED_MPP = dict.fromkeys(  # µm per pixel; Virchow2 saw three others as well
    ("hipt_256_encoder", "uni_encoder", "virchow_encoder", "virchow2_encoder"), 0.5
)
CITATIONS = {
    "hipt_256_encoder": "Chen et al., HIPT, CVPR 2022, arXiv:2206.02647",
    "uni_encoder": "Chen et al., UNI, Nature Medicine 30, 2024, doi:10.1038/s41591-024-02857-3",
    "virchow_encoder": "Vorontsov et al., Virchow, Nature Medicine 30, 2024, "
    "doi:10.1038/s41591-024-03141-0",
    "virchow2_encoder": "Zimmermann et al., Virchow2, 2024, arXiv:2408.00738",
} | dict.fromkeys(
    ("sam_b_encoder", "sam_l_encoder", "sam_h_encoder"),
    "Kirillov et al., Segment Anything, ICCV 2023, arXiv:2304.02643",
)


def rules(config: EncoderConfig, prefix: str = "") -> tuple[Rule, ...]:
    """The table of an encoder's names behind a prefix; DINO's projection head is of no use."""
    table = (
        rule._replace(
            theirs=f"{prefix}{rule.theirs.removeprefix('encoder').lstrip('.')}".strip(".")
        )
        for rule in backbones.TABLES[config.encoder]
    )
    head = f"{prefix.removesuffix('backbone.')}head"
    return (*table, Rule(f"{head}.mlp.*", "", UNUSED), Rule(f"{head}.last_layer", "", UNUSED))


def recognise(content: Content) -> bool:
    """Whether this is a known encoder without anything above it, by its keys."""
    return (
        content.prefix in PREFIXES
        and not decoder.recognise(content)
        and backbones.recognise(content.inside(content.prefix))
    )


def config(content: Content) -> EncoderConfig:
    """The encoder, from shapes."""
    return backbones.config(content.inside(content.prefix))


def card(content: Content, config: EncoderConfig) -> ModelCard:
    """How the family's models want their images; there are no classes."""
    mean, std = NORMALISATION[config.encoder]
    return ModelCard(
        (),
        mean=mean,
        std=std,
        mpp=TRAINED_MPP.get(config.architecture, ModelCard.mpp),
        tile=config.position_grid * config.patch_size,
        provenance=provenance(content),
        citation=CITATIONS.get(config.architecture, ""),
    )


def arch(config: EncoderConfig) -> str:
    """Nothing: such files do not say it. Raises `CheckpointError` for what nobody computes."""
    if config.gate == "gelu":
        raise CheckpointError("the foundation models gate with silu, this encoder with gelu")
    return ""


def value(
    state: OrderedDict[str, np.ndarray],
    config: EncoderConfig,
    card: ModelCard,
    origin: dict[str, Any],
) -> dict[str, Any]:
    """What their files hold: the bare state dict, or with DINO a part of that name."""
    part = origin.get("part")
    return {part: state, "epoch": origin.get("epoch")} if part else state
