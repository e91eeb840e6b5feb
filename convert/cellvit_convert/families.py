"""The architectures that are known, one line each."""

from collections.abc import Callable
from typing import Any, NamedTuple

from cellvit_convert import heads, sam, sam_whole, uni, virchow, vit256
from cellvit_convert.card import model_card
from cellvit_convert.content import Content
from cellvit_convert.rules import Rule
from cellvit_jax.card import ModelCard
from cellvit_jax.checkpoint import Config
from cellvit_jax.errors import CheckpointError
from cellvit_jax.models import HeadConfig, ModelConfig, SamConfig


class Family(NamedTuple):
    """Architectures that are told apart, and measured, in one way."""

    name: str
    recognise: Callable[[Content], bool]
    config: Callable[[Content], Any]
    card: Callable[[Content, Any], ModelCard] = model_card


FAMILIES = (
    Family("CellViT-256 and generic CellViT", vit256.recognise, vit256.config),
    Family("CellViT-SAM", sam.recognise, sam.config),
    Family("CellViT-UNI", uni.recognise, uni.config),
    Family("CellViT-Virchow", virchow.recognise, virchow.config),
    Family("SAM and SAM-Med2D", sam_whole.recognise, sam_whole.config, sam_whole.card),
    Family("cell classifier heads", heads.recognise, heads.config, heads.card),
)

RULES: dict[str, Callable[[ModelConfig], tuple[Rule, ...]]] = {  # by the config's encoder
    "vit": vit256.rules,
    "sam": sam.rules,
    "dinov2": uni.rules,
}


def rules(config: Config) -> tuple[Rule, ...]:
    """The table of names of an architecture, for both directions."""
    if isinstance(config, SamConfig):
        return sam_whole.rules(config)
    return heads.RULES if isinstance(config, HeadConfig) else RULES[config.encoder](config)


def identify(content: Content) -> Family:
    """The family of a checkpoint, from its keys: neither the file's name nor `arch` decides.

    Raises `CheckpointError`, with what was found, for an unknown one.
    """
    for family in FAMILIES:
        if family.recognise(content):
            return family
    says = f"its arch is {content.arch!r}, " if content.arch else ""
    keys = ", ".join(list(content.tensors)[:4])
    known = "; ".join(family.name for family in FAMILIES)
    raise CheckpointError(
        f"this architecture is not known: {says}its {len(content.tensors)} tensors start with "
        f"{keys} (known: {known})"
    )
